//! Room for connections: in all, and for the holder of one certificate, so that none can keep the others out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The part of all connections that one holder may have: one in so many.
const PART: usize = 4;

/// How many connections there are, and whose.
pub(crate) struct Seats {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// By what the certificate calls its holder. Only those who have any.
    of: HashMap<Arc<str>, usize>,
}

/// Why there is no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Full {
    /// There are as many connections as configured.
    All,
    /// The holder has as many as one may have.
    Own,
}

/// Room for one connection. Dropping it gives it back.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    holder: Arc<str>,
}

impl Seats {
    /// Room for `most` connections.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// Room for one more of a holder.
    pub fn seat(self: &Arc<Self>, holder: Arc<str>) -> Result<Seat, Full> {
        let mut taken = self.taken();
        if taken.all >= self.most {
            return Err(Full::All);
        }
        let own = taken.of.entry(Arc::clone(&holder)).or_default();
        if *own >= self.most.div_ceil(PART) {
            return Err(Full::Own);
        }
        *own += 1;
        taken.all += 1;
        Ok(Seat { seats: Arc::clone(self), holder })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing panics between the two counts.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all -= 1;
        if let Some(own) = taken.of.get_mut(&self.holder) {
            *own -= 1;
            if *own == 0 {
                taken.of.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_gets_a_quarter_and_gives_it_back() {
        let seats = Seats::new(8);
        let greedy: Vec<Seat> = (0..2).map(|_| seats.seat("greedy".into()).unwrap()).collect();
        assert_eq!(seats.seat("greedy".into()).err(), Some(Full::Own));
        assert!(seats.seat("modest".into()).is_ok());
        drop(greedy);
        assert!(seats.taken().of.is_empty());
        assert!(seats.seat("greedy".into()).is_ok());
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let seats = Seats::new(2);
        let taken: Vec<Seat> = ["a", "b"].map(|holder| seats.seat(holder.into()).unwrap()).into();
        assert_eq!(seats.seat("c".into()).err(), Some(Full::All));
        drop(taken);
        assert!(seats.seat("c".into()).is_ok());
    }
}
