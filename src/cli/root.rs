//! `strongroom root`: who keeps the root key, and the way to another one. Here it is also said how each kind of root key
//! provider is reached: the one of a vault that is there, and that of a new one.

mod outside;
mod relocate;
mod shares;
mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use strongroom_keys::{ArgonCost, Envelope, Keystore, Passphrase, PassphraseRoot, RootKind, RootProvider};

use super::config::{Config, Root};
use super::layout::Layout;
use super::output::{CliError, Exit, Output};
use super::passphrase::{self, PassphraseArgs};
use super::start::unfit;
pub use outside::{OutsideArgs, provider as outside, root_provider};
pub use shares::{SharesArgs, WrittenShares, read as read_share};

/// Show who keeps the root key, or move to another root key.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Show(show::Args),
    Move(Box<relocate::Args>),
}

/// Runs the command.
pub async fn run(args: Args, layout: &Layout, output: Output) -> Result<Exit, CliError> {
    match args.command {
        Command::Show(args) => show::run(args, layout, output),
        Command::Move(args) => relocate::run(*args, layout, output).await,
    }
}

/// What opens a vault: whatever its kind of root key wants of the people who start it.
#[derive(Clone, Debug, ClapArgs)]
pub struct CredentialArgs {
    #[command(flatten)]
    pub passphrase: PassphraseArgs,

    /// A file that holds a share of the root key; give it once for each share.
    ///
    /// Shares that are missing are asked for at the terminal, one after the other.
    #[arg(long = "share-file", value_name = "FILE")]
    share_files: Vec<PathBuf>,
}

impl CredentialArgs {
    /// The root key provider of a vault, as its keystore says which.
    pub fn provider(&self, layout: &Layout, config: &Config) -> Result<Arc<dyn RootProvider>, CliError> {
        self.provider_of(&layout.keystore(), layout, config)
    }

    /// The same of a keystore in another folder.
    pub fn provider_of(
        &self,
        keystore: &Path,
        layout: &Layout,
        config: &Config,
    ) -> Result<Arc<dyn RootProvider>, CliError> {
        let header = Keystore::header_of(keystore).map_err(|error| unfit(layout, &error))?;
        provider(&header.envelope, self, layout, config)
    }
}

/// The provider that unwraps an envelope.
fn provider(
    envelope: &Envelope,
    credential: &CredentialArgs,
    layout: &Layout,
    config: &Config,
) -> Result<Arc<dyn RootProvider>, CliError> {
    match envelope.kind {
        RootKind::Passphrase => {
            let beside = layout.dev_passphrase();
            let passphrase = match credential.passphrase.passphrase_file.is_none() && beside.exists() {
                true => passphrase::from_file(&beside)?,
                false => credential.passphrase.read()?,
            };
            Ok(Arc::new(PassphraseRoot::new(passphrase, ArgonCost::DEFAULT)))
        }
        RootKind::Shamir => Ok(shares::collect(envelope, &credential.share_files)?),
        kind @ (RootKind::Pkcs11 | RootKind::AwsKms | RootKind::OpenBao) => {
            root_provider(kind, &config.root).map_err(|error| unfit(layout, &error))
        }
    }
}

/// The kinds of root key that a vault can be made with, or moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NewRoot {
    /// A passphrase.
    File,
    /// Shares, of which some are needed.
    Shamir,
    /// A key in a hardware security module.
    Pkcs11,
    /// A key in AWS KMS.
    AwsKms,
    /// A transit key in OpenBao or HashiCorp Vault.
    #[value(name = "openbao")]
    OpenBao,
}

/// What a new root key is made of, as the command line says it.
#[derive(Clone, Debug, ClapArgs)]
pub struct NewRootArgs {
    #[command(flatten)]
    shares: SharesArgs,

    #[command(flatten)]
    pub outside: OutsideArgs,
}

/// A new root key, and what was written down for people who are to keep a part of it.
pub struct MadeRoot {
    /// Wraps under it.
    pub provider: Arc<dyn RootProvider>,
    /// The files with its shares. Taken back when this is dropped, unless they are kept.
    pub shares: Option<WrittenShares>,
}

impl NewRoot {
    /// Makes the root key. Shares are written before anything is sealed under them: no vault may exist whose shares
    /// nobody has. `there` is what the configuration of a vault that is
    /// there says.
    pub fn make(
        self,
        choose: impl FnOnce() -> Result<Passphrase, CliError>,
        args: &NewRootArgs,
        there: Option<&Root>,
    ) -> Result<MadeRoot, CliError> {
        let NewRootArgs { shares, outside } = args;
        if self != Self::Shamir {
            shares.must_be_absent()?;
        }
        let kind = match self {
            Self::File => {
                outside.must_be_absent()?;
                let provider = Arc::new(PassphraseRoot::new(choose()?, ArgonCost::DEFAULT));
                return Ok(MadeRoot { provider, shares: None });
            }
            Self::Shamir => {
                outside.must_be_absent()?;
                let (root, written) = shares.write()?;
                return Ok(MadeRoot { provider: Arc::new(root), shares: Some(written) });
            }
            Self::Pkcs11 => RootKind::Pkcs11,
            Self::AwsKms => RootKind::AwsKms,
            Self::OpenBao => RootKind::OpenBao,
        };
        Ok(MadeRoot { provider: outside.provider(kind, there)?, shares: None })
    }
}
