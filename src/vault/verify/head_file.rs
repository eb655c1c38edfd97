//! The head file as verification takes it: which bytes, from when, and what they sign.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use strongroom_ids::{TenantNo, VaultId};
use strongroom_ledger::journal::JournalEnd;
use strongroom_ledger::{Frontier, head};

use super::finding::Fault;
use super::ledger::Signed;

/// A head file, as it was when it was read. Of a vault that runs it is read before the store is looked at: the vault writes it
/// after what it signs, so the store is never behind it.
#[derive(Debug)]
pub struct HeadFile {
    path: PathBuf,
    read: io::Result<Vec<u8>>,
    /// Whether there may be none.
    optional: bool,
    /// Whether it was another one later.
    replaced: bool,
}

/// What a head file says.
pub(super) struct HeadSigned {
    /// Whether the vault was stopped in order.
    pub closed: bool,
    /// What it signs of each log.
    pub lanes: Vec<(TenantNo, Signed)>,
}

impl HeadFile {
    /// Reads it. What is wrong with it is a finding.
    pub fn read(path: &Path) -> Self {
        Self { path: path.to_owned(), read: fs::read(path), optional: false, replaced: false }
    }

    /// Reads it if it is there: a copy of the store alone may be without one.
    pub fn read_if_there(path: &Path) -> Self {
        Self { optional: true, ..Self::read(path) }
    }

    /// Looks at the file once more, after the store was opened. A vault that starts says in it that it runs before it commits
    /// anything, so only a file that is still the same tells that the store is as the stopped vault left it.
    pub fn look_again(&mut self) {
        let now = fs::read(&self.path).ok();
        self.replaced = now.as_deref() != self.read.as_deref().ok();
    }

    /// Whether there is none, and none has to be.
    pub(super) fn is_left_out(&self) -> bool {
        self.optional && self.is_missing()
    }

    fn is_missing(&self) -> bool {
        self.read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// How far it says that the journal had come, and in which incarnation the vault is; none if it can't be used, which is a
    /// finding of its own.
    pub(super) fn journal(&self, vault: VaultId, publics: &[[u8; 32]]) -> (Option<JournalEnd>, Option<u16>) {
        let head = self.read.as_ref().ok().and_then(|bytes| head::open_by_any(bytes, vault, publics).ok());
        (head.as_ref().and_then(|head| head.journal), head.map(|head| head.incarnation))
    }

    /// What it says, if one of the keys that sign it has signed it; none if it is left out.
    pub(super) fn signed(&self, vault: VaultId, publics: &[[u8; 32]]) -> Result<Option<HeadSigned>, (Fault, String)> {
        let path = self.path.display();
        let bytes = match &self.read {
            Ok(bytes) => bytes,
            Err(_) if self.is_left_out() => return Ok(None),
            Err(_) if self.is_missing() => {
                let what = format!("the head file {path} is missing: nothing says how far the logs had come");
                return Err((Fault::Missing, what));
            }
            Err(error) => return Err((Fault::Unreadable, format!("the head file {path}: {error}"))),
        };
        let head = head::open_by_any(bytes, vault, publics)
            .map_err(|error| (Fault::Changed, format!("the head file {path} is not this vault's: {error}")))?;
        let signed = head.lanes.into_iter().map(|lane| {
            let frontier = Frontier::from_bytes(&lane.frontier).ok();
            (lane.tenant, Signed { size: lane.size, root: lane.root, frontier, whose: "the head file".to_owned() })
        });
        Ok(Some(HeadSigned { closed: head.closed && !self.replaced, lanes: signed.collect() }))
    }
}
