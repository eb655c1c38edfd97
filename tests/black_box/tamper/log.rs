//! Attacks on the ledger as it lies in the store, on the head file, and on whole folders.

use std::fs;
use std::path::Path;

use strongroom_ledger::leaf::{self, LeafHeader, prepare, sample::header};
use strongroom_ledger::{Frontier, Timestamp};
use strongroom_storage::rows::LaneHead;
use strongroom_storage::{Family, Mutation, keys as place};

use super::Place;
use super::stage::{Stage, TENANT, write};
use crate::files;

fn at_leaf(index: u64) -> Place {
    Some(("leaf", index.to_string()))
}

fn put_leaf(index: u64, line: Vec<u8>) -> Mutation {
    Mutation::Put(Family::Leaves, place::leaf(TENANT, index), line)
}

/// The head of the log, which takes no key, over these leaves.
fn put_head(stage: &Stage, leaves: &[Vec<u8>]) -> Mutation {
    let key = place::lane(TENANT, 0);
    let head = LaneHead::decode(&stage.now.get(Family::Meta, &key)).unwrap();
    let mut frontier = Frontier::new();
    leaves.iter().for_each(|line| frontier.push(line));
    let time = leaf::parse(leaves.last().unwrap()).unwrap().time.0;
    let (size, frontier) = (frontier.size(), frontier.to_bytes());
    Mutation::Put(Family::Meta, key, LaneHead { size, frontier, time, ..head }.encode())
}

pub fn leaf_changed(stage: &Stage, vault: &Path) -> Place {
    write(vault, vec![put_leaf(1, [&stage.now.leaves()[1][..], b" "].concat())]);
    at_leaf(1)
}

/// One leaf as nobody but its hash tells from a true one.
fn in_good_form(stage: &Stage) -> Mutation {
    let line = String::from_utf8(stage.now.leaves().swap_remove(1)).unwrap();
    let other = line.replacen("\"client\":\"", "\"client\":\"9", 1);
    assert_ne!(other, line);
    leaf::parse(other.as_bytes()).unwrap();
    put_leaf(1, other.into_bytes())
}

fn other_tile(stage: &Stage) -> Mutation {
    let key = place::tile(TENANT, 0, 0);
    let mut tile = stage.now.get(Family::Tiles, &key);
    tile[0] ^= 1;
    Mutation::Put(Family::Tiles, key, tile)
}

pub fn leaf_changed_in_good_form(stage: &Stage, vault: &Path) -> Place {
    write(vault, vec![in_good_form(stage)]);
    at_leaf(1)
}

pub fn leaf_changed_and_the_tile_over_it(stage: &Stage, vault: &Path) -> Place {
    write(vault, vec![in_good_form(stage), other_tile(stage)]);
    None
}

pub fn leaf_removed(_: &Stage, vault: &Path) -> Place {
    write(vault, vec![Mutation::Delete(Family::Leaves, place::leaf(TENANT, 2))]);
    at_leaf(2)
}

pub fn leaves_swapped(stage: &Stage, vault: &Path) -> Place {
    let leaves = stage.now.leaves();
    write(vault, vec![put_leaf(1, leaves[2].clone()), put_leaf(2, leaves[1].clone())]);
    at_leaf(1)
}

pub fn last_leaf_dropped_with_the_head_adjusted(stage: &Stage, vault: &Path) -> Place {
    let mut leaves = stage.now.leaves();
    leaves.pop();
    let last = Mutation::Delete(Family::Leaves, place::leaf(TENANT, leaves.len() as u64));
    write(vault, vec![last, put_head(stage, &leaves)]);
    None
}

pub fn leaf_appended_with_the_head_adjusted(stage: &Stage, vault: &Path) -> Place {
    let mut leaves = stage.now.leaves();
    let index = leaves.len() as u64;
    let time = leaf::parse(leaves.last().unwrap()).unwrap().time;
    let header = LeafHeader {
        request: &[9; 16],
        principal: "officer/alice",
        action: "detokenize",
        policy: 1,
        schema: 1,
        client: "127.0.0.1:5",
        ..header()
    };
    let line = prepare(&header, std::iter::empty()).remove(0).finish(index, Timestamp(time.0));
    leaves.push(line.clone());
    write(vault, vec![put_leaf(index, line), put_head(stage, &leaves)]);
    at_leaf(index)
}

pub fn tile_changed(stage: &Stage, vault: &Path) -> Place {
    write(vault, vec![other_tile(stage)]);
    None
}

fn put_folder(from: &Path, vault: &Path, name: &str) {
    files::put(&from.join(name), &vault.join(name));
}

fn put_head_file(from: &Path, vault: &Path) {
    fs::copy(from.join("head"), vault.join("head")).unwrap();
}

pub fn store_put_back(stage: &Stage, vault: &Path) -> Place {
    put_folder(&stage.older, vault, "data");
    None
}

pub fn store_and_keystore_put_back(stage: &Stage, vault: &Path) -> Place {
    put_folder(&stage.older, vault, "data");
    put_folder(&stage.older, vault, "keystore");
    None
}

pub fn keystore_put_back(stage: &Stage, vault: &Path) -> Place {
    put_folder(&stage.older, vault, "keystore");
    None
}

pub fn head_file_put_back(stage: &Stage, vault: &Path) -> Place {
    put_head_file(&stage.older, vault);
    at_leaf(stage.before.leaves().len() as u64)
}

pub fn all_put_back(stage: &Stage, vault: &Path) -> Place {
    files::put(&stage.older, vault);
    None
}

pub fn store_of_a_fork(stage: &Stage, vault: &Path) -> Place {
    put_folder(&stage.fork, vault, "data");
    None
}

pub fn all_of_a_fork(stage: &Stage, vault: &Path) -> Place {
    files::put(&stage.fork, vault);
    None
}
