//! Witnesses of the logs: whose cosignatures a vault wants of its checkpoints, and the newest checkpoint that enough have given.
//!
//! Witnesses come one by one, and a log grows meanwhile. So a checkpoint that fewer have cosigned than are needed waits for
//! more, in memory, and witnesses are shown it before a newer one. What enough have cosigned is a row, so it outlives a
//! restart. Who brings a cosignature needs no trust: it is verified by the keys that the configuration has.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use strongroom_access::Action;
use strongroom_ids::TenantNo;
use strongroom_ledger::proof::{Question, Tree, verify_consistency};
use strongroom_ledger::{checkpoint, cosignature};
use strongroom_storage::Store;
use strongroom_storage::keys as place;
use tokio::sync::Mutex;

use crate::audit::Checkpoint;
use crate::error::Error;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::source::{Source, SourceKind};
use crate::vault::Vault;

/// Bytes of a checkpoint that is brought: room for a few hundred signatures.
const BYTES: usize = 32 << 10;
/// Checkpoints of one log that wait for more witnesses; what the fewest have cosigned goes first.
const WAITING: usize = 16;

/// The witnesses that a vault is configured with.
#[derive(Clone, Debug)]
pub struct Witnesses {
    keys: Vec<String>,
    needed: usize,
}

impl Witnesses {
    /// These verifier keys (C2SP tlog-cosignature), of which so many are needed.
    pub fn new(keys: Vec<String>, needed: usize) -> Result<Self, String> {
        let vkeys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let there = cosignature::distinct(&vkeys).map_err(|error| error.to_string())?;
        if needed == 0 || needed > there {
            return Err(format!(
                "{needed} witnesses are needed, and there are {there}: need one at the least, and no more"
            ));
        }
        Ok(Self { keys, needed })
    }

    fn vkeys(&self) -> Vec<&str> {
        self.keys.iter().map(String::as_str).collect()
    }

    /// How many of them have cosigned a checkpoint.
    fn of(&self, note: &str) -> Result<usize, Error> {
        cosignature::witnesses(note, &self.vkeys())
            .map_err(|_| Error::invalid("checkpoint", "cosignature", "a cosignature by a known witness does not hold"))
    }
}

/// What was cosigned by fewer than are needed, of each log.
pub(crate) type Waiting = Mutex<HashMap<TenantNo, Vec<Cosigned>>>;

/// A checkpoint with cosignatures.
#[derive(Clone)]
pub(crate) struct Cosigned {
    tree: Tree,
    note: String,
    /// How many witnesses have cosigned it.
    count: usize,
}

/// The row of the newest checkpoint that enough witnesses have cosigned.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    note: String,
}

/// Which checkpoint somebody wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Wanted {
    /// The one of this moment.
    #[default]
    Newest,
    /// The newest that enough witnesses have cosigned.
    Witnessed,
    /// What most witnesses have cosigned of those that wait for more, or the one of this moment.
    Awaited,
    /// What is shown to whoever reads the log by plain HTTPS: where there are witnesses, nothing that too few have cosigned.
    Published,
}

/// Brings a checkpoint that witnesses have cosigned.
pub struct AddCosignature {
    /// The checkpoint with all its signatures.
    pub checkpoint: String,
    /// Which log; empty for the caller's own.
    pub log: String,
}

/// How far a checkpoint has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddedCosignature {
    /// How many leaves it is of.
    pub leaves: u64,
    /// How many witnesses have cosigned it.
    pub witnesses: usize,
    /// How many are needed.
    pub needed: usize,
}

/// The road decides and records; what was brought is looked at afterwards, as with proofs.
struct Adding<'r>(&'r AddCosignature);

impl<S: Store> Attempt<S> for Adding<'_> {
    type Answer = TenantNo;
    const ACTION: Action = Action::AddCosignature;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<TenantNo>, Refused> {
        road.decide_vault()?;
        road.vault.wants_witnesses()?;
        let whose = road.log(&self.0.log)?;
        if whose != road.tenant.number {
            return Err(Error::TenantDestroyed.into());
        }
        if self.0.checkpoint.len() > BYTES {
            return Err(Error::invalid("checkpoint", "too_long", format!("at most {BYTES} bytes")).into());
        }
        let claimed = checkpoint::claimed_size(&self.0.checkpoint).map_err(|_| not_ours())?;
        let mut prepared = road.prepare(whose);
        prepared.detail.push(("size", claimed.to_string()));
        Ok(prepared)
    }
}

impl<S: Store> Vault<S> {
    /// Wants cosignatures by these witnesses from now on. Whoever opens the vault says so, once.
    pub fn want_witnesses(&self, witnesses: Witnesses) {
        // Said twice it is the same configuration.
        drop(self.witnesses.set(witnesses));
    }

    fn wants_witnesses(&self) -> Result<&Witnesses, Error> {
        self.witnesses.get().ok_or(Error::WitnessesMissing(
            "this vault is configured with no witnesses: its operator lists them in [ledger] witnesses",
        ))
    }

    /// Whether the vault is configured with witnesses.
    pub(crate) fn has_witnesses(&self) -> bool {
        self.witnesses.get().is_some()
    }

    /// Brings a checkpoint that witnesses have cosigned.
    pub async fn add_cosignature(&self, caller: &Caller, request: &AddCosignature) -> Result<AddedCosignature, Error> {
        let whose = self.travel(caller, &Adding(request)).await?;
        let witnesses = self.wants_witnesses()?;
        let (head, tree) = self.signed_head(whose).await?;
        let older = head.verify(&request.checkpoint).map_err(|_| not_ours())?.tree();
        if witnesses.of(&request.checkpoint)? == 0 {
            let description = "none of the witnesses that the vault is configured with has cosigned it";
            return Err(Error::invalid("checkpoint", "no_witness", description));
        }
        self.is_of(whose, &older, &tree).await?;
        let known: Vec<&str> = head.keys.iter().map(String::as_str).chain(witnesses.vkeys()).collect();
        let join = |notes: &[&str]| cosignature::join(notes, &known).map_err(|_| not_ours());

        let mut waiting = self.waiting.lock().await;
        let kept = self.kept(whose).await?.filter(|kept| kept.tree.size >= older.size);
        let waiting = waiting.entry(whose).or_default();
        let before = kept.iter().chain(waiting.iter()).find(|one| one.tree == older);
        let note = match before {
            Some(before) => join(&[&before.note, &request.checkpoint])?,
            None => join(&[&request.checkpoint])?,
        };
        let (count, needed) = (witnesses.of(&note)?, witnesses.needed);
        let cosigned = Cosigned { tree: older, note, count };
        let newer_is_kept = kept.is_some_and(|kept| kept.tree.size > older.size);
        match (newer_is_kept, count >= needed) {
            // Nobody needs it any more.
            (true, _) => {}
            (false, true) => {
                self.keep(whose, &cosigned).await?;
                waiting.retain(|one| one.tree.size > older.size);
            }
            (false, false) => {
                waiting.retain(|one| one.tree != older);
                waiting.push(cosigned);
                // One witness alone, however much it brings, comes behind what several have cosigned, and its own first.
                waiting.sort_unstable_by_key(|one| (Reverse(one.count), one.tree.size));
                waiting.truncate(WAITING);
            }
        }
        Ok(AddedCosignature { leaves: older.size, witnesses: count, needed })
    }

    /// Sees that a checkpoint is of the log as it is: a store that was put back would have signed another history.
    async fn is_of(&self, whose: TenantNo, older: &Tree, tree: &Tree) -> Result<(), Error> {
        let question = Question::Consistency { from: older.size, to: tree.size };
        let same = match older.size == tree.size {
            true => older.root == tree.root,
            false if !question.fits(tree.size) => false,
            false => verify_consistency(&self.prove(whose, tree, &question).await?, older, tree).is_ok(),
        };
        if !same {
            tracing::error!(
                log = whose.0,
                size = older.size,
                "a witness has a checkpoint that this log does not continue"
            );
            let description = "the log as it is now does not continue this checkpoint: compare both, and keep them";
            return Err(Error::invalid("checkpoint", "another_history", description));
        }
        Ok(())
    }

    async fn keep(&self, whose: TenantNo, cosigned: &Cosigned) -> Result<(), Error> {
        // No tenant ends meanwhile: nothing may be left of one that has.
        let _turn = self.turn.read().await;
        let tenant = self.tenant(whose)?;
        tenant.is_there()?;
        let key = &tenant.fingerprints;
        let row = Kept { note: cosigned.note.clone() };
        let mutations = vec![Source::put(&row, place::witnessed(whose), SourceKind::Witnessed, key)?];
        self.commit_unguarded(mutations, vec![]).await?;
        self.forget_witnessed(whose);
        Ok(())
    }

    /// The newest that enough witnesses had cosigned once, if enough of those who are witnesses now have.
    async fn kept(&self, whose: TenantNo) -> Result<Option<Cosigned>, Error> {
        let witnesses = self.wants_witnesses()?;
        let key = &self.tenant(whose)?.fingerprints;
        let row: Option<Kept> = Source::load(&*self.store, place::witnessed(whose), SourceKind::Witnessed, key).await?;
        let Some(Kept { note }) = row else { return Ok(None) };
        let (head, _) = self.signed_head(whose).await?;
        let Ok(signed) = head.verify(&note) else { return Ok(None) };
        let (tree, count) = (signed.tree(), witnesses.of(&note).unwrap_or_default());
        Ok((count >= witnesses.needed).then_some(Cosigned { tree, note, count }))
    }

    /// The newest checkpoint of a log that enough witnesses have cosigned.
    pub(crate) async fn witnessed(&self, whose: TenantNo) -> Result<Checkpoint, Error> {
        let (note, _) = self.witnessed_tree(whose).await?;
        Ok(Checkpoint { note, keys: self.signed_head(whose).await?.0.keys })
    }

    /// The same, and the tree that it signs.
    pub(crate) async fn witnessed_tree(&self, whose: TenantNo) -> Result<(String, Tree), Error> {
        let kept = self.kept(whose).await?;
        let kept = kept.ok_or(Error::WitnessesMissing(
            "not enough witnesses have cosigned a checkpoint of this log yet: `strongroom witness cosign --to-vault`",
        ))?;
        Ok((kept.note, kept.tree))
    }

    /// How many of the configured witnesses have cosigned a checkpoint, and how many are needed; nothing if none are configured.
    pub fn cosigned_by(&self, note: &str) -> Option<(usize, usize)> {
        let witnesses = self.witnesses.get()?;
        Some((witnesses.of(note).unwrap_or_default(), witnesses.needed))
    }

    /// A signed head of a log that is there, with the cosignatures that the vault has of it.
    pub(crate) async fn with_cosignatures(&self, whose: TenantNo, head: Checkpoint, tree: &Tree) -> Checkpoint {
        // Without them it is the vault's word, as it would be if nobody had cosigned it.
        match self.cosigned(whose, &head, tree).await {
            Ok(Some(note)) => Checkpoint { note, ..head },
            Ok(None) | Err(_) => head,
        }
    }

    async fn cosigned(&self, whose: TenantNo, head: &Checkpoint, tree: &Tree) -> Result<Option<String>, Error> {
        let Some(witnesses) = self.witnesses.get() else { return Ok(None) };
        let of = |all: &Vec<Cosigned>| all.iter().find(|one| one.tree == *tree).map(|one| one.note.clone());
        let waiting = self.waiting.lock().await.get(&whose).and_then(of);
        let note = match waiting {
            Some(note) => Some(note),
            None => self.kept(whose).await?.filter(|kept| kept.tree == *tree).map(|kept| kept.note),
        };
        let known: Vec<&str> = head.keys.iter().map(String::as_str).chain(witnesses.vkeys()).collect();
        Ok(note.and_then(|note| cosignature::join(&[&head.note, &note], &known).ok()))
    }

    /// The checkpoint that waits for the fewest witnesses more, the older of several, if any does.
    pub(crate) async fn awaited(&self, whose: TenantNo) -> Result<Option<Checkpoint>, Error> {
        let note =
            self.waiting.lock().await.get(&whose).and_then(|waiting| waiting.first()).map(|one| one.note.clone());
        let Some(note) = note else { return Ok(None) };
        let (head, _) = self.signed_head(whose).await?;
        // For what only a key has signed that is compromised by now, nobody need wait.
        let holds = head.verify(&note).is_ok();
        Ok(holds.then_some(Checkpoint { note, keys: head.keys }))
    }
}

fn not_ours() -> Error {
    Error::invalid("checkpoint", "not_of_this_log", "it is no checkpoint that this log has signed")
}
