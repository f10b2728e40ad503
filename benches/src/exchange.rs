//! The exchanges of the OSU micro-benchmarks, between any two ends: ping-pong, and windows of messages.

use std::error::Error;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What an end returns.
pub type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One end of something that carries messages both ways.
pub trait End {
    /// Sends one message.
    ///
    /// # Errors
    /// If the other end is gone.
    fn send(&mut self, data: &Bytes) -> Result;

    /// Receives one message, which has that many bytes.
    ///
    /// # Errors
    /// If the other end is gone.
    fn receive(&mut self, len: usize) -> Result;
}

/// What is exchanged. Both ends are given the same.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Bytes in a message.
    pub size: usize,
    /// Messages that are sent before an answer is waited for: 1 is ping-pong, where the answer is as large.
    pub window: usize,
    /// How often that is done and measured.
    pub times: usize,
}

/// An answer to a window.
const ANSWER: Bytes = Bytes::from_static(&[0; 8]);
/// What is moved per measurement, about, and the most messages.
const VOLUME: usize = 256 << 20;
const PINGS: usize = 4000;
const WINDOWS: usize = 1000;

impl Plan {
    /// Ping-pong.
    #[must_use]
    pub fn latency(size: usize) -> Self {
        Self { size, window: 1, times: (VOLUME / size.max(1) / 2).clamp(2, PINGS) }
    }

    /// Windows as large as OSU's, 64, but not of more than 16 MiB, or two messages.
    #[must_use]
    pub fn bandwidth(size: usize) -> Self {
        let window = ((16 << 20) / size.max(1)).clamp(2, 64);
        Self { size, window, times: (VOLUME / size.max(1) / window).clamp(2, WINDOWS) }
    }

    /// Exchanges that are not measured, first.
    fn warm_up(&self) -> usize {
        self.times / 10 + 1
    }

    fn answer(&self, data: &Bytes) -> Bytes {
        if self.window == 1 { data.clone() } else { ANSWER }
    }

    /// The part of the end that begins. Returns the time of all that is measured.
    ///
    /// # Errors
    /// Whatever the end returns.
    pub fn lead(&self, end: &mut impl End, data: &Bytes) -> Result<Duration> {
        let answer = self.answer(data).len();
        let mut start = Instant::now();
        for time in 0..self.warm_up() + self.times {
            if time == self.warm_up() {
                start = Instant::now();
            }
            for _ in 0..self.window {
                end.send(data)?;
            }
            end.receive(answer)?;
        }
        Ok(start.elapsed())
    }

    /// The part of the other end.
    ///
    /// # Errors
    /// Whatever the end returns.
    pub fn follow(&self, end: &mut impl End, data: &Bytes) -> Result {
        let answer = self.answer(data);
        for _ in 0..self.warm_up() + self.times {
            for _ in 0..self.window {
                end.receive(self.size)?;
            }
            end.send(&answer)?;
        }
        Ok(())
    }

    /// Microseconds for one message one way, if it took that time.
    #[must_use]
    pub fn micros(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.times as f64 / 2.0
    }

    /// 10^9 bytes a second.
    #[must_use]
    pub fn gigabytes(&self, time: Duration) -> f64 {
        (self.size * self.window * self.times) as f64 / time.as_secs_f64() / 1e9
    }

    /// 10^6 messages a second.
    #[must_use]
    pub fn megamessages(&self, time: Duration) -> f64 {
        (self.window * self.times) as f64 / time.as_secs_f64() / 1e6
    }
}
