//! What a client notes of the answers that it gets.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::measure;
use super::workload::Answer;

/// Answers so far.
pub struct Noted {
    /// Requests that were answered.
    pub requests: u64,
    /// Values that they carried.
    pub items: u64,
    /// Requests that were turned away for want of room.
    pub shed: u64,
    /// Of those, the ones that were told when to try again.
    pub told_when: u64,
    /// Requests that were due and could not even be sent.
    pub unsent: u64,
    /// Microseconds of the answered ones, and of how long the unsent ones waited.
    pub latencies: Histogram<u64>,
    /// Tokens by the number of their request; kept if [`Noted::keeps`].
    pub tokens: Vec<(u64, Vec<String>)>,
    /// When each request should have started, how long it took, and whether it was answered; kept if [`Noted::keeps`].
    pub trace: Vec<(Instant, Duration, bool)>,
    /// Whether single answers are kept.
    pub keeps: bool,
}

impl Default for Noted {
    fn default() -> Self {
        Self {
            requests: 0,
            items: 0,
            shed: 0,
            told_when: 0,
            unsent: 0,
            latencies: measure::latencies(),
            tokens: vec![],
            trace: vec![],
            keeps: false,
        }
    }
}

impl Noted {
    /// Notes an answer to a request that should have started at an instant.
    pub fn note(&mut self, number: u64, intended: Instant, items: usize, answer: Answer) {
        let done = matches!(answer, Answer::Done(_));
        if self.keeps {
            self.trace.push((intended, intended.elapsed(), done));
        }
        match answer {
            Answer::Done(tokens) => {
                self.requests += 1;
                self.items += items as u64;
                measure::note(&mut self.latencies, intended);
                if self.keeps && !tokens.is_empty() {
                    self.tokens.push((number, tokens));
                }
            }
            Answer::Shed(delay) => {
                self.shed += 1;
                self.told_when += u64::from(delay.is_some());
            }
        }
    }

    /// The requests that were due.
    fn due(&self) -> f64 {
        (self.requests + self.shed + self.unsent) as f64
    }

    /// The share of what was due that was turned away.
    pub fn shed_share(&self) -> f64 {
        self.shed as f64 / self.due()
    }

    /// The share of what was due that could not be sent.
    pub fn unsent_share(&self) -> f64 {
        self.unsent as f64 / self.due()
    }

    /// Notes a request that was not sent.
    pub fn unsent(&mut self, intended: Instant) {
        self.unsent += 1;
        measure::note(&mut self.latencies, intended);
        if self.keeps {
            self.trace.push((intended, intended.elapsed(), false));
        }
    }

    /// Takes what another one noted.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.items += other.items;
        self.shed += other.shed;
        self.told_when += other.told_when;
        self.unsent += other.unsent;
        // Both have the same bounds.
        let _ = self.latencies.add(&other.latencies);
        self.tokens.extend(other.tokens);
        self.trace.extend(other.trace);
    }
}
