//! `strongroom root show`: what the keystore is sealed by.

use data_encoding::HEXLOWER;
use serde_json::json;
use strongroom_keys::root::shamir::ShareSet;
use strongroom_keys::{ArgonCost, Envelope, Keystore, KeystoreHeader, RootError, RootKind};

use crate::cli::layout::Layout;
use crate::cli::output::{CliError, Exit, Output, facts};
use crate::cli::start::unfit;

/// Show who keeps the root key of the vault in the folder. Asks for nothing secret, and may be run while it serves.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Shows it.
pub fn run(_args: Args, layout: &Layout, output: Output) -> Result<Exit, CliError> {
    let header = Keystore::header_of(&layout.keystore()).map_err(|error| unfit(layout, &error))?;
    let KeystoreHeader { vault, number, envelope } = header;
    let how = how(&envelope).map_err(|error| unfit(layout, &error))?;
    output.show(
        || {
            let mut document = json!({
                "provider": envelope.kind.as_str(),
                "vault_id": vault.to_string(),
                // Numbers of 64 bits are strings, as in the ledger.
                "keystore_number": number.to_string(),
            });
            if let Some(object) = document.as_object_mut() {
                object.extend(how.iter().map(|(name, value)| (name.replace(' ', "_"), json!(value))));
            }
            document
        },
        || {
            let head = [("provider", envelope.kind.to_string())];
            let tail = [("vault", vault.to_string()), ("keystore", format!("number {number}"))];
            facts(head.into_iter().chain(how.iter().cloned()).chain(tail))
        },
    )?;
    Ok(Exit::Done)
}

/// The parameters of a provider, for people.
fn how(envelope: &Envelope) -> Result<Vec<(&'static str, String)>, RootError> {
    Ok(match envelope.kind {
        RootKind::Passphrase => {
            let ArgonCost { memory_kib, passes, lanes } = ArgonCost::of(envelope)?;
            vec![("argon2id", format!("{memory_kib} KiB, {passes} passes, {lanes} lanes"))]
        }
        RootKind::Shamir => {
            let set = ShareSet::of(envelope)?;
            let shares = format!("any {} of {}", set.threshold(), set.count());
            vec![("shares", shares), ("share set", set.id())]
        }
        // After a byte for their format; a file may hold anything.
        RootKind::Pkcs11 => vec![("key id", HEXLOWER.encode(envelope.parameters.get(1..).unwrap_or_default()))],
        RootKind::AwsKms | RootKind::OpenBao => {
            vec![("key", envelope.parameters.get(1..).unwrap_or_default().escape_ascii().to_string())]
        }
    })
}
