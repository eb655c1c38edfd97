//! `strongroom init`: makes a vault, with its first officers enrolled.

use std::path::{Path, PathBuf};

use clap::Parser;
use strongroom_ids::VaultId;
use strongroom_keys::{ArgonCost, Keystore, Passphrase, root_key};
use strongroom_rocksdb::{RocksOptions, RocksStore};
use strongroom_vault::{NewTenant, NewVault, OpenError};
use x509_parser::extensions::GeneralName;

use super::config::Config;
use super::files::{replace, sync_folder};
use super::layout::Layout;
use super::output::{CliError, Exit, Output, facts};
use super::passphrase::PassphraseArgs;
use super::pki::{anchors, sha256};
use super::start;

/// Make a vault in a new folder, or in one that is empty.
///
/// Enrols the first officers of each tenant by the public keys of their certificates; the first entry of each ledger
/// says who they are. From then on only an officer whose key is enrolled may change schema and policy.
/// The authority of the callers' certificates is enrolled as well: under any other one the vault does not serve.
#[derive(Debug, Parser)]
#[command(after_help = "Example:
  strongroom init --dir /var/lib/strongroom --trust-domain bank.example \\
      --client-ca ca.pem --tenant lending --officer lending/alice=alice.pem \\
      --officer lending/bob=bob.pem

Certificates name their principal by one URI:
  spiffe://TRUST-DOMAIN/tenant/TENANT/ROLE/NAME
  spiffe://TRUST-DOMAIN/system/operator/NAME
ROLE is one of: app rotator auditor privacy officer")]
pub struct Args {
    /// The trust domain in the SPIFFE ids of all certificates.
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: String,

    /// The authority that the certificates of all callers come from, PEM; several one after the other.
    #[arg(long, value_name = "FILE")]
    client_ca: PathBuf,

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
    if let Some(tenant) = tenants.iter().find(|tenant| !is_tenant_name(&tenant.name)) {
        return Err(CliError::unfit(format!("--tenant {}: {}", tenant.name, OpenError::TenantName)));
    }
    for officer in &args.officers {
        let tenant = tenants.iter_mut().find(|tenant| tenant.name == officer.tenant).ok_or_else(|| {
            CliError::Usage(format!(
                "--officer {}/{}: there is no --tenant {}",
                officer.tenant, officer.name, officer.tenant
            ))
        })?;
        tenant.officers.push((officer.name.clone(), officer.key_hash(&args.trust_domain)?));
    }
    if let Some(tenant) = tenants.iter().find(|tenant| tenant.officers.is_empty()) {
        return Err(CliError::Usage(format!("--tenant {}: name its first officer with --officer", tenant.name)));
    }
    let authorities = std::fs::read(&args.client_ca).map_err(|error| CliError::file(&args.client_ca, error))?;
    let trust_anchors = anchors(&authorities, &args.client_ca)?;
    let layout = Layout::new(dir);
    if layout.dir().exists() && !is_empty(layout.dir())? {
        return Err(CliError::unfit(format!(
            "{} exists already and is not empty; a new vault gets a folder of its own",
            dir.display()
        )));
    }
    let passphrase = args.passphrase.choose()?;
    let vault = in_place(&layout, async |layout| {
        let new = Contents { trust_domain: args.trust_domain, trust_anchors, tenants, listen: args.listen };
        create(layout, &passphrase, ArgonCost::DEFAULT, new).await
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

/// Makes a vault's folder so that a half-made vault is never taken for one.
///
/// A new folder grows under another name. One that is there and empty, as a container's volume is, can't be replaced:
/// there the configuration, which is written last, says that the vault is whole.
pub async fn in_place<T>(
    layout: &Layout,
    make: impl AsyncFnOnce(&Layout) -> Result<T, CliError>,
) -> Result<T, CliError> {
    if layout.dir().exists() {
        let made = make(layout).await;
        if made.is_err() {
            // The first error is the one to report. What was found empty holds nothing but this.
            drop(empty(layout));
        }
        return made;
    }
    let mut name = layout.dir().file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let unfinished = Layout::new(layout.dir().with_file_name(name));
    std::fs::create_dir_all(unfinished.dir()).map_err(|error| CliError::file(unfinished.dir(), error))?;
    let made = async {
        let made = make(&unfinished).await?;
        std::fs::rename(unfinished.dir(), layout.dir()).map_err(|error| CliError::file(layout.dir(), error))?;
        sync_folder(layout.dir())?;
        Ok(made)
    }
    .await;
    if made.is_err() {
        // The first error is the one to report; what is left is named after this process.
        drop(std::fs::remove_dir_all(unfinished.dir()));
    }
    made
}

/// Whether a folder holds nothing. A file system of its own begins with `lost+found`.
pub fn is_empty(dir: &Path) -> Result<bool, CliError> {
    let entries = std::fs::read_dir(dir).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = entries.map_err(|error| CliError::file(dir, error))?;
    Ok(entries.iter().all(|entry| entry.file_name() == "lost+found"))
}

/// Removes the parts of a half-made vault.
fn empty(layout: &Layout) -> std::io::Result<()> {
    for folder in [layout.data(), layout.keystore(), layout.pki()].iter().filter(|folder| folder.exists()) {
        std::fs::remove_dir_all(folder)?;
    }
    let files = [layout.config(), layout.head(), layout.dev_passphrase()];
    files.iter().filter(|file| file.exists()).try_for_each(std::fs::remove_file)
}

/// What a new vault begins with.
pub struct Contents {
    /// The trust domain of all certificates.
    pub trust_domain: String,
    /// SHA-256 of the certificates (DER) of the callers' authorities.
    pub trust_anchors: Vec<[u8; 32]>,
    /// Its tenants and their officers.
    pub tenants: Vec<NewTenant>,
    /// Where it will answer.
    pub listen: String,
}

/// Makes the keystore, the store, and last the configuration, by which a vault is known to be whole.
pub async fn create(
    layout: &Layout,
    passphrase: &Passphrase,
    cost: ArgonCost,
    contents: Contents,
) -> Result<VaultId, CliError> {
    let unfit = |error: &dyn std::error::Error| CliError::unfit(format!("the vault can't be made: {error}"));
    let vault = VaultId(strongroom_keys::random().map_err(|error| unfit(&error))?);
    let root = root_key::seal_new(&layout.keystore(), passphrase, cost).map_err(|error| unfit(&error))?;
    let keystore = Keystore::create(&layout.keystore(), vault, &root).map_err(|error| unfit(&error))?;
    let store = RocksStore::create(&layout.data(), RocksOptions::default()).map_err(|error| unfit(&error))?;
    let Contents { trust_domain, trust_anchors, tenants, listen } = contents;
    let head_file = layout.head();
    let clock = start::clock();
    let new = NewVault { store, keystore, head_file, trust_domain, trust_anchors, tenants, clock };
    strongroom_vault::create(new).await.map_err(|error| unfit(&error))?;
    replace(&layout.config(), Config::text(&listen).as_bytes())?;
    Ok(vault)
}

impl Officer {
    /// The SHA-256 of the public key in the officer's certificate, which must name this officer and nobody else.
    fn key_hash(&self, trust_domain: &str) -> Result<[u8; 32], CliError> {
        let path = &self.certificate;
        let pem = std::fs::read(path).map_err(|error| CliError::file(path, error))?;
        let unfit = || CliError::unfit(format!("{} is no certificate in PEM", path.display()));
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| unfit())?;
        let certificate = pem.parse_x509().map_err(|_| unfit())?;
        let names = certificate.subject_alternative_name().map_err(|_| unfit())?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let uris: Vec<&str> =
            names.filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect();
        let wanted = format!("spiffe://{trust_domain}/tenant/{}/officer/{}", self.tenant, self.name);
        if uris != [wanted.as_str()] {
            let has = if uris.is_empty() { "none".to_owned() } else { uris.join(", ") };
            return Err(CliError::Usage(format!(
                "--officer {}/{}: the only URI name of the certificate {} must be {wanted}; it has {has}",
                self.tenant,
                self.name,
                path.display(),
            )));
        }
        Ok(sha256(certificate.public_key().raw))
    }
}

/// What the vault takes as a tenant's name. It says so too, but only after the certificates were looked at.
fn is_tenant_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=64).contains(&name.len()) && name.chars().all(fits) && name != strongroom_vault::SYSTEM
}
