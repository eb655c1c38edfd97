//! The committer: guards, group commit and leaf indexes.
