//! A token or a secret id: read for each call, wiped after it, and mute in `Debug`.

use std::fmt;
use std::path::Path;

use ring::digest::{Digest, SHA256, digest};
use strongroom_keys::RootError;
use strongroom_keys::root::secret_file;
use zeroize::Zeroizing;

use crate::KIND;

/// Bytes of a secret at most. Batch tokens and tokens of clusters are long.
const LONGEST: usize = 4_096;

/// What the vault shows to the server. Never empty, printable ASCII; wiped on drop.
#[derive(PartialEq, Eq)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// Reads a file that holds the secret and nothing else; a line end after it does not count.
    pub(crate) fn read(file: &Path) -> Result<Self, RootError> {
        let failed = |what: &dyn fmt::Display| KIND.credential(format!("the file {}: {what}", file.display()));
        let bytes = secret_file(file, LONGEST).map_err(|error| failed(&error))?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        Self::new(text.to_owned())
            .ok_or_else(|| failed(&format_args!("write 1 to {LONGEST} printable characters into it, in one line")))
    }

    /// Takes the text over. `None` if it can't be a secret.
    pub(crate) fn new(text: String) -> Option<Self> {
        let text = Zeroizing::new(text);
        let fits = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then_some(Self(text))
    }

    /// By what it is known again, which says nothing of it: tokens have more random bits than could be tried.
    pub(crate) fn digest(&self) -> Digest {
        digest(&SHA256, self.0.as_bytes())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Secret, RootError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Secret::read(file.path())
    }

    #[test]
    fn a_line_end_is_no_part_of_it() {
        for bytes in [b"s.abc".as_slice(), b"s.abc\n", b"s.abc\r\n"] {
            assert_eq!(read(bytes).unwrap().expose(), "s.abc");
        }
        assert_eq!(read(&[b'a'; LONGEST]).unwrap().expose().len(), LONGEST);
    }

    #[test]
    fn what_no_header_can_carry_is_refused_without_showing_it() {
        for bytes in [b"".as_slice(), b"\n", b"s.abc\n\n", b"s.abc x", b"s.abc\xff", &[b'a'; LONGEST + 1]] {
            let error = read(bytes).unwrap_err();
            assert!(matches!(error, RootError::Credential { .. }));
            assert!(!error.to_string().contains("s.abc"));
        }
        assert!(matches!(Secret::read(Path::new("/nowhere")), Err(RootError::Credential { .. })));
        assert_eq!(format!("{:?}", read(b"s.abc").unwrap()), "Secret(..)");
    }
}
