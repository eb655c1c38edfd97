//! `strongroom serve`: opens a vault and answers until it is asked to end.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::config::Config;
use super::layout::Layout;
use super::output::{CliError, Exit, say};
use super::passphrase::PassphraseArgs;
use super::start;

/// Open a vault and answer until SIGINT or SIGTERM.
///
/// The passphrase comes from a file, from the systemd credential `passphrase`, or from the terminal.
#[derive(Debug, Parser)]
pub struct Args {
    /// The configuration [default: DIR/strongroom.toml].
    #[arg(long, value_name = "FILE", env = "STRONGROOM_CONFIG")]
    config: Option<PathBuf>,

    /// Answer here instead of where the configuration says; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,

    /// Start sealed: ask for nothing, and answer only `status` and `unseal`.
    #[arg(long, conflicts_with = "passphrase_file")]
    sealed: bool,

    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Serves.
pub async fn run(args: Args, dir: &Path) -> Result<Exit, CliError> {
    let layout = Layout::new(dir);
    let config = Config::read(&layout, args.config.as_deref())?;
    // All that can fail comes first: an open vault must be closed in good order.
    start::tls(&layout, &config)?;
    let passphrase = if args.sealed { None } else { Some(args.passphrase.read()?) };
    let listener = start::bind(args.listen.as_deref().unwrap_or(&config.listen)).await?;
    let opened = match passphrase {
        Some(passphrase) => Some(start::open(&layout, &config, passphrase).await?),
        None => None,
    };
    let address = listener.local_addr().map_err(|error| CliError::unfit(error.to_string()))?;
    let stop = start::asked_to_end();
    say(format!("serving on https://{address}\n").as_bytes())?;
    match opened {
        Some(opened) => start::serve(opened, &layout, listener, &config, stop).await?,
        None => {
            say(b"The vault is sealed: strongroom unseal opens it.\n")?;
            start::serve_sealed(&layout, listener, &config, stop).await?;
        }
    }
    Ok(Exit::Done)
}
