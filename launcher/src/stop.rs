//! The wish to end, with a level. Signals and clients raise it; everyone else only looks.

use tokio::sync::watch;

/// How urgently things should end. Levels only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nobody wants an end.
    Run,
    /// Ask the agent to end, then take everything back.
    Graceful,
    /// Take everything back.
    Now,
}

/// Who raises the level.
#[derive(Debug, Clone)]
pub struct Stopper(watch::Sender<Level>);

/// Who looks at it.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Level>);

/// A stopper and its first look.
pub fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(Level::Run);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Raises the level to at least `level`.
    pub fn raise(&self, level: Level) {
        self.0.send_if_modified(|now| {
            let raised = level > *now;
            *now = level.max(*now);
            raised
        });
    }

    /// Raises the level by one.
    pub fn next(&self) {
        self.0.send_modify(|now| {
            *now = match *now {
                Level::Run => Level::Graceful,
                Level::Graceful | Level::Now => Level::Now,
            }
        });
    }

    /// One more look.
    pub fn stop(&self) -> Stop {
        Stop(self.0.subscribe())
    }
}

impl Stop {
    /// The level now.
    pub fn level(&self) -> Level {
        *self.0.borrow()
    }

    /// Ends when the level is at least `level`. When every stopper is gone it never ends: nobody is left to want it.
    pub async fn reached(&self, level: Level) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|now| *now >= level).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn levels_only_rise() {
        let (stopper, stop) = channel();
        assert_eq!(stop.level(), Level::Run);
        stopper.raise(Level::Now);
        stopper.raise(Level::Graceful);
        assert_eq!(stop.level(), Level::Now);
        stop.reached(Level::Graceful).await;
        let (stopper, stop) = channel();
        stopper.next();
        assert_eq!(stop.level(), Level::Graceful);
        stopper.next();
        stopper.next();
        assert_eq!(stop.level(), Level::Now);
    }
}
