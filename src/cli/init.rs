//! `strongroom init`: makes a vault, with its first officers enrolled.

use std::path::{Path, PathBuf};

use clap::Parser;
use ring::digest;
use strongroom_ids::VaultId;
use strongroom_keys::{ArgonCost, Keystore, Passphrase, root_key};
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_vault::{NewTenant, NewVault};

use super::config::Config;
use super::layout::Layout;
use super::output::{CliError, Exit, Output, facts};
use super::passphrase::PassphraseArgs;
use super::pki::write_private;
use super::start;

/// Make a vault in a new folder.
///
/// Enrols the first officers of each tenant by the public keys of their certificates; the first entry of each ledger
/// says who they are. From then on only an officer whose key is enrolled may change schema and policy.
#[derive(Debug, Parser)]
#[command(after_help = "Example:
  strongroom init --dir /var/lib/strongroom --trust-domain bank.example \\
      --tenant lending --officer lending/alice=alice.pem --officer lending/bob=bob.pem

Certificates name their principal by one URI:
  spiffe://TRUST-DOMAIN/tenant/TENANT/ROLE/NAME     roles: app rotator auditor privacy officer
  spiffe://TRUST-DOMAIN/system/operator/NAME")]
pub struct Args {
    /// The trust domain in the SPIFFE ids of all certificates.
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: String,

    /// A tenant: a hard wall between keys, tokens, policies and ledgers. May be given more than once.
    #[arg(long = "tenant", value_name = "NAME", required = true)]
    tenants: Vec<String>,

    /// An officer of a tenant, with its certificate. Each tenant needs one at least; two are better.
    #[arg(long = "officer", value_name = "TENANT/NAME=CERT.pem", required = true, value_parser = parse_officer)]
    officers: Vec<Officer>,

    /// Where the vault will answer.
    #[arg(long, default_value = "127.0.0.1:7443", value_name = "ADDRESS")]
    listen: String,

    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Clone, Debug)]
struct Officer {
    tenant: String,
    name: String,
    certificate: PathBuf,
}

fn parse_officer(text: &str) -> Result<Officer, String> {
    let parse = || {
        let (who, certificate) = text.split_once('=')?;
        let (tenant, name) = who.split_once('/')?;
        Some(Officer { tenant: tenant.to_owned(), name: name.to_owned(), certificate: certificate.into() })
    };
    parse().ok_or_else(|| "write TENANT/NAME=CERT.pem".to_owned())
}

/// Makes the vault.
pub async fn run(args: Args, dir: &Path, output: Output) -> Result<Exit, CliError> {
    let mut tenants: Vec<NewTenant> =
        args.tenants.iter().map(|name| NewTenant { name: name.clone(), officers: vec![] }).collect();
    for officer in &args.officers {
        let tenant = tenants.iter_mut().find(|tenant| tenant.name == officer.tenant).ok_or_else(|| {
            CliError::Usage(format!(
                "--officer {}/{}: there is no --tenant {}",
                officer.tenant, officer.name, officer.tenant
            ))
        })?;
        tenant.officers.push((officer.name.clone(), spki_sha256(&officer.certificate)?));
    }
    if let Some(tenant) = tenants.iter().find(|tenant| tenant.officers.is_empty()) {
        return Err(CliError::Usage(format!("--tenant {}: name its first officer with --officer", tenant.name)));
    }
    let layout = Layout::new(dir);
    if layout.dir().exists() {
        return Err(CliError::unfit(format!("{} exists already; a new vault gets a folder of its own", dir.display())));
    }
    let passphrase = args.passphrase.choose()?;
    let vault = in_place(&layout, async |layout| {
        create(layout, &passphrase, ArgonCost::DEFAULT, args.trust_domain.clone(), tenants, &args.listen).await
    })
    .await?;
    let config = layout.config();
    output.show(
        || serde_json::json!({ "vault_id": vault.to_string(), "dir": dir, "config": config }),
        || {
            format!(
                "{}\nNext: put the vault's certificate, its key and the authority of its callers where\n{} says, \
                 then: strongroom serve --dir {}\n\
                 Keep the passphrase, and copies of {} apart from copies of {}.",
                facts([("vault", vault.to_string()), ("folder", dir.display().to_string())]),
                config.display(),
                dir.display(),
                layout.keystore().display(),
                layout.data().display(),
            )
        },
    )?;
    Ok(Exit::Done)
}

/// Makes a folder under another name first, so that a half-made vault is never taken for one.
pub async fn in_place<T>(
    layout: &Layout,
    make: impl AsyncFnOnce(&Layout) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let mut name = layout.dir().file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let unfinished = Layout::new(layout.dir().with_file_name(name));
    std::fs::create_dir_all(unfinished.dir()).map_err(|error| CliError::file(unfinished.dir(), error))?;
    let made = async {
        let made = make(&unfinished).await?;
        std::fs::rename(unfinished.dir(), layout.dir()).map_err(|error| CliError::file(layout.dir(), error))?;
        Ok(made)
    }
    .await;
    if made.is_err() {
        // The first error is the one to report; what is left is named after this process.
        drop(std::fs::remove_dir_all(unfinished.dir()));
    }
    made
}

/// Makes the keystore, the store and the configuration.
pub async fn create(
    layout: &Layout,
    passphrase: &Passphrase,
    cost: ArgonCost,
    trust_domain: String,
    tenants: Vec<NewTenant>,
    listen: &str,
) -> Result<VaultId, CliError> {
    let unfit = |error: &dyn std::error::Error| CliError::unfit(format!("the vault can't be made: {error}"));
    let vault = VaultId(strongroom_keys::random().map_err(|error| unfit(&error))?);
    let root = root_key::seal_new(&layout.keystore(), passphrase, cost).map_err(|error| unfit(&error))?;
    let keystore = Keystore::create(&layout.keystore(), vault, &root).map_err(|error| unfit(&error))?;
    let store = RocksStore::create(&layout.data(), RocksOptions::default()).map_err(|error| unfit(&error))?;
    let new = NewVault { store, keystore, head_file: layout.head(), trust_domain, tenants, clock: start::clock() };
    strongroom_vault::create(new).await.map_err(|error| unfit(&error))?;
    write_private(&layout.config(), Config::text(listen).as_bytes())?;
    Ok(vault)
}

/// The SHA-256 of the public key in a certificate.
fn spki_sha256(path: &Path) -> Result<[u8; 32], CliError> {
    let pem = std::fs::read(path).map_err(|error| CliError::file(path, error))?;
    let unfit = || CliError::unfit(format!("{} is no certificate in PEM", path.display()));
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| unfit())?;
    let certificate = pem.parse_x509().map_err(|_| unfit())?;
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, certificate.public_key().raw).as_ref());
    Ok(hash)
}
