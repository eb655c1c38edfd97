//! Storage: the Store trait, column families and row codecs.
//!
//! What comes in are rows and keys as types ([`rows`], [`keys`]); what goes out are bytes in one of eleven families,
//! specified in FORMAT.md. What must hold: no tenant's keys meet another's, a row has one form only, and bytes that
//! are not what was written are an error and never a panic.
//!
//! For tests there are a store in memory ([`memory`]), one that injects faults into any other ([`faulty`]), and one
//! suite that runs over all of them ([`suite`]).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod codec;
pub mod faulty;
#[cfg(test)]
mod format;
pub mod keys;
#[doc(hidden)]
pub mod memory;
pub mod rows;
mod store;
#[doc(hidden)]
pub mod suite;

pub use store::{Entry, Family, KeyRange, Mutation, Range, Snapshot, Store, StoreError};
