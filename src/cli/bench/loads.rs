//! The loads that are measured, by their names.

use std::time::Duration;

use super::load::{Pace, Plan};
use super::pace::Until;
use super::picks::Spread;
use super::population::Shape;
use super::workload::Kind;

/// Values of a large batch.
pub const BATCH: usize = 1_000;

/// What is measured beside the vault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beside {
    /// Nothing.
    Alone,
    /// The echo.
    Echo,
    /// The echo and the bare work.
    Both,
}

/// A load.
#[derive(Clone, Debug)]
pub struct Load {
    /// `tokenize_unary`.
    pub name: &'static str,
    /// What its requests do.
    pub kinds: Vec<Kind>,
    /// Values of a request.
    pub items: usize,
    /// How its reads are spread.
    pub spread: Spread,
    /// Connections.
    pub connections: usize,
    /// How its requests follow each other.
    pub pace: Pace,
    /// Which yardsticks are measured in turn with it.
    pub beside: Beside,
}

impl Load {
    /// What one of its requests carries.
    pub fn shape(&self) -> Shape {
        Shape::of(self.items)
    }

    /// Whether it reads what is stored.
    pub fn reads(&self) -> bool {
        self.kinds.iter().any(|kind| *kind != Kind::Tokenize)
    }

    /// The plan of one run.
    pub fn plan(&self, until: Until) -> Plan {
        Plan { connections: self.connections, pace: self.pace, until, keeps: false }
    }
}

/// How large the loads are.
#[derive(Clone, Copy)]
pub struct Size {
    /// Requests of one value each.
    pub requests: u64,
    /// Batches of 1,000.
    pub batches: u64,
    /// Instead of so many: for so long.
    pub seconds: Option<f64>,
    /// Connections.
    pub connections: usize,
    /// Requests of one value under way at once.
    pub in_flight: usize,
    /// Batches under way at once.
    pub batches_in_flight: usize,
}

impl Size {
    /// When a load of this batch size ends.
    pub fn until(&self, items: usize) -> Until {
        match self.seconds {
            Some(seconds) => Until::Lasted(Duration::from_secs_f64(seconds)),
            None if items == 1 => Until::Requests(self.requests),
            None => Until::Requests((self.batches * (BATCH / items).clamp(1, 10) as u64).min(self.requests)),
        }
    }

    fn at_once(&self, items: usize) -> usize {
        match items {
            1 => self.in_flight,
            BATCH => self.batches_in_flight,
            _ => self.in_flight.min(4 * self.batches_in_flight),
        }
    }

    fn load(&self, name: &'static str, kind: Kind, items: usize, beside: Beside) -> Load {
        let pace = Pace::Closed(self.at_once(items));
        Load { name, kinds: vec![kind], items, spread: Spread::Uniform, connections: self.connections, pace, beside }
    }

    /// The four loads that stand for all.
    pub fn first(&self) -> Vec<Load> {
        vec![
            self.load("tokenize_unary", Kind::Tokenize, 1, Beside::Both),
            self.load("detokenize_unary", Kind::Detokenize, 1, Beside::Both),
            self.load("tokenize_batch", Kind::Tokenize, BATCH, Beside::Both),
            self.load("detokenize_batch", Kind::Detokenize, BATCH, Beside::Both),
        ]
    }

    /// Other batch sizes, streams, reads by Zipf's law, and everything at once.
    pub fn more(&self) -> Vec<Load> {
        let zipfian = |load: Load| Load { spread: Spread::Zipfian, ..load };
        let stream = |load: Load| Load { pace: Pace::Streams, ..load };
        let mixed = vec![Kind::Tokenize, Kind::Detokenize, Kind::Detokenize, Kind::Detokenize, Kind::Match];
        vec![
            self.load("tokenize_batch_10", Kind::Tokenize, 10, Beside::Echo),
            self.load("detokenize_batch_10", Kind::Detokenize, 10, Beside::Echo),
            self.load("tokenize_batch_100", Kind::Tokenize, 100, Beside::Echo),
            self.load("detokenize_batch_100", Kind::Detokenize, 100, Beside::Echo),
            self.load("match_unary", Kind::Match, 1, Beside::Echo),
            self.load("match_batch", Kind::Match, BATCH, Beside::Echo),
            zipfian(self.load("detokenize_unary_zipfian", Kind::Detokenize, 1, Beside::Both)),
            zipfian(self.load("detokenize_batch_zipfian", Kind::Detokenize, BATCH, Beside::Both)),
            Load { kinds: mixed, ..zipfian(self.load("mixed_unary_zipfian", Kind::Tokenize, 1, Beside::Echo)) },
            stream(self.load("tokenize_stream_100", Kind::Tokenize, 100, Beside::Echo)),
            stream(self.load("detokenize_stream_100", Kind::Detokenize, 100, Beside::Echo)),
        ]
    }

    /// The vault under the loads that the peers get: as many connections, one request under way on each.
    pub fn as_peers(&self) -> Vec<Load> {
        let alike = |name, kind, items, connections| Load {
            connections,
            pace: Pace::Closed(connections),
            ..self.load(name, kind, items, Beside::Echo)
        };
        vec![
            alike("tokenize_unary_over_16", Kind::Tokenize, 1, 16),
            alike("detokenize_unary_over_16", Kind::Detokenize, 1, 16),
            alike("tokenize_batch_100_over_16", Kind::Tokenize, 100, 16),
            alike("detokenize_batch_100_over_16", Kind::Detokenize, 100, 16),
            alike("tokenize_unary_over_64", Kind::Tokenize, 1, 64),
            alike("tokenize_batch_over_16", Kind::Tokenize, BATCH, 16),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_has_a_name_of_its_own_and_an_end() {
        let size =
            Size { requests: 24_000, batches: 100, seconds: None, connections: 4, in_flight: 64, batches_in_flight: 4 };
        let all: Vec<Load> = [size.first(), size.more(), size.as_peers()].concat();
        let mut names: Vec<&str> = all.iter().map(|load| load.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert_eq!((size.until(1), size.until(1_000)), (Until::Requests(24_000), Until::Requests(100)));
        assert_eq!((size.until(100), size.until(10)), (Until::Requests(1_000), Until::Requests(1_000)));
        let timed = Size { seconds: Some(2.5), ..size };
        assert_eq!(timed.until(1), Until::Lasted(Duration::from_millis(2_500)));
    }
}
