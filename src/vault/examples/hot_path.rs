//! The hot path by itself, for counting instructions: the road from a decoded request to its committed answer, over a
//! store in memory.
//!
//!     hot_path LOAD COUNT
//!
//! runs COUNT requests, one after the other. What COUNT more requests cost is the difference of two runs, so that
//! opening the vault does not count; `deploy/bench/instructions` takes it under callgrind.

use std::process::ExitCode;
use std::sync::Arc;

use strongroom_access::{Principal, Role};
use strongroom_ids::{TenantNo, VaultId};
use strongroom_keys::{ArgonCost, Keystore, Passphrase, PassphraseRoot};
use strongroom_storage::memory::MemoryStore;
use strongroom_vault::{
    ApplySchema, Caller, Detokenize, Limits, MachineTime, Match, MatchItem, NewTenant, NewValue, NewVault, Opening,
    ReadItem, Retention, Tokenize, Vault, create,
};

type Failure = Box<dyn std::error::Error>;
type Memory = Vault<MemoryStore>;

const LENDING: &str = include_str!("../../../deploy/schemas/lending.toml");
const FIELD: &str = "borrower.address";
const VALUE: &str = "No. 1, Chang'an Avenue, Beijing.";
const PURPOSE: &str = "loan_servicing";
/// A batch, large enough that what a request costs by itself disappears in it.
const BATCH: usize = 100;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match words.as_slice() {
        [load, count] => count.parse().map(|count: usize| (load.as_str(), count)).ok(),
        _ => None,
    };
    let Some((load, count)) = parsed else {
        eprintln!("usage: hot_path tokenize|detokenize|match|tokenize_batch|detokenize_batch COUNT");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(run(load, count))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hot_path: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(load: &str, count: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let vault = open(folder.path()).await?;
    let app = caller(Role::App, "app");
    let token = vault.tokenize(&app, &write(1)).await?.remove(0);
    let tokens = vault.tokenize(&app, &write(BATCH)).await?;
    for _ in 0..count {
        let answered = match load {
            "tokenize" => vault.tokenize(&app, &write(1)).await?.len(),
            "tokenize_batch" => vault.tokenize(&app, &write(BATCH)).await?.len(),
            "detokenize" => read(&vault, &app, std::slice::from_ref(&token)).await?,
            "detokenize_batch" => read(&vault, &app, &tokens).await?,
            "match" => {
                let item = MatchItem { token: token.clone(), value: VALUE.into(), subject: String::new() };
                vault.matches(&app, &Match { items: vec![item], purpose: PURPOSE.to_owned() }).await?.len()
            }
            _ => return Err(format!("there is no load {load}").into()),
        };
        if answered == 0 {
            return Err("a request was not answered".into());
        }
    }
    vault.close().await;
    Ok(())
}

async fn open(folder: &std::path::Path) -> Result<Memory, Failure> {
    let passphrase = Passphrase::new("a yardstick protects nothing".to_owned())?;
    let root = PassphraseRoot::new(passphrase, ArgonCost::LEAST);
    let store = MemoryStore::default();
    let clock: strongroom_vault::Clock = Arc::new(|| 1_795_000_000_000_000);
    create(NewVault {
        store: store.clone(),
        keystore: Keystore::create(folder, VaultId([7; 16]), &root)?,
        head_file: folder.join("head"),
        journal: folder.join("journal"),
        trust_domain: "bench.example".to_owned(),
        trust_anchors: vec![[2; 32]],
        tenants: vec![NewTenant { name: "bench".to_owned(), officers: vec![("officer".to_owned(), [1; 32])] }],
        clock: Arc::clone(&clock),
    })
    .await?;
    let vault = Vault::open(Opening {
        store,
        keystore: Keystore::open(folder, &root)?,
        head_file: folder.join("head"),
        journal: folder.join("journal"),
        limits: Limits::MOST,
        hot_deks: 1_000,
        space: Arc::new(|| false),
        machine: MachineTime::of_one(Arc::clone(&clock)),
        retention: Retention::default(),
        clock,
    })
    .await?;
    let schema = ApplySchema { source: LENDING.to_owned(), dry_run: false };
    vault.apply_schema(&caller(Role::Officer, "officer"), &schema).await?;
    Ok(vault)
}

fn caller(role: Role, name: &str) -> Caller {
    let principal = Arc::new(Principal::new(TenantNo(1), role, name));
    Caller::new(principal, "127.0.0.1:1")
}

fn write(count: usize) -> Tokenize {
    let item = || NewValue {
        field: FIELD.to_owned(),
        value: VALUE.into(),
        subject: String::new(),
        expires: None,
        token: String::new(),
    };
    Tokenize { items: (0..count).map(|_| item()).collect(), idempotency_key: String::new() }
}

async fn read(vault: &Memory, app: &Caller, tokens: &[String]) -> Result<usize, Failure> {
    let item = |token: &String| ReadItem { token: token.clone(), view: String::new(), subject: String::new() };
    let request =
        Detokenize { items: tokens.iter().map(item).collect(), purpose: PURPOSE.to_owned(), view: "plain".to_owned() };
    Ok(vault.detokenize(app, &request).await?.into_iter().filter(Result::is_ok).count())
}
