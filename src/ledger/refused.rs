//! What a leaf says was refused: a request as a whole by its reason, items by their outcomes, and those that are only counted.
//!
//! A request is allowed when any of its items was, so its decision alone does not say that others were refused.

use serde::Deserialize;

use crate::filter::Text;
use crate::leaf::ParsedLeaf;

/// What `detail` calls how many items of a request were refused that are not listed, by their outcomes: `DENIED=3 NOT_FOUND=1`.
pub const REFUSED: &str = "refused";
/// What `detail` calls how many refusals a leaf stands for that have no leaves of their own.
pub const COUNTED: &str = "counted";

/// Whether an outcome is a reason: the item was not done as asked.
pub fn is_reason(outcome: &str) -> bool {
    outcome.starts_with(char::is_uppercase)
}

/// The reasons of what was refused and is not listed, and how often each, as [`REFUSED`] has them.
pub fn unlisted(counts: &str) -> impl Iterator<Item = (&str, u64)> {
    // A number that can't be read is at least one.
    counts.split(' ').filter_map(|one| one.split_once('=')).map(|(reason, count)| (reason, count.parse().unwrap_or(1)))
}

/// How many refusals a leaf stands for, if it only counts them.
pub fn counted(leaf: &ParsedLeaf) -> Option<u64> {
    leaf.says(COUNTED)?.parse().ok()
}

/// What is read of `detail` where it lies.
#[derive(Deserialize)]
pub(crate) struct Told<'l> {
    #[serde(borrow, default)]
    refused: Option<Text<'l>>,
}

impl Told<'_> {
    /// The reasons of items that are not listed.
    pub fn reasons(&self) -> impl Iterator<Item = &str> {
        let counts = self.refused.as_ref().map_or("", |counts| &*counts.0);
        unlisted(counts).map(|(reason, _)| reason)
    }
}
