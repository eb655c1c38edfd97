//! What can go wrong with keys. No message holds a key, a passphrase or a value.

use strongroom_ids::{KeyVersion, TenantId};
use thiserror::Error;

use crate::name::{KeyName, KeyState};
use crate::own_key::OwnKeyKind;

/// Why a key operation failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Authentication failed. Whether the bytes, the place or the key was wrong is deliberately not said.
    #[error(
        "a sealed blob does not open in this place: restore the stored bytes, or ask for the place they were sealed for"
    )]
    CannotOpen,
    /// What was to be sealed is longer than AES-GCM allows.
    #[error("a value is too long to seal: AES-GCM takes at most 2^36 - 32 bytes at once")]
    TooLong,
    /// An empty passphrase was given.
    #[error("the passphrase is empty: give one that is hard to guess")]
    EmptyPassphrase,
    /// The keystore is not what was written under the key in its envelope.
    #[error(
        "the keystore's authentication fails under the key that its own envelope holds: it was put together from two, or \
         changed on purpose; restore it from a copy"
    )]
    NotAuthentic,
    /// The keystore is sealed by a kind of provider that this build does not know.
    #[error(
        "the keystore is sealed by a root key provider of kind {0}, which this build does not know: use the release that \
         wrote it, or a newer one"
    )]
    UnknownProvider(u8),
    /// A root key was not split, or not combined.
    #[error("{0}; nothing was sealed or opened with them")]
    Sharing(&'static str),
    /// The cost of the passphrase's key derivation is out of bounds.
    #[error("the Argon2id cost is out of bounds: {0}")]
    CostOutOfBounds(&'static str),
    /// There is no such key.
    #[error("there is no key {name} for tenant {}: create the keys of this tenant first", .name.tenant())]
    Missing {
        /// The key that was asked for.
        name: KeyName,
    },
    /// There is no such version of a key.
    #[error("key {name} of tenant {} has no version {version}: use one that `strongroom keys list` shows", .name.tenant())]
    MissingVersion {
        /// The key that was asked for.
        name: KeyName,
        /// The version that was asked for.
        version: KeyVersion,
    },
    /// The key's state forbids the operation.
    #[error(
        "version {version} of key {name} of tenant {} is {state}, which forbids this: change its state, or rotate the key",
        .name.tenant()
    )]
    NotAllowed {
        /// The key that was asked for.
        name: KeyName,
        /// The version that was asked for, or the newest.
        version: KeyVersion,
        /// Its state.
        state: KeyState,
    },
    /// The tenant has a key of its own, and that is not there: its keys can't be unwrapped.
    #[error(
        "the keys of tenant {tenant} are locked, since its own key ({kind}) is not there: {}",
        .kind.way_back()
    )]
    OwnKeyAway {
        /// Whose keys they are.
        tenant: TenantId,
        /// Where its own key lives.
        kind: OwnKeyKind,
    },
    /// Another key was brought than the tenant's own.
    #[error(
        "the key that was brought for tenant {tenant} has the fingerprint {brought}, and its own key has {wanted}: bring \
         that one; nothing was changed"
    )]
    OtherOwnKey {
        /// Whose own key is wanted.
        tenant: TenantId,
        /// The fingerprint of its own key, in hexadecimal.
        wanted: String,
        /// The fingerprint of the one that was brought.
        brought: String,
    },
    /// A tenant's own key was not taken, brought or moved.
    #[error("the own key of tenant {tenant}: {why}; nothing was changed")]
    OwnKey {
        /// Whose own key it is about.
        tenant: TenantId,
        /// What is wrong, and what would be right.
        why: &'static str,
    },
    /// The newest version of a key protects what is new, so it can only be enabled or disabled.
    #[error(
        "version {version} of key {name} is the newest, which protects what is new: it cannot become {state} before a \
         rotation makes another"
    )]
    Newest {
        /// The key.
        name: KeyName,
        /// Its newest version.
        version: KeyVersion,
        /// What it was to become.
        state: KeyState,
    },
    /// No way leads from one state to the other.
    #[error(
        "version {version} of key {name} is {is}, and from there it cannot become {state}; only the newest version can be \
         enabled, and nothing comes back from compromised or destroyed"
    )]
    NoWay {
        /// The key.
        name: KeyName,
        /// The version.
        version: KeyVersion,
        /// Its state.
        is: KeyState,
        /// What it was to become.
        state: KeyState,
    },
    /// A DEK was to be wrapped by the KEK of another tenant or keyring.
    #[error("a DEK was to be wrapped by the KEK of another tenant or keyring: use the KEK of its own")]
    WrongKek,
    /// A bound is reached: of the keystore, or of the machine's memory.
    #[error("a bound is reached: {0}")]
    Exhausted(&'static str),
    /// A file is not what was written.
    #[error("the file `{file}` is damaged ({what}): restore it from a copy of the keystore")]
    Damaged {
        /// The file's name in its directory.
        file: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A file is intact, but of a format or suite that this build does not know.
    #[error(
        "the file `{file}` has format {format} and suite {suite}, which this build does not know: \
         use the release that wrote it, or a newer one"
    )]
    Unsupported {
        /// The file's name in its directory.
        file: &'static str,
        /// Its format byte.
        format: u8,
        /// Its suite byte.
        suite: u8,
    },
    /// The file that was to be created is there already.
    #[error("the file `{file}` is there already and is never overwritten: open it, or choose another directory")]
    Exists {
        /// The file's name in its directory.
        file: &'static str,
    },
    /// There is no such file.
    #[error(
        "there is no file `{file}` in {dir}: put the newest copy of the keystore back; only a new vault gets one from \
         `strongroom init`"
    )]
    NoFile {
        /// The file's name in its directory.
        file: &'static str,
        /// The directory.
        dir: String,
    },
    /// The keystore on disk is no longer the one that was opened.
    #[error(
        "the keystore on disk is not the one this process opened: stop whatever else replaces it, and open it again"
    )]
    Changed,
    /// The system refused a file operation.
    #[error("{doing} failed: {what}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The path, and what the system said.
        what: String,
    },
    /// The system gives no random bytes.
    #[error("the system's random generator failed: nothing can be sealed safely until it works again")]
    Random,
}
