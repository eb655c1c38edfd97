//! The PIN: read for each call, wiped after it, and never tried again once the token refused it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki::types::AuthPin;
use strongroom_keys::RootError;
use strongroom_keys::root::secret_file;
use zeroize::Zeroizing;

use crate::KIND;

/// Bytes of a PIN at most.
const LONGEST: usize = 255;

/// A token's user PIN. Never empty; wiped on drop.
#[derive(PartialEq, Eq)]
pub(crate) struct Pin(Zeroizing<String>);

impl Pin {
    fn read(file: &Path) -> Result<Self, RootError> {
        let failed = |what: String| KIND.credential(format!("the PIN's file {}: {what}", file.display()));
        let bytes = secret_file(file, LONGEST)
            .map_err(|error| failed(format!("{error}; write the PIN into it, or correct pin_file")))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| failed("a PIN is UTF-8 text".to_owned()))?;
        if text.is_empty() || text.len() > LONGEST {
            return Err(failed(format!("a PIN has 1 to {LONGEST} bytes")));
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// For the call that logs in.
    pub(crate) fn for_login(&self) -> AuthPin {
        AuthPin::new(self.0.as_str().into())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(..)")
    }
}

/// Where the PIN comes from, and the one that the token refused last.
#[derive(Debug)]
pub(crate) struct Pins {
    file: PathBuf,
    refused: Mutex<Option<Pin>>,
}

impl Pins {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file, refused: Mutex::new(None) }
    }

    /// The PIN to log in with.
    ///
    /// # Errors
    /// [`RootError::Credential`] if there is none, or the token has refused this one before.
    pub(crate) fn next(&self) -> Result<Pin, RootError> {
        let pin = Pin::read(&self.file)?;
        if self.refused().as_ref() == Some(&pin) {
            return Err(KIND.credential(format!(
                "the token has refused the PIN in {} and would lock if it were tried again: write the right one into \
                 the file; if the token's own PIN was changed to this one, restart",
                self.file.display()
            )));
        }
        Ok(pin)
    }

    /// The token has refused this PIN.
    pub(crate) fn refuse(&self, pin: Pin) {
        *self.refused() = Some(pin);
    }

    fn refused(&self) -> MutexGuard<'_, Option<Pin>> {
        // What it holds is whole at any moment.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Pin, RootError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Pin::read(file.path())
    }

    #[test]
    fn one_line_end_is_no_part_of_the_pin() {
        for bytes in [b"12 34".as_slice(), b"12 34\n", b"12 34\r\n"] {
            assert_eq!(read(bytes).unwrap().0.as_str(), "12 34");
        }
        assert_eq!(read(b"1234\n\n").unwrap().0.as_str(), "1234\n");
        assert_eq!(read(&[b'1'; LONGEST]).unwrap().0.len(), LONGEST);
    }

    #[test]
    fn what_is_no_pin_is_refused_without_showing_it() {
        for bytes in [b"".as_slice(), b"\n", b"secret\xff", &[b'1'; LONGEST + 1]] {
            let error = read(bytes).unwrap_err();
            assert!(matches!(error, RootError::Credential { .. }));
            assert!(!error.to_string().contains("secret"));
        }
        assert!(matches!(Pin::read(Path::new("/nowhere")), Err(RootError::Credential { .. })));
        assert_eq!(format!("{:?}", read(b"1234").unwrap()), "Pin(..)");
    }

    #[test]
    fn a_refused_pin_is_not_tried_again_until_the_file_changes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "1111").unwrap();
        let pins = Pins::new(file.path().to_owned());
        pins.refuse(pins.next().unwrap());
        assert!(matches!(pins.next(), Err(RootError::Credential { .. })));
        std::fs::write(file.path(), "2222").unwrap();
        assert!(pins.next().is_ok());
    }
}
