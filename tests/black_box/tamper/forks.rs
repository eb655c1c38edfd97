//! A vault that was put back as a whole, head file and keystore with it: it starts, and who saw more of its ledger names it.

use std::fs;

use crate::files::{copy, put};
use crate::harness::{TestVault, grow};
use crate::patience::until;
use crate::witness::{PATIENCE, Witness, said};

#[tokio::test]
async fn a_fork_and_a_ledger_that_was_put_back_are_refused() {
    let mut vault = TestVault::start();
    grow(&vault, "Ann", 3).await;
    vault.stop();
    let older = vault.scratch().join("older");
    copy(&vault.dir(), &older);
    vault.up();
    grow(&vault, "Bob", 20).await;
    let out = vault.scratch().join("cosigned");
    let (state, log_key) = {
        let witness = Witness::new(&vault, "one");
        assert!(witness.first(&out).status.success());
        (witness.state, witness.log_key)
    };
    let kept = fs::read(&out).unwrap();

    // All of it as it was before: shorter, and then another history of the same log.
    vault.stop();
    put(&older, &vault.dir());
    vault.up();
    for (leaves, what) in [(1, "it had"), (30, "only grew")] {
        grow(&vault, "Eve", leaves).await;
        let witness = Witness { vault: &vault, state: state.clone(), log_key: log_key.clone() };
        // A checkpoint is a second old at the most.
        until(PATIENCE, what, async || {
            let output = witness.cosign(&out);
            assert_eq!(output.status.code(), Some(1));
            let said = said(&output);
            assert!(said.contains("refused"), "{said}");
            assert_eq!(fs::read(&out).unwrap(), kept, "nothing was cosigned");
            if said.contains(what) { Ok(()) } else { Err(said) }
        })
        .await;
    }

    // Another vault's log, and a key that is not the log's.
    let other = TestVault::start();
    let witness = Witness { vault: &other, state: state.clone(), log_key: log_key.clone() };
    assert_eq!(witness.of(&other, &out, &["--first"]).status.code(), Some(1));
    // A memory that somebody changed is no memory.
    for entry in fs::read_dir(&state).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|ending| ending == "checkpoint") {
            fs::write(&file, "changed").unwrap();
        }
    }
    let witness = Witness { vault: &vault, state, log_key };
    let output = witness.cosign(&out);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("is not what this witness wrote"), "{}", said(&output));
}
