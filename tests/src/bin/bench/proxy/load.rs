//! The client of both sides: as little work as a client can do, so that what is measured is the proxy. One thread, requests
//! that were written beforehand, replies read by their length.

use super::upstream::MOMENT;
use crate::bars::median;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where requests go.
#[derive(Debug, Clone)]
pub struct Target {
    /// A proxy's address, or the upstream's.
    pub address: SocketAddr,
    /// What stands before every path there.
    pub prefix: &'static str,
}

impl Target {
    fn request(&self, path: &str) -> Vec<u8> {
        format!(
            "GET {}{path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
            self.prefix, self.address
        )
        .into_bytes()
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        let stream =
            TcpStream::connect(self.address).await.map_err(|e| format!("{} does not answer: {e}", self.address))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        Ok(stream)
    }
}

/// Requests a second over so many connections, each asking again as soon as it is answered.
pub async fn requests_per_second(target: &Target, connections: usize, within: Duration) -> Result<f64, String> {
    let request = Arc::new(target.request("/small"));
    let over = Arc::new(AtomicBool::new(false));
    let mut asking = Vec::new();
    for _ in 0..connections {
        let mut stream = target.connect().await?;
        let (request, over) = (Arc::clone(&request), Arc::clone(&over));
        // The first one opens the connection to the upstream as well, and is not counted.
        let mut buffer = vec![0_u8; 16 << 10];
        exchange(&mut stream, &request, &mut buffer).await?;
        asking.push(tokio::spawn(async move {
            let mut done = 0_u64;
            while !over.load(Ordering::Relaxed) {
                exchange(&mut stream, &request, &mut buffer).await?;
                done += 1;
            }
            Ok::<_, String>(done)
        }));
    }
    let began = Instant::now();
    tokio::time::sleep(within).await;
    over.store(true, Ordering::Relaxed);
    let took = began.elapsed();
    let mut all = 0;
    for one in asking {
        all += one.await.map_err(|e| e.to_string())??;
    }
    Ok(all as f64 / took.as_secs_f64())
}

/// Median milliseconds of one request after another on one connection.
pub async fn median_ms(target: &Target, requests: usize) -> Result<f64, String> {
    let request = target.request("/small");
    let mut stream = target.connect().await?;
    let mut buffer = vec![0_u8; 16 << 10];
    let mut all = Vec::with_capacity(requests);
    for n in 0..requests + requests / 10 {
        let began = Instant::now();
        exchange(&mut stream, &request, &mut buffer).await?;
        if n >= requests / 10 {
            all.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(median(&all))
}

/// Bytes a second of one long reply.
pub async fn bytes_per_second(target: &Target, bytes: u64) -> Result<f64, String> {
    let mut stream = target.connect().await?;
    let began = Instant::now();
    stream.write_all(&target.request(&format!("/big?n={bytes}"))).await.map_err(|e| e.to_string())?;
    let mut buffer = vec![0_u8; 1 << 20];
    let (head, mut got) = head(&mut stream, &mut buffer).await?;
    got -= head;
    while (got as u64) < bytes {
        let n = stream.read(&mut buffer).await.map_err(|e| e.to_string())?;
        if n == 0 {
            return Err(format!("a reply of {bytes} bytes ended after {got}"));
        }
        got += n;
    }
    Ok(bytes as f64 / began.elapsed().as_secs_f64())
}

/// Median milliseconds from an event's writing to its reading.
pub async fn event_delay_ms(target: &Target, events: usize, epoch: Instant) -> Result<f64, String> {
    let mut stream = target.connect().await?;
    stream.write_all(&target.request("/events?ms=5")).await.map_err(|e| e.to_string())?;
    let (mut text, mut all) = (String::new(), Vec::new());
    let mut buffer = vec![0_u8; 16 << 10];
    while all.len() < events {
        let n = stream.read(&mut buffer).await.map_err(|e| e.to_string())?;
        let now = epoch.elapsed().as_secs_f64() * 1e3;
        if n == 0 {
            return Err(format!("a stream ended after {} events", all.len()));
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        while let Some((_, rest)) = text.split_once(MOMENT.0) {
            let Some((moment, rest)) = rest.split_once(MOMENT.1) else { break };
            let nanoseconds: f64 = moment.trim_start_matches('0').parse().unwrap_or(f64::NAN);
            all.push(now - nanoseconds / 1e6);
            text = rest.to_owned();
        }
    }
    // The first comes with everything that an opening costs.
    Ok(median(&all.split_off(1)))
}

/// Streams that stay open; every one has had an event.
pub async fn open_streams(target: &Target, streams: usize) -> Result<Vec<TcpStream>, String> {
    let request = target.request("/events?ms=1000");
    let mut open = Vec::with_capacity(streams);
    for _ in 0..streams {
        let mut stream = target.connect().await?;
        stream.write_all(&request).await.map_err(|e| e.to_string())?;
        open.push(stream);
    }
    let mut buffer = vec![0_u8; 16 << 10];
    for stream in &mut open {
        let (head, filled) = head(stream, &mut buffer).await?;
        if !buffer.starts_with(b"HTTP/1.1 200") {
            return Err(format!("a stream was refused: {}", String::from_utf8_lossy(&buffer[..head])));
        }
        if head == filled {
            stream.read(&mut buffer).await.map_err(|e| e.to_string())?;
        }
    }
    Ok(open)
}

/// One request and its whole reply.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) -> Result<(), String> {
    stream.write_all(request).await.map_err(|e| e.to_string())?;
    let (head, mut filled) = head(stream, buffer).await?;
    let text = &buffer[..head];
    if !text.starts_with(b"HTTP/1.1 200") {
        return Err(format!("a reply is no success: {}", String::from_utf8_lossy(text)));
    }
    let length = length(text).ok_or("a small reply has no length")?;
    while filled < head + length {
        let n = stream.read(&mut buffer[filled..]).await.map_err(|e| e.to_string())?;
        if n == 0 {
            return Err("a reply broke off".to_owned());
        }
        filled += n;
    }
    Ok(())
}

/// Reads at least a head: where it ends, and how much was read.
async fn head(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<(usize, usize), String> {
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buffer[filled..]).await.map_err(|e| e.to_string())?;
        if n == 0 {
            return Err(format!("no reply: {}", String::from_utf8_lossy(&buffer[..filled])));
        }
        filled += n;
        if let Some(at) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok((at + 4, filled));
        }
    }
}

fn length(head: &[u8]) -> Option<usize> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.len() > 15 && line[..15].eq_ignore_ascii_case(b"content-length:"))?;
    std::str::from_utf8(&line[15..]).ok()?.trim().parse().ok()
}
