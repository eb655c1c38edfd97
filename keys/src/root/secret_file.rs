//! The file that a provider's credential is in.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

/// Reads a file that holds one secret and nothing else; a line end after it does not count. Of a longer one than `longest`
/// comes at least a byte too many, so that whoever knows what a secret looks like refuses it.
///
/// # Errors
/// What the file system says.
pub fn secret_file(path: &Path, longest: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all that is read, so that no smaller piece is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(longest.saturating_add(64)));
    // A line end, and one byte more.
    File::open(path)?.take(longest.saturating_add(3) as u64).read_to_end(&mut bytes)?;
    let secret = bytes.strip_suffix(b"\n").map_or(&bytes[..], |line| line.strip_suffix(b"\r").unwrap_or(line)).len();
    bytes.truncate(secret);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        secret_file(file.path(), 4).unwrap().to_vec()
    }

    #[test]
    fn one_line_end_is_no_part_of_a_secret() {
        for bytes in [b"abcd".as_slice(), b"abcd\n", b"abcd\r\n"] {
            assert_eq!(read(bytes), b"abcd");
        }
        assert_eq!(read(b"ab\n\n"), b"ab\n");
        assert_eq!(read(b"a\r"), b"a\r");
        assert_eq!(read(b"\n"), b"");
    }

    #[test]
    fn a_longer_one_is_read_so_far_that_it_is_told() {
        for bytes in [b"abcde".as_slice(), b"abcde\n", b"abcde\r\n", b"abcdefghijkl", b"abcd\r\nx"] {
            assert!(read(bytes).len() > 4);
        }
        assert!(secret_file(Path::new("/nowhere"), 4).is_err());
    }
}
