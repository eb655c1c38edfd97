//! Random bytes from the system, and nonces for sealing.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroize;

use crate::error::KeyError;

/// Fresh random bytes from the operating system.
///
/// # Errors
/// [`KeyError::Random`] if the system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), KeyError> {
    SystemRandom::new().fill(bytes).map_err(|_| KeyError::Random)
}

/// A nonce of AES-GCM: 96 bits (SP 800-38D section 8.2.2, the random construction).
pub(crate) type Nonce = [u8; 12];

/// How many nonces are drawn at once: a system call a nonce would cost more than the sealing.
const DRAWN: usize = 64;

thread_local! {
    static NONCES: RefCell<Nonces> = const { RefCell::new(Nonces { drawn: [[0; 12]; DRAWN], used: DRAWN }) };
}

/// A thread's supply of nonces. What is left of it is wiped when the thread ends, so that nobody can predict one.
struct Nonces {
    drawn: [Nonce; DRAWN],
    used: usize,
}

impl Nonces {
    fn take(&mut self) -> Result<Nonce, KeyError> {
        if self.used >= DRAWN {
            fill(self.drawn.as_flattened_mut())?;
            self.used = 0;
        }
        let nonce = std::mem::take(&mut self.drawn[self.used]);
        self.used += 1;
        Ok(nonce)
    }
}

impl Drop for Nonces {
    fn drop(&mut self) {
        self.drawn.zeroize();
    }
}

/// A fresh random nonce.
///
/// The clock is mixed in because a machine that is cloned while it runs takes its supply along, and both would go on
/// with the same nonces. Random bits XOR anything that does not depend on them are as random as before.
pub(crate) fn nonce() -> Result<Nonce, KeyError> {
    let drawn = NONCES.try_with(|nonces| nonces.borrow_mut().take());
    // A thread that is ending has no supply any more.
    let mut nonce = drawn.unwrap_or_else(|_| random())?;
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    for (byte, tick) in nonce.iter_mut().zip(clock.to_le_bytes()) {
        *byte ^= tick;
    }
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_nonce_comes_twice_on_any_thread() {
        let threads: Vec<_> =
            (0..4).map(|_| std::thread::spawn(|| (0..10_000).map(|_| nonce().unwrap()).collect::<Vec<_>>())).collect();
        let all: Vec<Nonce> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn used_nonces_are_gone_from_the_supply() {
        let mut nonces = Nonces { drawn: [[0; 12]; DRAWN], used: DRAWN };
        let first = nonces.take().unwrap();
        assert_ne!(first, [0; 12]);
        assert_eq!(nonces.drawn[0], [0; 12]);
    }

    #[test]
    fn the_same_supply_at_another_time_gives_other_nonces() {
        let supply = || Nonces { drawn: [[7; 12]; DRAWN], used: 0 };
        let mut seen = HashSet::new();
        for _ in 0..3 {
            NONCES.with(|nonces| *nonces.borrow_mut() = supply());
            seen.insert(nonce().unwrap());
            std::thread::yield_now();
        }
        assert!(seen.len() > 1);
    }
}
