//! Leaves of made-up requests of one value, by the ledger's own preparation: what a vault's log is full of.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use ring::signature::{Ed25519KeyPair, KeyPair};
use strongroom_ids::{RowId, RowVersion, SubjectHandle, TenantId, VaultId};
use strongroom_ledger::leaf::{LeafHeader, LeafItem, PreparedLeaf, prepare};
use strongroom_ledger::{Frontier, Timestamp, checkpoint};

use super::work::unfit;
use crate::cli::output::CliError;

/// The vault and the tenant that a made-up log is of.
pub const VAULT: VaultId = VaultId([0x5a; 16]);
const TENANT: TenantId = TenantId([0xa5; 16]);
/// When the first leaf was committed, in microseconds since 1970, and how far apart they are.
const BEGUN: u64 = 1_795_000_000_000_000;
const APART: u64 = 100;
/// One request in so many is refused.
const REFUSED: u64 = 16;

/// Made-up requests, half of them values in and half of them values out. Numbers and hashes in them are as random to a
/// compressor as a vault's.
pub struct Requests {
    keys: Vec<(String, u32)>,
}

impl Requests {
    /// Of a vault with two keyrings.
    pub fn new() -> Self {
        Self { keys: ["token", "kek/0", "kek/1", "kek/2"].map(|name| (name.to_owned(), 1)).into() }
    }

    /// What the vault appends of a request: with one item, one leaf.
    pub fn leaves(&self, number: u64) -> Vec<PreparedLeaf> {
        let refused = mixed(number).is_multiple_of(REFUSED);
        let reads = number % 2 == 1;
        let header = LeafHeader {
            request: &random(number),
            principal: "app/loan-core",
            actor: None,
            action: if reads { "detokenize" } else { "tokenize" },
            purpose: reads.then_some("loan_servicing"),
            decision: if refused { "deny" } else { "allow" },
            reason: refused.then_some("DENIED"),
            policy: 1,
            schema: 2,
            keys: &self.keys,
            client: "10.20.30.40",
            detail: &[],
        };
        let hash = random(!number);
        let item = LeafItem {
            field: Some("measured.id_card"),
            row: (!refused).then_some(RowId((1 << 48) + number)),
            view: reads.then_some("plain"),
            outcome: if refused { "DENIED" } else { "ok" },
            subject: (reads && !refused).then_some(SubjectHandle((1 << 48) + number / 6)),
            version: (!reads && !refused).then_some(RowVersion(1)),
            hash: (!reads && !refused).then_some(&hash),
            sent: None,
        };
        prepare(&header, std::iter::once(item))
    }
}

/// An export of a log that never was in a vault, and what is signed of it.
pub struct Log {
    /// Its leaves, one a line.
    pub lines: PathBuf,
    /// How many.
    pub leaves: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// The signed head.
    pub checkpoint: String,
    /// The key that signed, as verifiers know it.
    pub key: String,
}

impl Log {
    /// Makes one of so many requests in a file.
    pub fn make(lines: &Path, leaves: u64) -> Result<Self, CliError> {
        let file = |error| CliError::file(lines, error);
        let mut out = BufWriter::with_capacity(1 << 20, File::create(lines).map_err(file)?);
        let (requests, mut tree, mut bytes) = (Requests::new(), Frontier::new(), 0);
        for number in 0..leaves {
            for leaf in requests.leaves(number) {
                let mut line = leaf.finish(tree.size(), Timestamp(BEGUN + number * APART));
                tree.push(&line);
                line.push(b'\n');
                out.write_all(&line).map_err(file)?;
                bytes += line.len() as u64;
            }
        }
        out.flush().map_err(file)?;
        let (origin, signer) = (checkpoint::origin(VAULT, TENANT, 0, 1), Signer::new()?);
        let public = signer.public();
        let checkpoint =
            checkpoint::sign(&origin, tree.size(), &tree.root(), &public, |text| signer.sign(text)).map_err(unfit)?;
        let key = checkpoint::vkey(&origin, &public);
        Ok(Self { lines: lines.to_owned(), leaves: tree.size(), bytes, checkpoint, key })
    }
}

/// A key of a made-up log. It protects nothing.
pub struct Signer(Ed25519KeyPair);

impl Signer {
    /// The same every time.
    pub fn new() -> Result<Self, CliError> {
        let unfit = |_| CliError::unfit("a key can't be made of a seed");
        Ed25519KeyPair::from_seed_unchecked(&[0x42; 32]).map(Self).map_err(unfit)
    }

    /// Its public half.
    pub fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.0.public_key().as_ref());
        public
    }

    /// A signature.
    pub fn sign(&self, text: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.sign(text).as_ref());
        signature
    }
}

/// Bytes that look random, and are the same for the same number.
pub fn random<const N: usize>(number: u64) -> [u8; N] {
    let mut bytes = [0; N];
    for (place, piece) in (0_u64..).zip(bytes.chunks_mut(8)) {
        let word = mixed(number.wrapping_mul(8).wrapping_add(place)).to_be_bytes();
        piece.copy_from_slice(&word[..piece.len()]);
    }
    bytes
}

/// The finalizer of SplitMix64.
pub fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use strongroom_ledger::verify::verify_export;

    use super::*;

    #[test]
    fn a_made_up_log_holds_and_is_of_both_actions_and_both_decisions() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::make(&folder.path().join("lines"), 1_000).unwrap();
        let lines = std::fs::read(&log.lines).unwrap();
        assert_eq!((log.leaves, log.bytes), (1_000, lines.len() as u64));
        let report = verify_export(&lines[..], &log.checkpoint, std::slice::from_ref(&log.key)).unwrap();
        assert_eq!(report.leaves, 1_000);
        assert!(log.checkpoint.starts_with(&report.origin));
        for action in ["tokenize", "detokenize"] {
            let decisions = &report.counts[action];
            assert_eq!(decisions["allow"] + decisions["deny"], 500);
            assert!((10..100).contains(&decisions["deny"]), "{decisions:?}");
        }
    }

    #[test]
    fn no_two_requests_have_the_same_number() {
        let seen: std::collections::HashSet<[u8; 16]> = (0..10_000).map(random).collect();
        assert_eq!(seen.len(), 10_000);
    }
}
