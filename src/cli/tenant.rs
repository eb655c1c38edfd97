//! `strongroom tenant`: makes tenants while the vault runs, lists them, and destroys them.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};
use strongroom_ledger::receipt;
use strongroom_proto::v1::{
    CreateTenantRequest, DestroyTenantRequest, DestroyTenantResponse, ListTenantsRequest, Tenant,
};

use super::audit::{read, read_keys};
use super::client::{Context, Global};
use super::files::replace;
use super::keys::life_after;
use super::output::{CliError, Exit, Output, facts, instant, table};

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "operator";

/// Make tenants, list them, destroy them.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Make a tenant. It serves at once: its officers can apply a schema, its services connect.
    #[command(after_help = "Example:
  strongroom tenant create savings --officer carol.pem --officer dave.pem

Each certificate names its officer by one URI: spiffe://TRUST-DOMAIN/tenant/NAME/officer/OFFICER. From then on an
officer is who holds that key. A tenant's name is never given to another one, also after it was destroyed.")]
    Create {
        /// Its name: 1 to 64 lower-case letters, digits and hyphens.
        name: String,

        /// The certificate of an officer, PEM. At least one, and two to change policies.
        #[arg(long = "officer", value_name = "CERT.pem", required = true)]
        officers: Vec<PathBuf>,
    },
    /// Show all tenants, those that were destroyed too.
    List,
    /// Destroy a tenant with all its keys. Final.
    #[command(after_help = "Examples:
  strongroom tenant destroy savings --dry-run                 what would become unreadable
  strongroom tenant destroy savings --receipt savings.receipt

Asks for the name again, unless --yes is given. Nothing of the tenant can be read or written from then on; its ledger
stays, for operators: strongroom audit export --log savings --as operator. Copies of the keystore that hold its keys
are named: destroy them, then strongroom keys copies strike COPY.")]
    Destroy {
        /// Its name.
        name: String,

        /// Change nothing, only say what would become unreadable.
        #[arg(long)]
        dry_run: bool,

        /// Do not ask.
        #[arg(long)]
        yes: bool,

        /// Write the signed receipt here, too.
        #[arg(long, value_name = "OUT", conflicts_with = "dry_run")]
        receipt: Option<PathBuf>,
    },
    /// Print the signed receipt of a destroyed tenant.
    Receipt {
        /// Its name.
        name: String,
    },
    /// Verify a receipt offline.
    #[command(after_help = "Example:
  strongroom audit key --log system --as operator > system.key       once, and kept elsewhere
  strongroom tenant verify savings.receipt --log-key system.key")]
    Verify {
        /// The receipt.
        receipt: PathBuf,

        /// The public keys of the ledger `system`, one a line.
        #[arg(long, value_name = "FILE")]
        log_key: PathBuf,
    },
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let context = || global.context(PRINCIPAL);
    match args.command {
        Command::Create { name, officers } => create(name, &officers, &context()?).await,
        Command::List => list(&context()?).await,
        Command::Destroy { name, dry_run, yes, receipt } => {
            destroy(name, (dry_run, yes), receipt.as_deref(), &context()?).await
        }
        Command::Receipt { name } => show_receipt(&name, &context()?).await,
        Command::Verify { receipt, log_key } => verify(&receipt, &log_key, global.output),
    }
}

async fn create(name: String, officers: &[PathBuf], context: &Context) -> Result<Exit, CliError> {
    let officer_certificates = officers.iter().map(|path| certificate(path)).collect::<Result<_, _>>()?;
    let request = CreateTenantRequest { name, officer_certificates };
    let made = context.system().await?.create_tenant(request).await?.into_inner();
    context.output.show(
        || document(&made),
        || {
            format!(
                "{}\nNext: an officer brings the schema: strongroom schema apply FILE",
                facts([("tenant", made.name.clone()), ("number", made.number.to_string()), ("id", made.id.clone())])
            )
        },
    )?;
    Ok(Exit::Done)
}

/// The one certificate in a PEM file, as DER.
fn certificate(path: &Path) -> Result<bytes::Bytes, CliError> {
    let pem = std::fs::read(path).map_err(|error| CliError::file(path, error))?;
    let unfit = || CliError::unfit(format!("{} is no certificate in PEM", path.display()));
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| unfit())?;
    pem.parse_x509().map_err(|_| unfit())?;
    Ok(pem.contents.into())
}

async fn tenants(context: &Context) -> Result<Vec<Tenant>, CliError> {
    Ok(context.system().await?.list_tenants(ListTenantsRequest {}).await?.into_inner().tenants)
}

async fn list(context: &Context) -> Result<Exit, CliError> {
    let tenants = tenants(context).await?;
    context.output.show(
        || json!({ "tenants": tenants.iter().map(document).collect::<Vec<_>>() }),
        || {
            let rows = tenants.iter().map(|tenant| {
                vec![
                    tenant.name.clone(),
                    tenant.number.to_string(),
                    tenant.state.clone(),
                    instant(tenant.create_time.as_ref()),
                    instant(tenant.destroy_time.as_ref()),
                    life_after(tenant.destroy_time.is_some(), &tenant.copies),
                ]
            });
            table(&["TENANT", "NUMBER", "STATE", "MADE", "DESTROYED", "LIVES ON IN"], rows)
        },
    )?;
    Ok(Exit::Done)
}

async fn destroy(
    name: String,
    (dry_run, yes): (bool, bool),
    out: Option<&Path>,
    context: &Context,
) -> Result<Exit, CliError> {
    let mut system = context.system().await?;
    if !dry_run && !yes {
        let request = DestroyTenantRequest { name: name.clone(), dry_run: true };
        let loss = system.destroy_tenant(request).await?.into_inner();
        agreed(&name, &loss)?;
    }
    let request = DestroyTenantRequest { name: name.clone(), dry_run };
    let loss = system.destroy_tenant(request).await?.into_inner();
    let written = out.map_or(Ok(()), |out| replace(out, loss.receipt.as_bytes()));
    context.output.show(
        || {
            json!({
                "name": name,
                "destroyed": !dry_run,
                // Numbers of 64 bits are strings, as in the ledger.
                "values": loss.values.to_string(),
                "subjects": loss.subjects.to_string(),
                "key_versions": loss.key_versions.to_string(),
                "copies": loss.copies,
                "receipt": loss.receipt,
            })
        },
        || match dry_run {
            true => format!("would become unreadable:\n{}", lost(&loss)),
            false => format!("{name} is destroyed\n{}\n\n{}", lost(&loss), loss.receipt),
        },
    )?;
    // What was done is told first: it can't be done again.
    written.map_err(|error| CliError::Unfit {
        message: format!("{name} is destroyed, but its receipt could not be written: {error}"),
        next: format!("strongroom tenant receipt {name}"),
    })?;
    Ok(Exit::Done)
}

fn lost(loss: &DestroyTenantResponse) -> String {
    let copies = match loss.copies.is_empty() {
        true => "none hold its keys".to_owned(),
        false => format!("{} hold its keys: destroy them, then strike them off", loss.copies.join(" ")),
    };
    facts([
        ("values", loss.values.to_string()),
        ("subjects", loss.subjects.to_string()),
        ("key versions", loss.key_versions.to_string()),
        ("keystore copies", copies),
    ])
}

/// Has the name typed again by somebody who was told what goes with it.
fn agreed(name: &str, loss: &DestroyTenantResponse) -> Result<(), CliError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(CliError::Usage("nobody can be asked here: add --yes if this is meant".to_owned()));
    }
    let mut told = std::io::stderr();
    let asked = write!(told, "{}\nThis is final. Type the tenant's name to destroy it: ", lost(loss));
    let mut typed = String::new();
    let heard = asked.and_then(|()| told.flush()).and_then(|()| stdin.lock().read_line(&mut typed));
    heard.map_err(|error| CliError::file("the terminal", error))?;
    match typed.trim() == name {
        true => Ok(()),
        false => Err(CliError::unfit("that is not its name; nothing was destroyed".to_owned())),
    }
}

async fn show_receipt(name: &str, context: &Context) -> Result<Exit, CliError> {
    let tenant = tenants(context).await?.into_iter().find(|tenant| tenant.name == name && !tenant.receipt.is_empty());
    let Some(tenant) = tenant else {
        return Err(CliError::Unfit {
            message: "no tenant of that name was destroyed, or its keys are not destroyed yet".into(),
            next: "strongroom tenant list".into(),
        });
    };
    context.output.show(|| json!({ "receipt": tenant.receipt }), || tenant.receipt.clone())?;
    Ok(Exit::Done)
}

fn verify(path: &Path, key: &Path, output: Output) -> Result<Exit, CliError> {
    let (note, keys) = (read(path)?, read_keys(key)?);
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let told = receipt::verify(&note, &keys).map_err(|error| CliError::Unfit {
        message: format!("{} does not hold: {error}", path.display()),
        next: "the keys of the ledger `system` of the vault that signed it".into(),
    })?;
    let root = data_encoding::HEXLOWER.encode(&told.log.root);
    output.show(
        || {
            json!({
                "verified": true,
                "tenant": told.name,
                "number": told.tenant.0,
                "tenant_id": told.id.to_string(),
                "time": told.time.to_string(),
                "leaf": told.leaf.to_string(),
                "log": { "origin": told.log.origin, "leaves": told.log.size.to_string(), "root": root },
                "ended": { "origin": told.ended.origin, "leaves": told.ended.size.to_string() },
                "keys": told.keys.iter().map(|(name, versions)| json!({ "name": name, "versions": versions })).collect::<Vec<_>>(),
                "copies": told.copies,
            })
        },
        || {
            let keys = told.keys.iter().map(|(name, versions)| format!("{name} ({versions})"));
            facts([
                ("verified", "signed by the key of the ledger `system`, and unchanged".to_owned()),
                ("tenant", told.name.clone()),
                ("destroyed", told.time.to_string()),
                ("leaf", format!("{} of {}, root {root}", told.leaf, told.log.origin)),
                ("its ledger", format!("{} leaves of {}", told.ended.size, told.ended.origin)),
                ("keys", keys.collect::<Vec<_>>().join(", ")),
                ("lives on in", if told.copies.is_empty() { "no copy".to_owned() } else { told.copies.join(" ") }),
            ])
        },
    )?;
    Ok(Exit::Done)
}

fn document(tenant: &Tenant) -> Value {
    let time = |time: &Option<prost_types::Timestamp>| time.as_ref().map(|time| instant(Some(time)));
    json!({
        "name": tenant.name,
        "number": tenant.number,
        "id": tenant.id,
        "state": tenant.state,
        "create_time": instant(tenant.create_time.as_ref()),
        "destroy_time": time(&tenant.destroy_time),
        "copies": tenant.copies,
        "death_time": time(&tenant.death_time),
        "receipt": tenant.receipt,
    })
}
