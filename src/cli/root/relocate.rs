//! `strongroom root move`: seals the keystore under another root key, while the vault is stopped.

use std::path::PathBuf;

use serde_json::json;
use strongroom_keys::{Keystore, Passphrase};
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_vault::{RootMoveError, Vault};

use super::{CredentialArgs, MadeRoot, NewRoot, NewRootArgs, WrittenShares};
use crate::cli::config::Config;
use crate::cli::files::remove_if_there;
use crate::cli::layout::Layout;
use crate::cli::output::{CliError, Exit, Output, facts};
use crate::cli::owner;
use crate::cli::passphrase;
use crate::cli::start::{self, unfit};

/// Move the vault to another root key while it is stopped: to one of any kind, from whatever it has now.
///
/// Makes a new keystore key and wraps every key anew under it; no value is touched. The ledger `system` says what was
/// intended and what became of it. A crash leaves the old root key in use or the new one, never a mixture: `strongroom root
/// show` says which.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  strongroom root move --to shamir --shares 5 --threshold 3 --shares-to /media/shares
  strongroom root move --to file --share-file 1.txt --share-file 2.txt --share-file 3.txt
  strongroom root move --to file        another passphrase in place of the old one
  strongroom root move --to openbao     as [root.openbao] of strongroom.toml says
  strongroom root move --to pkcs11 --create-key --root-config new-token.toml

Copies of keystore/ that were made before still open with the old root key: delete
them, or keep them as safe as it. A vault of `strongroom dev` is one for production
afterwards: serve it with `strongroom serve`.")]
pub struct Args {
    /// What keeps the root key afterwards.
    #[arg(long, value_enum, value_name = "KIND")]
    to: NewRoot,

    #[command(flatten)]
    old: CredentialArgs,

    /// A file that holds the new passphrase, in its first line; without it there is a question at the terminal.
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,

    #[command(flatten)]
    new_root: NewRootArgs,

    /// The configuration [default: DIR/strongroom.toml].
    #[arg(long, value_name = "FILE", env = "STRONGROOM_CONFIG")]
    config: Option<PathBuf>,
}

/// Moves.
pub async fn run(args: Args, layout: &Layout, output: Output) -> Result<Exit, CliError> {
    let config = Config::read(layout, args.config.as_deref())?;
    owner::must_own(layout)?;
    // The store first: its lock says whether a vault runs over it, before anybody is asked for anything.
    let store = RocksStore::open(&layout.data(), RocksOptions::default()).map_err(|error| match error {
        error if start::is_locked(&error) => CliError::Unfit {
            message: format!("a vault runs over {}: only one that is stopped can be moved", layout.dir().display()),
            next: "stop it, then the same command".into(),
        },
        error => unfit(layout, &error),
    })?;
    let old = args.old.provider(layout, &config)?;
    let opened = start::unlock(layout.keystore(), old).await;
    let keystore = opened.map_err(|closed| closed.into_error(layout))?;
    let from = keystore.root();
    let MadeRoot { provider, shares } = args.to.make(|| args.new_passphrase(), &args.new_root, Some(&config.root))?;
    let to = provider.kind();
    let opening = start::opening(layout, &config, store, keystore)?;
    let vault = Vault::open(opening).await.map_err(|error| unfit(layout, &error))?;
    // From here on they may be the only way in, whatever else goes wrong.
    let kept = shares.map(WrittenShares::keep);
    let moved = vault.move_root(provider).await;
    vault.close().await;
    if let Err(RootMoveError::Root(_)) = &moved {
        // The old root key is in use, and these open nothing.
        kept.iter().flatten().for_each(|file| drop(std::fs::remove_file(file)));
    }
    moved.map_err(|error| CliError::Unfit {
        message: format!("the move of the vault in {} to another root key failed: {error}", layout.dir().display()),
        next: "strongroom root show, for what keeps the root key now; the next start records what became of it".into(),
    })?;
    forget_dev_passphrase(layout)?;
    let number = Keystore::header_of(&layout.keystore()).map_err(|error| unfit(layout, &error))?.number;
    let own_config = args.new_root.outside.own_config().map(|path| path.display().to_string());
    let config_file = args.config.unwrap_or_else(|| layout.config()).display().to_string();
    output.show(
        || json!({ "from": from.as_str(), "to": to.as_str(), "keystore_number": number.to_string(), "shares": kept, "put_into_config": own_config }),
        || {
            let mut said = vec![("from", from.to_string()), ("to", to.to_string())];
            said.push(("keystore", format!("number {number}")));
            said.extend(kept.iter().flatten().map(|path| ("share", path.display().to_string())));
            format!(
                "{}\n{}Copies of {} from before still open with the old root key: delete them. Start the vault, then make a new one: strongroom keys backup.",
                facts(said),
                match &own_config {
                    None => String::new(),
                    Some(own) => format!("Before the vault starts again, put what {own} says into {config_file}. "),
                },
                layout.keystore().display()
            )
        },
    )?;
    Ok(Exit::Done)
}

impl Args {
    /// Never comes from where the old one does.
    fn new_passphrase(&self) -> Result<Passphrase, CliError> {
        passphrase::choose(self.new_passphrase_file.as_deref(), "--new-passphrase-file FILE")
    }
}

/// What lies beside a vault for development opens nothing any more.
fn forget_dev_passphrase(layout: &Layout) -> Result<(), CliError> {
    remove_if_there(&layout.dev_passphrase())
}
