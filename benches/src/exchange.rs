//! The exchanges of the OSU micro-benchmarks, between any two ends: ping-pong, and windows of messages.

use std::error::Error;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The result of an end's operations.
pub type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One end of a bidirectional message channel.
pub trait End {
    /// Sends one message.
    ///
    /// # Errors
    /// If the other end is gone.
    fn send(&mut self, data: &Bytes) -> Result;

    /// Receives a message of `len` bytes.
    ///
    /// # Errors
    /// If the other end is gone.
    fn receive(&mut self, len: usize) -> Result;
}

/// The exchange to perform. Both ends get the same plan.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The size of a message in bytes.
    pub size: usize,
    /// The number of messages sent before an answer is awaited: 1 means ping-pong, where the answer has the same size.
    pub window: usize,
    /// How many times that is done and measured.
    pub times: usize,
}

/// The answer to a window.
const ANSWER: Bytes = Bytes::from_static(&[0; 8]);
/// The approximate volume of a measurement, and the most messages.
const VOLUME: usize = 256 << 20;
const PINGS: usize = 4000;
const WINDOWS: usize = 1000;

impl Plan {
    /// Ping-pong.
    #[must_use]
    pub fn latency(size: usize) -> Self {
        Self { size, window: 1, times: (VOLUME / size.max(1) / 2).clamp(2, PINGS) }
    }

    /// Windows as large as OSU's, 64 messages, but of at most 16 MiB or two messages.
    #[must_use]
    pub fn bandwidth(size: usize) -> Self {
        let window = ((16 << 20) / size.max(1)).clamp(2, 64);
        Self { size, window, times: (VOLUME / size.max(1) / window).clamp(2, WINDOWS) }
    }

    /// The number of initial exchanges that are not measured.
    fn warm_up(&self) -> usize {
        self.times / 10 + 1
    }

    fn answer(&self, data: &Bytes) -> Bytes {
        if self.window == 1 { data.clone() } else { ANSWER }
    }

    /// Plays the part of the end that begins. Returns the time of everything that is measured.
    ///
    /// # Errors
    /// Any error of the end.
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

    /// Plays the part of the other end.
    ///
    /// # Errors
    /// Any error of the end.
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

    /// Microseconds per message, one way, given the time of the exchange.
    #[must_use]
    pub fn micros(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.times as f64 / 2.0
    }

    /// The bandwidth in 10^9 bytes per second.
    #[must_use]
    pub fn gigabytes(&self, time: Duration) -> f64 {
        (self.size * self.window * self.times) as f64 / time.as_secs_f64() / 1e9
    }

    /// The message rate in 10^6 messages per second.
    #[must_use]
    pub fn megamessages(&self, time: Duration) -> f64 {
        (self.window * self.times) as f64 / time.as_secs_f64() / 1e6
    }
}
