//! `strongroom serve`: opens a vault and answers until it is asked to end.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::config::Config;
use super::layout::Layout;
use super::output::{CliError, Exit, say};
use super::root::CredentialArgs;
use super::start::{self, Begun, Sockets};

/// Open a vault and answer until SIGINT or SIGTERM.
///
/// The passphrase of the root key comes from a file, from the systemd credential `passphrase`, or from the terminal; its
/// shares come from files or from the terminal, where it has shares; and where somebody outside keeps it (pkcs11, aws-kms,
/// openbao), it is asked for there, again and again while it can't be had.
#[derive(Debug, Parser)]
pub struct Args {
    /// The configuration [default: DIR/strongroom.toml].
    #[arg(long, value_name = "FILE", env = "STRONGROOM_CONFIG")]
    config: Option<PathBuf>,

    /// Answer here instead of where the configuration says; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,

    /// Start sealed: ask for nothing, and answer only `status` and `unseal`.
    #[arg(long, conflicts_with = "share_files")]
    sealed: bool,

    #[command(flatten)]
    credential: CredentialArgs,
}

/// Serves.
pub async fn run(args: Args, dir: &Path) -> Result<Exit, CliError> {
    let layout = Layout::new(dir);
    let config = Config::read(&layout, args.config.as_deref())?;
    // All that can fail comes first: an open vault must be closed in good order.
    start::tls(&layout, &config)?;
    let root = if args.sealed { None } else { Some(args.credential.provider(&layout, &config)?) };
    let sockets = Sockets::bind(args.listen.as_deref().unwrap_or(&config.listen), &config).await?;
    let begun = match root {
        Some(root) => start::begin(&layout, &config, root).await?,
        None => Begun::Sealed,
    };
    let (_, told) = sockets.told()?;
    let stop = start::asked_to_end();
    say(told.as_bytes())?;
    match &begun {
        Begun::Open(_) => {}
        Begun::Sealed => say(b"The vault is sealed: strongroom unseal opens it.\n")?,
        Begun::Waiting { why, .. } => {
            say(format!("The vault is sealed: {why}. It opens by itself once that is over.\n").as_bytes())?;
        }
    }
    start::serve(begun, &layout, sockets, &config, stop).await?;
    Ok(Exit::Done)
}
