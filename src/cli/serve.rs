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

    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Serves.
pub async fn run(args: Args, dir: &Path) -> Result<Exit, CliError> {
    let layout = Layout::new(dir);
    let config = Config::read(&layout, args.config.as_deref())?;
    // All that can fail comes first: an open vault must be closed in good order.
    start::tls(&layout, &config)?;
    let passphrase = args.passphrase.read()?;
    let listener = start::bind(args.listen.as_deref().unwrap_or(&config.listen)).await?;
    let opened = start::open(&layout, &config, &passphrase).await?;
    drop(passphrase);
    let address = listener.local_addr().map_err(|error| CliError::unfit(error.to_string()))?;
    let stop = start::asked_to_end();
    say(format!("serving on https://{address}\n").as_bytes())?;
    start::serve(opened, listener, &config, stop).await?;
    Ok(Exit::Done)
}
