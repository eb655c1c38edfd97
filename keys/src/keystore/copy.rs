//! Copies of the keystore, to be kept elsewhere.

use std::sync::PoisonError;

use super::file::{FILE, LIMIT};
use super::{Keystore, checksum};
use crate::disk;
use crate::error::KeyError;

/// The keystore as it was at one moment. Everything in it is wrapped, and worth nothing without the root key.
///
/// For a tenant with a key of its own it is worth nothing without that either, if a provider keeps the key. But an imported
/// key that was there at that moment is in the copy, sealed under the keystore key: taking it away later takes it out of no
/// copy. Who means a removal for good must have the copies made before it destroyed.
pub struct KeystoreCopy {
    /// The number that the keystore had.
    pub number: u64,
    /// The file's bytes.
    pub bytes: Vec<u8>,
}

impl Keystore {
    /// The file as it is. Put back as the keystore's file `keys`, it is the keystore again.
    ///
    /// # Errors
    /// [`KeyError::Changed`] if another process replaced the file since it was opened; [`KeyError::Io`].
    pub fn copy(&self) -> Result<KeystoreCopy, KeyError> {
        // Nobody replaces the file meanwhile.
        let mut unsettled = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.settle(&mut unsettled)?;
        let bytes = disk::read(&self.dir, FILE, LIMIT as u64)?;
        let table = self.table.load();
        if checksum(&bytes) != table.checksum {
            return Err(KeyError::Changed);
        }
        Ok(KeystoreCopy { number: table.number, bytes })
    }
}
