//! Collections, field types, validation, masks and token shapes. Pure: no I/O, no clock, no randomness of its own.
//!
//! - A [`SchemaFile`] is what an officer writes: TOML, checked as it is read.
//! - [`Schema::evolve`] turns it into the next version in force. It assigns keyrings, keeps retired numbers, and
//!   refuses what would strand stored values.
//! - A [`Field`] validates a value, gives its normal form for equality, shapes its token and applies its [`View`]s.
//! - [`token`] is the text form of tokens.
//!
//! What must hold: no message of this crate repeats a value; no input makes it panic; every check takes time linear
//! in the length of its input.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod declaration;
mod error;
mod field;
mod file;
mod mask;
mod rules;
mod schema;
mod shape;
mod stored;
pub mod token;
mod types;

pub use declaration::{Basis, Class, Retention, Scope};
pub use error::{SchemaError, Violation};
pub use field::Field;
pub use file::{Purpose, SchemaFile};
pub use mask::View;
pub use schema::{Named, Schema};
pub use shape::TokenFormat;
pub use types::FieldType;

/// The most bytes that any value may have.
pub const MAX_VALUE: usize = 64 << 10;
