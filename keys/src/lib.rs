//! Key management: the only code that sees a raw key.
//!
//! ```text
//! root key -> keystore key -> KEK (tenant, keyring) -> DEK (subject or value, keyring) -> sealed field value
//!   root        keystore             kek                         dek
//! ```
//!
//! In come places (which tenant, row, subject, key version a blob belongs to) and blobs; out go blobs and
//! [`Plaintext`]. The crate never fetches a blob: the caller brings it. Its only file is the keystore's. What must hold:
//!
//! - A blob opens in the place that it was sealed for, and in no other: all that names the place is authenticated.
//! - No raw key leaves the crate, and no type that holds one shows it in `Debug`.
//! - No bytes from disk make it panic.
//!
//! `FORMAT.md` specifies every byte, with a vector for each blob.
//!
//! Keys are wiped when dropped, with exceptions that others impose: the key schedules inside `ring`'s HMAC, HKDF and
//! Ed25519 types are not, nor the polynomials by which `vsss-rs` splits a root key. Those live on the heap or for one
//! call; an allocator that wipes what it frees covers the heap.

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
mod own_key;
mod place;
mod random;
pub mod root;
mod seal;
mod secret;
mod stack;
mod token_key;
mod totp;

pub use cache::DekCache;
pub use dek::Dek;
pub use error::KeyError;
pub use index_key::{IndexKey, IndexKeys};
pub use kek::{KEK_SEAL_LIMIT, Kek};
pub use keystore::{KeyInfo, Keystore, KeystoreCopy, KeystoreHeader, LedgerPublic, RootProbe};
pub use ledger_key::{LedgerKey, LedgerKeys};
pub use name::{IndexName, KeyName, KeyState, Operation, UnknownState};
pub use own_key::{
    BroughtKey, ImportPublicKey, NewImportKey, OwnKey, OwnKeyInfo, OwnKeyKind, OwnKeyProbe, ProvidedKey,
    UnwrappedTenantKey,
};
pub use place::{DekOwner, DekPlace, Sealed, ValuePlace};
pub use random::random;
pub use root::{ArgonCost, Envelope, KeystoreKey, PassphraseRoot, RootError, RootKind, RootProvider};
pub use secret::{Passphrase, Plaintext};
pub use token_key::TokenKey;
pub use totp::{TotpPlace, TotpSecret, recovery_code};
