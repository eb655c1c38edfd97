//! Black-box tests: the real binary, real mutual TLS, a folder of its own for each.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod approvals;
mod bad_input;
mod bench;
mod commands;
mod crash;
mod damage;
mod deterministic;
mod freezes;
mod harness;
mod house;
mod idempotency;
mod identity;
mod keys;
mod ledger;
mod limits;
mod memory;
mod needles;
mod outside;
mod own_key;
mod python;
mod races;
mod raw;
mod root_key;
mod round_trip;
mod rules;
mod seal;
mod secrecy;
mod shell;
mod startup;
mod tenants;
mod transfer;
mod verify;
mod walls;
