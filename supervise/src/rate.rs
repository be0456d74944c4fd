//! How often something may be done: a bucket of tokens. PURE: the time is told.

use std::time::Duration;

/// Holds up to `most` tokens and gets one more every `every`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    most: u32,
    every: Duration,
    tokens: u32,
    /// When the last token was put in, since some beginning.
    filled: Duration,
}

impl Bucket {
    /// A full one. `every` is more than zero.
    pub fn new(most: u32, every: Duration) -> Self {
        Self { most, every, tokens: most, filled: Duration::ZERO }
    }

    /// Takes a token; where there is none, says how long until there is one. `now` is the time since the same beginning.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let since = now.saturating_sub(self.filled);
        let new = since.as_nanos() / self.every.as_nanos().max(1);
        match u32::try_from(new) {
            Ok(new) if u64::from(self.tokens) + u64::from(new) < u64::from(self.most) => {
                self.tokens += new;
                self.filled += self.every * new;
            }
            Ok(_) | Err(_) => {
                self.tokens = self.most;
                self.filled = self.filled.max(now);
            }
        }
        if self.tokens == 0 {
            return Err(self.every - now.saturating_sub(self.filled).min(self.every));
        }
        self.tokens -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let second = Duration::from_secs(1);
        let mut bucket = Bucket::new(3, second);
        assert_eq!([0; 3].map(|_| bucket.take(Duration::ZERO)), [Ok(()); 3]);
        assert_eq!(bucket.take(second / 4), Err(second * 3 / 4));
        assert_eq!((bucket.take(second), bucket.take(second)), (Ok(()), Err(second)));
        assert_eq!(bucket.take(second * 5 / 2), Ok(()));
        assert_eq!(bucket.take(second * 5 / 2), Err(second / 2));
        // It never holds more than it may, however long nobody asks.
        let late = Duration::from_secs(u64::MAX);
        assert_eq!([0; 4].map(|_| bucket.take(late)), [Ok(()), Ok(()), Ok(()), Err(second)]);
        // A clock that goes back gives nothing.
        assert_eq!(bucket.take(Duration::ZERO), Err(second));
    }
}
