//! `strongroom init`: makes a vault, with its first officers enrolled.

use std::path::{Path, PathBuf};

use clap::Parser;
use strongroom_keys::RootKind;
use strongroom_vault::{NewTenant, OpenError, is_tenant_name};
use x509_parser::extensions::GeneralName;

use super::layout::Layout;
use super::make::{self, Contents};
use super::output::{CliError, Exit, Output, facts};
use super::passphrase::PassphraseArgs;
use super::root::{MadeRoot, NewRoot, NewRootArgs, WrittenShares};

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
  strongroom init ... --root shamir --shares 5 --threshold 3 --shares-to DIR
  strongroom init ... --root openbao --root-config openbao.toml

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

    /// An officer of a tenant, with its certificate. Each tenant needs one at least, and two to change
    /// policies: one approves what the other asks for. Three are better.
    #[arg(long = "officer", value_name = "TENANT/NAME=CERT.pem", required = true, value_parser = parse_officer)]
    officers: Vec<Officer>,

    /// Where the vault will answer.
    #[arg(long, default_value = "127.0.0.1:7443", value_name = "ADDRESS")]
    listen: String,

    /// What keeps the root key: a passphrase (`file`), shares of which some are needed (`shamir`), or a key outside of the
    /// process, which --root-config describes.
    #[arg(long, value_enum, default_value_t = NewRoot::File, value_name = "KIND")]
    root: NewRoot,

    #[command(flatten)]
    passphrase: PassphraseArgs,

    #[command(flatten)]
    new_root: NewRootArgs,
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
    // The vault says so too, but only after the certificates were looked at.
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
    let trust_anchors = strongroom_server::authorities(&authorities)
        .map_err(|error| CliError::unfit(format!("{}: {error}", args.client_ca.display())))?;
    let layout = Layout::new(dir);
    if layout.dir().exists() && !make::is_empty(layout.dir())? {
        return Err(CliError::unfit(format!(
            "{} exists already and is not empty; a new vault gets a folder of its own",
            dir.display()
        )));
    }
    let root_config = match args.new_root.outside.own_config() {
        Some(path) => std::fs::read_to_string(path).map_err(|error| CliError::file(path, error))?,
        None => String::new(),
    };
    let MadeRoot { provider, shares } = args.root.make(|| args.passphrase.choose(), &args.new_root, None)?;
    let vault = make::in_place(&layout, async |layout| {
        let Args { trust_domain, listen, .. } = args;
        let new = Contents { trust_domain, trust_anchors, tenants, listen, root_config };
        make::create(layout, &*provider, new).await
    })
    .await?;
    let kind = provider.kind();
    drop(provider);
    let shares = shares.map_or_else(Vec::new, WrittenShares::keep);
    let config = layout.config();
    output.show(
        || serde_json::json!({ "vault_id": vault.to_string(), "dir": dir, "config": config, "shares": shares }),
        || {
            format!(
                "{}\nNext: put the vault's certificate, its key and the authority of its callers where\n{} says, \
                 then: strongroom serve --dir {}\n\
                 {}, and keep copies of {} apart from copies of {}.",
                facts(
                    [("vault", vault.to_string()), ("folder", dir.display().to_string())]
                        .into_iter()
                        .chain(shares.iter().map(|path| ("share", path.display().to_string())))
                ),
                config.display(),
                dir.display(),
                match kind {
                    RootKind::Passphrase => "Keep the passphrase",
                    RootKind::Shamir => "Hand each share to a person of its own, leave none here",
                    _ => "See that nobody deletes the root key",
                },
                layout.keystore().display(),
                layout.data().display(),
            )
        },
    )?;
    Ok(Exit::Done)
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
        strongroom_server::officer_key(&pem.contents, trust_domain, &self.tenant, &self.name).ok_or_else(|| {
            CliError::unfit(format!(
                "the certificate {} names something that can't be read, or its key can't approve: an officer's is ECDSA on \
                 P-256 or P-384, or Ed25519",
                path.display()
            ))
        })
    }
}
