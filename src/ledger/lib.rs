//! The ledger: leaves, tree, checkpoints and verification.
//!
//! What comes in: what a request was, who asked, and what became of each item. What goes out: lines of JSON (the
//! leaves), a Merkle tree over them as in RFC 6962, and signed statements about the tree. Nothing here reads a
//! clock, a disk or a key: times, bytes and signatures are arguments.
//!
//! ```text
//! LeafHeader, LeafItem -> leaf::prepare -> PreparedLeaf::finish(index, time) -> a line
//! a line -> Frontier::push -> root -> checkpoint::sign, head::sign
//! leaf hashes -> tiles::Edge -> tiles; a Question, tiles -> a proof, proof::verify_inclusion, verify_consistency
//! a leaf of a rotation -> log_keys::KeyLeaf -> Trust: the keys that known keys vouch for
//! a checkpoint -> cosignature::cosign, by a witness; cosignature::witnesses
//! Destroyed -> receipt::sign -> a note, receipt::verify
//! Erased -> erasure::sign -> a note, erasure::verify
//! a cover::Subtree, the hashes in its tile -> Subtree::opened -> the subtrees next below, and leaves in the end
//! a line -> filter::Filter::fits; a line, a Filter -> terms::of_leaf, terms::of_filter -> an index
//! a leaf that restricts -> journal::append -> a journal, journal::Reading
//! leaves that are left out -> cover::Cover -> pieces of a tree
//! Manifest -> manifest::sign -> a note, manifest::verify
//! lines, pieces, a manifest, a checkpoint, a public key -> verify::verify_excerpt -> the same, of some of the leaves
//! lines, a checkpoint, a public key -> verify::verify_export -> what holds, or the place of what does not
//! ```
//!
//! What must hold: the line, byte by byte and without its newline, is the leaf; one leaf has exactly one way of
//! being written; nobody needs the vault to verify. FORMAT.md in this folder specifies every byte.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod approval;
pub mod checkpoint;
pub mod cosignature;
pub mod cover;
mod descent;
pub mod erasure;
mod error;
pub mod filter;
mod frontier;
pub mod head;
pub mod journal;
pub mod leaf;
pub mod log_keys;
pub mod manifest;
mod note;
pub mod proof;
pub mod receipt;
pub mod refused;
mod restricts;
mod rules;
mod statement;
pub mod summary;
pub mod terms;
pub mod tiles;
mod timestamp;
pub mod verify;

pub use error::LedgerError;
pub use frontier::{Frontier, leaf_hash};
pub use restricts::{ACTIONS as RESTRICTING, CLEARING, may_restrict, restricts};
pub use rules::{NewRule, Rule, Rules};
pub use timestamp::Timestamp;
