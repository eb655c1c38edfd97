//! Key management: the only code that sees a raw key.
//!
//! ```text
//! passphrase -> root key -> KEK (tenant, keyring) -> DEK (subject or value, keyring) -> sealed field value
//!  root_key       keystore                    kek                         dek
//! ```
//!
//! In come places (which tenant, row, subject, key version a blob belongs to) and blobs; out go blobs and
//! [`Plaintext`]. The crate never fetches a blob: the caller brings it. Its only files are the keystore's and the root
//! key's own. What must hold:
//!
//! - A blob opens in the place that it was sealed for, and in no other: all that names the place is authenticated.
//! - No raw key leaves the crate, and no type that holds one shows it in `Debug`.
//! - No bytes from disk make it panic.
//!
//! `FORMAT.md` specifies every byte, with a vector for each blob.
//!
//! Keys are wiped when dropped, with two exceptions that `ring` imposes: the key schedules inside its HMAC, HKDF and
//! Ed25519 types are not. Those live on the heap or for one call; an allocator that wipes what it frees covers the heap.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod cache;
mod dek;
mod disk;
mod error;
mod index_key;
mod kek;
mod keystore;
mod ledger_key;
mod name;
mod place;
mod random;
pub mod root;
pub mod root_key;
mod seal;
mod secret;
mod token_key;

pub use cache::DekCache;
pub use dek::Dek;
pub use error::KeyError;
pub use index_key::IndexKey;
pub use kek::{KEK_SEAL_LIMIT, Kek};
pub use keystore::{KeyInfo, Keystore};
pub use ledger_key::LedgerKey;
pub use name::{IndexName, KeyName, KeyState, Operation, UnknownState};
pub use place::{DekOwner, DekPlace, Sealed, ValuePlace};
pub use random::random;
pub use root::{Envelope, KeystoreKey, RootError, RootKind, RootProvider};
pub use root_key::{ArgonCost, RootKey};
pub use secret::{Passphrase, Plaintext};
pub use token_key::TokenKey;
