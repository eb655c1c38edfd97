//! Black-box tests: the real binary, real mutual TLS, a folder of its own for each.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod approvals;
mod bad_input;
mod bench;
mod certificates;
mod commands;
mod crash;
mod damage;
mod decisions;
mod deterministic;
mod export;
mod freezes;
mod harness;
mod house;
mod idempotency;
mod identity;
mod keys;
mod ledger;
mod limits;
mod lone_administrator;
mod memory;
mod needles;
mod officers;
mod outside;
mod own_key;
mod policies;
mod proofs;
mod python;
mod quotas;
mod races;
mod raw;
mod root_key;
mod round_trip;
mod rules;
mod seal;
mod second_factor;
mod secrecy;
mod shell;
mod startup;
mod tail;
mod tenants;
mod transfer;
mod verify;
mod walls;
mod witness;
