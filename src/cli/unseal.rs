//! `strongroom unseal`: brings a sealed vault what its root key needs.

use clap::Args as ClapArgs;
use serde_json::json;
use strongroom_proto::v1::unseal_request::Credential;
use strongroom_proto::v1::{SealStatus, StatusRequest, UnsealRequest};
use zeroize::Zeroizing;

use super::client::Context;
use super::output::{CliError, Exit};
use super::passphrase;
use super::root;

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "operator";

/// Open a sealed vault with what its root key needs: a passphrase, a share, or nothing where its provider needs nothing.
///
/// Shares may come one by one, from different people: the vault keeps them until there are enough. Nothing secret is
/// taken from the command line, where everybody could read it.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom unseal
  strongroom unseal --file /run/secrets/passphrase
  strongroom unseal --as officer-1 --file share-1.txt
  strongroom unseal --reset

Exit code 3 while the vault waits for more shares.")]
pub struct Args {
    /// A file that holds the passphrase in its first line, or a share as it was handed out; without it, a question at the
    /// terminal. Not for a root key that somebody outside keeps.
    #[arg(long, value_name = "FILE")]
    file: Option<std::path::PathBuf>,

    /// Forget the shares that were given so far, and bring nothing.
    #[arg(long, conflicts_with = "file")]
    reset: bool,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let mut system = context.system().await?;
    let status = system.status(StatusRequest {}).await?.into_inner();
    let seal = status.seal.unwrap_or_default();
    if !seal.sealed {
        return Err(CliError::unfit("the vault is open: there is nothing to unseal"));
    }
    let credential = if args.reset { None } else { credential(&seal, args.file.as_deref())? };
    let request = UnsealRequest { credential, reset: args.reset };
    let seal = system.unseal(request).await?.into_inner().seal.unwrap_or_default();
    context.output.show(|| document(&seal), || text(&seal))?;
    Ok(if seal.sealed && !args.reset { Exit::Partly } else { Exit::Done })
}

/// What a provider needs, from a file or from the terminal.
fn credential(seal: &SealStatus, file: Option<&std::path::Path>) -> Result<Option<Credential>, CliError> {
    const OTHERWISE: &str = "--file FILE";
    let secret = |text: Zeroizing<String>| text.as_bytes().to_vec().into();
    Ok(match (seal.provider.as_str(), file) {
        // Enough were given, and something else was in the way.
        ("shamir", None) if seal.shares_given >= seal.shares_needed => None,
        ("file", Some(path)) => Some(Credential::Passphrase(secret(passphrase::first_line(path)?))),
        ("file", None) => {
            Some(Credential::Passphrase(secret(passphrase::ask("Passphrase of the root key: ", OTHERWISE)?)))
        }
        ("shamir", Some(path)) => Some(Credential::Share(secret(root::read_share(path)?))),
        ("shamir", None) => Some(Credential::Share(secret(passphrase::ask("Share of the root key: ", OTHERWISE)?))),
        (_, Some(_)) => {
            return Err(CliError::Usage(format!(
                "{} keeps the root key of this vault: leave out --file",
                seal.provider
            )));
        }
        (_, None) => None,
    })
}

/// How a vault's seal is, for machines.
pub fn document(seal: &SealStatus) -> serde_json::Value {
    json!({
        "provider": seal.provider,
        "sealed": seal.sealed,
        "reason": seal.reason,
        "shares_given": seal.shares_given,
        "shares_needed": seal.shares_needed,
        "opens_by_itself": seal.opens_by_itself,
    })
}

fn text(seal: &SealStatus) -> String {
    match (seal.sealed, seal.shares_needed) {
        (false, _) => "unsealed".to_owned(),
        (true, 0) => "sealed".to_owned(),
        (true, needed) => format!("sealed: {} of {needed} shares are given", seal.shares_given),
    }
}
