//! Root keys that somebody outside of the process keeps, with the settings that the configuration has for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use strongroom_keys::{RootError, RootKind, RootProvider};
use strongroom_root_aws_kms::AwsKmsRoot;
use strongroom_root_openbao::OpenBaoRoot;
use strongroom_root_pkcs11::Pkcs11Root;

use crate::cli::config::{Outside, Root};
use crate::cli::output::CliError;

/// How a new root key outside of the process is found.
#[derive(Clone, Debug, clap::Args)]
pub struct OutsideArgs {
    /// A file with the table [root.KIND] of a root key in pkcs11, aws-kms or openbao, and with nothing else.
    ///
    /// A new vault gets it into its strongroom.toml. `root move` needs it only where that has a table of the same kind already,
    /// for the key that is moved away from.
    #[arg(long, value_name = "FILE")]
    root_config: Option<PathBuf>,

    /// Make the key in the token first: AES-256, sensitive, not extractable. For pkcs11, once.
    #[arg(long)]
    create_key: bool,
}

impl OutsideArgs {
    /// A root key of another kind is not outside.
    pub fn must_be_absent(&self) -> Result<(), CliError> {
        match (&self.root_config, self.create_key) {
            (None, false) => Ok(()),
            _ => Err(CliError::Usage(
                "--root-config and --create-key belong to a root key in pkcs11, aws-kms or openbao".into(),
            )),
        }
    }

    /// The file of its own that a new root key is described in.
    pub fn own_config(&self) -> Option<&Path> {
        self.root_config.as_deref()
    }

    /// The provider of a new root key, as its own file says, or else the configuration of a vault that is there.
    pub fn provider(&self, kind: RootKind, there: Option<&Root>) -> Result<Arc<dyn RootProvider>, CliError> {
        let own = self.root_config.as_deref().map(Root::read).transpose()?;
        let root = own.as_ref().or(there).ok_or_else(|| {
            CliError::Usage(format!("a root key in {kind} needs --root-config FILE, with the table [root.{kind}]"))
        })?;
        let unfit = |error: RootError| match &self.root_config {
            Some(path) => CliError::unfit(format!("{}: {error}", path.display())),
            None => CliError::unfit(error.to_string()),
        };
        match (self.create_key, kind, &root.pkcs11) {
            (false, ..) => {}
            (true, RootKind::Pkcs11, Some(settings)) => {
                Pkcs11Root::new(settings.clone()).and_then(|token| token.create_key()).map_err(unfit)?;
            }
            // That the table is missing is said when the provider is made.
            (true, RootKind::Pkcs11, None) => {}
            (true, ..) => {
                return Err(CliError::Usage(
                    "--create-key belongs to pkcs11: elsewhere make the key beforehand".into(),
                ));
            }
        }
        root_provider(kind, root).map_err(unfit)
    }
}

/// The provider of a kind that is outside.
///
/// # Errors
/// What `missing` says if there are no settings for it; [`RootError::Settings`] if they can't work.
pub fn provider(
    kind: RootKind,
    places: &Outside,
    missing: impl Fn() -> RootError,
) -> Result<Arc<dyn RootProvider>, RootError> {
    Ok(match kind {
        RootKind::Pkcs11 => Arc::new(Pkcs11Root::new(places.pkcs11.clone().ok_or_else(missing)?)?),
        RootKind::AwsKms => Arc::new(AwsKmsRoot::new(places.aws_kms.clone().ok_or_else(missing)?)?),
        RootKind::OpenBao => Arc::new(OpenBaoRoot::new(places.openbao.as_ref().ok_or_else(missing)?)?),
        RootKind::Passphrase | RootKind::Shamir => {
            return Err(kind.settings("it is no provider outside"));
        }
    })
}

/// The provider of a root key.
///
/// # Errors
/// [`RootError::Settings`] if there are none, or they can't work.
pub fn root_provider(kind: RootKind, root: &Root) -> Result<Arc<dyn RootProvider>, RootError> {
    let missing = || kind.settings(format!("there is no table [root.{kind}], which says where it is"));
    provider(kind, &root.outside(), missing)
}
