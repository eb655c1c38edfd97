//! `strongroom dev`: a vault in a folder, nothing to set up.

use std::path::Path;
use std::sync::Arc;

use clap::Parser;
use strongroom_access::{Principal, Role};
use strongroom_keys::{ArgonCost, PassphraseRoot};
use strongroom_vault::{ApplySchema, Caller, NewTenant};
use zeroize::Zeroizing;

use super::config::Config;
use super::layout::Layout;
use super::make::{Contents, create, in_place, is_empty};
use super::output::{CliError, Exit, say};
use super::passphrase;
use super::pki::{Authority, write_private};
use super::shell::quoted;
use super::start::{self, Begun, Opened, Sockets};

const TRUST_DOMAIN: &str = "strongroom.local";
const TENANT: &str = "demo";
/// The worked example that a vault for development starts with.
pub const LENDING: &str = include_str!("../../deploy/schemas/lending.toml");

/// The principals of a vault for development: file name, path of the SPIFFE id.
const PRINCIPALS: [(&str, &str); 7] = [
    ("app", "tenant/demo/app/app"),
    ("rotator", "tenant/demo/rotator/rotator"),
    ("auditor", "tenant/demo/auditor/auditor"),
    ("privacy", "tenant/demo/privacy/privacy"),
    ("officer-1", "tenant/demo/officer/officer-1"),
    ("officer-2", "tenant/demo/officer/officer-2"),
    ("operator", "system/operator/operator"),
];

/// Run a vault to try things with, in ./.strongroom (or --dir): makes it, if there is none, and serves it.
///
/// It comes with its own certificate authority, certificates for each role in pki/, and the lending schema. Its
/// passphrase lies beside it: this is no vault for real data.
#[derive(Debug, Parser)]
pub struct Args {
    /// Where to answer; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7443", value_name = "ADDRESS")]
    listen: String,
}

/// Makes the vault if there is none, and serves it.
pub async fn run(args: Args, dir: &Path) -> Result<Exit, CliError> {
    let layout = Layout::new(dir);
    let made = !layout.dir().exists() || is_empty(layout.dir())?;
    if made {
        make(&layout).await?;
    }
    // All that can fail comes first: an open vault must be closed in good order.
    let config = config(&layout)?;
    start::tls(&layout, &config)?;
    let sockets = Sockets::bind(&args.listen, &config).await?;
    let (opened, config) = open(&layout).await?;
    let (address, told) = sockets.told()?;
    let stop = start::asked_to_end();
    let how = if made { "made" } else { "opened" };
    say(format!("{told}\nA vault for development was {how} in {}.\n", dir.display()).as_bytes())?;
    say(what_to_try(dir, &address.to_string()).as_bytes())?;
    start::serve(Begun::Open(opened), &layout, sockets, &config, stop).await?;
    Ok(Exit::Done)
}

/// Makes a vault for development.
pub async fn make(layout: &Layout) -> Result<(), CliError> {
    in_place(layout, async |layout| {
        let pki = layout.pki();
        std::fs::create_dir(&pki).map_err(|error| CliError::file(&pki, error))?;
        let authority = Authority::new("Strongroom development authority")?;
        write_private(&pki.join("ca.pem"), authority.pem().as_bytes())?;
        authority.server(&["localhost", "127.0.0.1", "::1"])?.write(&pki, "server")?;
        let mut officers = Vec::new();
        for (name, path) in PRINCIPALS {
            let pair = authority.client(name, &format!("spiffe://{TRUST_DOMAIN}/{path}"))?;
            pair.write(&pki, name)?;
            if path.contains("/officer/") {
                officers.push((name.to_owned(), pair.spki_sha256));
            }
        }
        let random = strongroom_keys::random::<24>().map_err(|error| CliError::unfit(error.to_string()))?;
        let text = Zeroizing::new(data_encoding::BASE64URL_NOPAD.encode(&*Zeroizing::new(random)));
        write_private(&layout.dev_passphrase(), text.as_bytes())?;
        let root = root(layout)?;
        let tenants = vec![NewTenant { name: TENANT.to_owned(), officers }];
        let new = Contents {
            trust_domain: TRUST_DOMAIN.to_owned(),
            trust_anchors: vec![authority.sha256()],
            tenants,
            listen: "127.0.0.1:7443".to_owned(),
            root_config: String::new(),
        };
        create(layout, &root, new).await
    })
    .await
    .map(drop)
}

/// The root key of a vault for development: the passphrase beside it.
fn root(layout: &Layout) -> Result<PassphraseRoot, CliError> {
    Ok(PassphraseRoot::new(passphrase::from_file(&layout.dev_passphrase())?, ArgonCost::DEFAULT))
}

/// The configuration of a vault for development.
fn config(layout: &Layout) -> Result<Config, CliError> {
    if layout.config().exists() && !layout.dev_passphrase().exists() {
        return Err(CliError::Unfit {
            message: format!("the vault in {} is not one for development", layout.dir().display()),
            next: format!("strongroom serve --dir {}", layout.dir().display()),
        });
    }
    Config::read(layout, None)
}

/// Opens a vault for development, and puts the lending schema in force if there is none yet.
pub async fn open(layout: &Layout) -> Result<(Opened, Config), CliError> {
    let config = config(layout)?;
    let opened = start::open(layout, &config, Arc::new(root(layout)?)).await?;
    let vault = &opened.vault;
    let refused = |error: strongroom_vault::Error| CliError::unfit(error.to_string());
    let tenant =
        vault.directory().tenants.get(TENANT).copied().ok_or_else(|| CliError::unfit("the tenant `demo` is gone"))?;
    let principal = Principal { tenant, name: "officer/officer-1".into(), role: Role::Officer };
    let officer = Caller::new(Arc::new(principal), "local");
    match vault.get_schema(&officer).await {
        Ok(in_force) if in_force.version == 0 => {
            let request = ApplySchema { source: LENDING.to_owned(), dry_run: false };
            vault.apply_schema(&officer, &request).await.map_err(refused)?;
        }
        // Whoever would free space needs the vault to answer.
        Ok(_) | Err(strongroom_vault::Error::DiskFull) => {}
        Err(error) => return Err(refused(error)),
    }
    Ok((opened, config))
}

/// Commands that a shell takes as they stand.
fn what_to_try(dir: &Path, address: &str) -> String {
    let mut options = String::new();
    if dir != Path::new("./.strongroom") {
        // Whoever pastes may stand in another folder.
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        options.push_str(&format!(" --dir {}", quoted(&dir.display().to_string())));
    }
    if address != "127.0.0.1:7443" {
        options.push_str(&format!(" --address https://{address}"));
    }
    let strongroom = command();
    let strongroom = quoted(&strongroom);
    format!(
        r#"Try in another terminal, from this folder:

  TOKEN=$({strongroom} tokenize borrower.id_card 11010519491231002X --subject cust-1{options})
  {strongroom} detokenize "$TOKEN" --purpose loan_servicing{options}
  {strongroom} detokenize "$TOKEN" --purpose loan_servicing --view plain{options}
  {strongroom} match "$TOKEN" 11010519491231002x --purpose kyc_review{options}
  {strongroom} lookup borrower.id_card 11010519491231002X --purpose kyc_review{options}
  {strongroom} audit export -o ledger.jsonl{options}
  {strongroom} audit verify ledger.jsonl
  {strongroom} schema show{options}

Stop with Ctrl-C; what was acknowledged is on disk.
"#
    )
}

/// How this binary can be called: by its name if that finds it, by its path otherwise.
fn command() -> String {
    let Ok(own) = std::env::current_exe() else { return "strongroom".to_owned() };
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path)
            .any(|folder| std::fs::canonicalize(folder.join("strongroom")).ok().as_ref() == Some(&own))
    });
    if found { "strongroom".to_owned() } else { own.display().to_string() }
}
