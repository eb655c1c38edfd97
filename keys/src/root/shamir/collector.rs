//! Collects shares, one after the other, until there are enough.

use std::fmt;
use std::sync::Arc;

use super::{ShamirRoot, Share, ShareSet, combine};
use crate::root::{Envelope, RootError, RootKind};
use crate::stack;

/// Collects the shares that open one envelope. What it holds is wiped when it is cleared or dropped.
pub struct ShamirCollector {
    set: ShareSet,
    shares: Vec<Share>,
}

/// How far the collecting has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Shares that were brought.
    pub have: u8,
    /// Shares that are needed.
    pub need: u8,
}

impl Progress {
    /// Whether there are enough.
    pub fn is_enough(self) -> bool {
        self.have >= self.need
    }
}

impl ShamirCollector {
    /// For the shares that open this envelope.
    ///
    /// # Errors
    /// As [`ShareSet::of`].
    pub fn new(envelope: &Envelope) -> Result<Self, RootError> {
        let set = ShareSet::of(envelope)?;
        // Room for all of them: growing would leave shares behind in the old buffer.
        let shares = Vec::with_capacity(usize::from(ShareSet::MOST));
        Ok(Self { set, shares })
    }

    /// Takes a share, as its holder keeps it.
    ///
    /// # Errors
    /// [`RootError::Credential`] if it is not a share at all, was changed, is of another vault or set, or was given
    /// already; it says which. What was collected before stays.
    pub fn add(&mut self, text: &str) -> Result<Progress, RootError> {
        let share = Share::parse(text).map_err(|misread| refused(misread.to_string()))?;
        if share.set != self.set.id {
            return Err(refused(format!(
                "the share is of another set, {}, and this keystore is sealed with set {}: it belongs to another vault, \
                 or was made before the root key was moved",
                data_encoding::HEXLOWER.encode(&share.set),
                self.set.id()
            )));
        }
        let known = usize::from(share.number).checked_sub(1).and_then(|place| self.set.fingerprints.get(place));
        if known != Some(&share.fingerprint()) {
            return Err(refused(format!(
                "the share was changed: it says that it is share {} of this set, and is not the one that was made; bring \
                 the holder's own copy",
                share.number
            )));
        }
        if self.shares.iter().any(|other| other.number == share.number) {
            return Err(refused(format!("share {} was given already: bring another one", share.number)));
        }
        self.shares.push(share);
        Ok(self.progress())
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        let have = u8::try_from(self.shares.len()).unwrap_or(ShareSet::MOST);
        Progress { have, need: self.set.threshold }
    }

    /// Forgets what was collected.
    pub fn clear(&mut self) {
        self.shares.clear();
    }

    /// The root key, once there are enough shares.
    ///
    /// # Errors
    /// [`RootError::Credential`] if there are too few, with numbers.
    pub fn root(&self) -> Result<Arc<ShamirRoot>, RootError> {
        let Progress { have, need } = self.progress();
        let enough = self.shares.get(..usize::from(need)).ok_or_else(|| {
            refused(format!("there are too few shares: {have} of the {need} that are needed; {} more", need - have))
        })?;
        stack::wiped_deep(|| Ok(Arc::new(ShamirRoot { root: combine(enough)?, set: self.set.clone() })))
    }
}

fn refused(why: String) -> RootError {
    RootKind::Shamir.credential(why)
}

impl fmt::Debug for ShamirCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShamirCollector").field("progress", &self.progress()).finish_non_exhaustive()
    }
}
