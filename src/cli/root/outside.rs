//! Root keys that somebody outside of the process keeps, with the settings that the configuration has for them.

use std::path::PathBuf;
use std::sync::Arc;

use strongroom_keys::{RootError, RootKind, RootProvider};
use strongroom_root_aws_kms::AwsKmsRoot;
use strongroom_root_openbao::OpenBaoRoot;
use strongroom_root_pkcs11::Pkcs11Root;

use crate::cli::config::Root;
use crate::cli::output::CliError;

/// How a new root key outside of the process is found, or made.
#[derive(Clone, Debug, clap::Args)]
pub struct OutsideArgs {
    /// A file with the table `[root.KIND]` of a root key in pkcs11, aws-kms or openbao.
    #[arg(long, value_name = "FILE")]
    root_config: Option<PathBuf>,

    /// Make the key in the token first: AES-256, sensitive, not extractable. For pkcs11.
    #[arg(long)]
    create_key: bool,
}

impl OutsideArgs {
    /// A root key of another kind is not outside.
    pub fn must_be_absent(&self) -> Result<(), CliError> {
        match (&self.root_config, self.create_key) {
            (None, false) => Ok(()),
            _ => Err(CliError::Usage(
                "--root-config and --create-key belong to a root key outside of the process".into(),
            )),
        }
    }

    /// The provider of a new root key, by its own file or else by a vault's configuration; and that file's text.
    pub fn make(&self, kind: RootKind, known: Option<&Root>) -> Result<(Arc<dyn RootProvider>, String), CliError> {
        let (own, text) = match &self.root_config {
            Some(path) => Root::read(path).map(|(root, text)| (Some(root), text))?,
            None => (None, String::new()),
        };
        let root = own.as_ref().or(known).ok_or_else(|| {
            CliError::Usage(format!("a root key in {kind} needs --root-config FILE, with the table [root.{kind}]"))
        })?;
        let unfit = |error: RootError| CliError::unfit(error.to_string());
        if self.create_key {
            let (RootKind::Pkcs11, Some(settings)) = (kind, &root.pkcs11) else {
                return Err(CliError::Usage(
                    "--create-key belongs to pkcs11: elsewhere make the key beforehand".into(),
                ));
            };
            Pkcs11Root::new(settings.clone()).and_then(|root| root.create_key()).map_err(unfit)?;
        }
        Ok((provider(kind, root).map_err(unfit)?, text))
    }
}

/// The provider of a kind that is outside.
///
/// # Errors
/// [`RootError::Settings`] if there are none, or they can't work.
pub fn provider(kind: RootKind, root: &Root) -> Result<Arc<dyn RootProvider>, RootError> {
    let missing = || RootError::Settings {
        provider: kind,
        why: format!("the configuration has no table [root.{kind}]: write it, as deploy/README.md says"),
    };
    Ok(match kind {
        RootKind::Pkcs11 => Arc::new(Pkcs11Root::new(root.pkcs11.clone().ok_or_else(missing)?)?),
        RootKind::AwsKms => Arc::new(AwsKmsRoot::new(root.aws_kms.clone().ok_or_else(missing)?)?),
        RootKind::OpenBao => Arc::new(OpenBaoRoot::new(root.openbao.as_ref().ok_or_else(missing)?)?),
        RootKind::Passphrase | RootKind::Shamir => {
            return Err(RootError::Settings { provider: kind, why: "it is no provider outside".to_owned() });
        }
    })
}
