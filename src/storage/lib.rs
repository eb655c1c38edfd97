//! Storage: the Store trait, column families and row codecs.

mod store;

pub use store::{Entry, Family, Mutation, Range, Snapshot, Store, StoreError};
