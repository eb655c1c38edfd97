//! The command line: a file a command, and small ones that several share.
//!
//! `client.rs` finds the vault and connects, `output.rs` prints and ends the process; `make.rs` makes a vault's folder,
//! `start.rs` opens and serves it, `root.rs` finds what keeps its root key, and `keeper.rs` closes and opens it while it is
//! served; `owner.rs` keeps others from a folder that is not theirs; `value.rs`, `input.rs` and `expiry.rs` read what a
//! command is given, `page.rs` is the frame of what people print, and `step_up.rs` runs a command again with a second
//! factor. A file goes through the vault by `mapping.rs`, `records.rs`, `cells.rs`, `columns.rs`, `batches.rs`, `progress.rs`
//! and `transfer.rs`.

mod actors;
mod anew;
mod approve;
mod audit;
mod backups_config;
mod batches;
mod bench;
mod break_glass;
mod cells;
mod certificates;
mod client;
mod columns;
mod config;
mod demo;
mod detokenize;
mod dev;
mod expiry;
mod export;
mod files;
mod freeze;
mod freezes;
mod hardening;
mod import;
mod init;
mod input;
mod keeper;
mod keys;
mod layout;
mod ledger_config;
mod lookup;
mod make;
mod mapping;
mod match_value;
mod officer;
mod output;
mod own_key;
mod own_keys;
mod owner;
mod page;
mod passphrase;
mod pki;
mod policy;
mod principal;
mod progress;
mod records;
mod report;
mod restore;
mod retention;
mod root;
mod schema;
mod seal;
mod second_factor;
mod serve;
mod shell;
mod span;
mod start;
mod status;
mod step_up;
mod subject;
mod tenant;
mod tiers;
mod tiles;
mod tokenize;
mod transfer;
mod unseal;
mod value;
mod verify;
mod witness;

use clap::{Parser, Subcommand};

use client::Global;
use output::{CliError, Exit};

/// An encrypted vault for customer data: it keeps the values and gives out tokens, and only under policy, and with a
/// record in a tamper-evident ledger, turns a token back into its value.
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 refused or failed, 2 bad usage, 3 done in part or waiting.\nStart here: strongroom dev"
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Args),
    Demo(demo::Args),
    Init(init::Args),
    Serve(serve::Args),
    Seal(seal::Args),
    Unseal(unseal::Args),
    Status(status::Args),
    Tokenize(tokenize::Args),
    Detokenize(detokenize::Args),
    Match(match_value::Args),
    Lookup(lookup::Args),
    Import(import::Args),
    Export(export::Args),
    Subject(subject::Args),
    Retention(retention::Args),
    Report(report::Args),
    Schema(schema::Args),
    Policy(policy::Args),
    Approvals(approve::ListArgs),
    Approve(approve::ApproveArgs),
    Reject(approve::RejectArgs),
    SecondFactor(second_factor::Args),
    Freeze(freeze::FreezeArgs),
    Unfreeze(freeze::UnfreezeArgs),
    Freezes(freezes::Args),
    Principal(principal::Args),
    Officer(officer::Args),
    Keys(keys::Args),
    OwnKey(own_key::Args),
    Root(root::Args),
    BreakGlass(break_glass::Args),
    Tenant(tenant::Args),
    Audit(audit::Args),
    Witness(witness::Args),
    Verify(verify::Args),
    Restore(restore::Args),
    Bench(Box<bench::Args>),
}

/// Runs one command and says how the process shall end.
pub fn main() -> std::process::ExitCode {
    hardening::protect_process();
    let cli = Cli::parse();
    let output = cli.global.output;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.complain(&CliError::unfit(format!("the runtime can't start: {error}")));
            return Exit::Failed.into();
        }
    };
    match runtime.block_on(step_up::shown_if_asked(cli)) {
        Ok(exit) => exit.into(),
        Err(error) => {
            output.complain(&error);
            error.exit().into()
        }
    }
}

async fn run(cli: Cli) -> Result<Exit, CliError> {
    let Cli { global, command } = cli;
    match command {
        Command::Dev(args) => dev::run(args, &global.dir).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Init(args) => init::run(args, &global.dir, global.output).await,
        Command::Serve(args) => serve::run(args, &global.dir).await,
        Command::Seal(args) => seal::run(args, &global.context(seal::PRINCIPAL)?).await,
        Command::Unseal(args) => unseal::run(args, &global.context(unseal::PRINCIPAL)?).await,
        Command::Status(args) => status::run(args, &global.context(status::PRINCIPAL)?).await,
        Command::Tokenize(args) => tokenize::run(args, &global.context(tokenize::PRINCIPAL)?).await,
        Command::Detokenize(args) => detokenize::run(args, &global.context(detokenize::PRINCIPAL)?).await,
        Command::Match(args) => match_value::run(args, &global.context(match_value::PRINCIPAL)?).await,
        Command::Lookup(args) => lookup::run(args, &global.context(lookup::PRINCIPAL)?).await,
        Command::Import(args) => import::run(args, &global.context(import::PRINCIPAL)?).await,
        Command::Export(args) => export::run(args, &global.context(export::PRINCIPAL)?).await,
        Command::Subject(args) => subject::run(args, &global).await,
        Command::Retention(args) => {
            let context = global.context(args.principal())?;
            retention::run(args, &context).await
        }
        Command::Report(args) => report::run(args, &global.context(report::PRINCIPAL)?).await,
        Command::Schema(args) => schema::run(args, &global.context(schema::PRINCIPAL)?).await,
        Command::Policy(args) => policy::run(args, &global.context(policy::PRINCIPAL)?).await,
        Command::Approvals(args) => approve::list(args, &global.context(approve::PRINCIPAL)?).await,
        Command::Approve(args) => approve::approve(args, &global.context(approve::PRINCIPAL)?).await,
        Command::Reject(args) => approve::reject(args, &global.context(approve::PRINCIPAL)?).await,
        Command::SecondFactor(args) => second_factor::run(args, &global.context(second_factor::PRINCIPAL)?).await,
        Command::Freeze(args) => {
            let context = global.context(args.principal())?;
            freeze::freeze(args, &context).await
        }
        Command::Unfreeze(args) => {
            let context = global.context(args.principal())?;
            freeze::unfreeze(args, &context).await
        }
        Command::Freezes(args) => freezes::run(args, &global.context(freezes::PRINCIPAL)?).await,
        Command::Principal(args) => principal::run(args, &global.context(principal::PRINCIPAL)?).await,
        Command::Officer(args) => officer::run(args, &global.context(officer::PRINCIPAL)?).await,
        Command::Keys(args) => {
            let context = global.context(args.principal())?;
            keys::run(args, &context).await
        }
        Command::OwnKey(args) => own_key::run(args, &global.context(own_key::PRINCIPAL)?).await,
        Command::Root(args) => root::run(args, &layout::Layout::new(&global.dir), global.output).await,
        Command::BreakGlass(args) => break_glass::run(args, &layout::Layout::new(&global.dir), global.output).await,
        Command::Tenant(args) => tenant::run(args, &global).await,
        Command::Audit(args) => audit::run(args, &global).await,
        Command::Witness(args) => witness::run(args, &global).await,
        Command::Verify(args) => verify::run(args, &global.dir, global.output).await,
        Command::Restore(args) => restore::run(args, &layout::Layout::new(&global.dir), global.output).await,
        Command::Bench(args) => bench::run(*args, &global).await,
    }
}
