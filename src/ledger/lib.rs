//! The ledger: leaves, tree, checkpoints and verification.
