//! Standard input, read once: a command that is run again with a second factor is given what it was given before.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

use super::output::CliError;

/// What a command was given on standard input, once it has read it.
#[derive(Clone, Default)]
pub struct Input(Arc<Mutex<Option<Zeroizing<Vec<u8>>>>>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Input(..)")
    }
}

impl Input {
    /// What `read` finds on standard input; from the second time on, what it found the first time.
    pub fn once(&self, read: impl FnOnce() -> Result<Vec<u8>, CliError>) -> Result<Vec<u8>, CliError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = &*kept {
            return Ok(kept.to_vec());
        }
        let found = read()?;
        *kept = Some(Zeroizing::new(found.clone()));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_there_for_the_second_run_of_a_command() {
        let input = Input::default();
        assert!(input.once(|| Err(CliError::unfit("not readable"))).is_err());
        assert_eq!(input.once(|| Ok(b"srt1_x".to_vec())).unwrap(), b"srt1_x");
        // Nothing is left there.
        assert_eq!(input.clone().once(|| Ok(vec![])).unwrap(), b"srt1_x");
        assert_eq!(format!("{input:?}"), "Input(..)");
    }
}
