//! `strongroom.toml`: where the vault listens, its certificates, its limits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use strongroom_root_aws_kms as aws_kms;
use strongroom_root_openbao as openbao;
use strongroom_root_pkcs11 as pkcs11;
use strongroom_server::NameRules;
use strongroom_vault::{self as vault, Limits};

use super::actors::Actors;
use super::backups_config::Backups;
use super::layout::Layout;
use super::ledger_config::Ledger;
use super::output::CliError;
use super::tiles::Tiles;

/// A vault's configuration. Paths are relative to the vault's folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port.
    pub listen: String,
    /// The certificates.
    pub tls: Tls,
    /// Who vouches for the people behind services.
    #[serde(default)]
    pub actors: Actors,
    /// Whose cosignatures are wanted of the ledgers, and for how long their leaves are kept.
    #[serde(default)]
    pub ledger: Ledger,
    /// Where callers read their ledger over plain HTTPS; nowhere, unless the table is there.
    pub entries: Option<Entries>,
    /// Where the journal of what restricts stands.
    #[serde(default)]
    pub journal: Journal,
    /// What is said of backups.
    #[serde(default)]
    pub backups: Backups,
    /// What anybody may read, without a certificate; nothing, unless the table is there.
    pub tiles: Option<Tiles>,
    /// Limits of requests that are lowered, by their names.
    #[serde(default)]
    limits: BTreeMap<String, usize>,
    /// Memory and connections.
    #[serde(default)]
    pub capacity: Capacity,
    /// What is erased by itself, and how much of it without asking.
    #[serde(default)]
    pub retention: Retention,
    /// Who keeps the root key, where that is somebody outside.
    #[serde(default)]
    pub root: Root,
    /// Who keeps tenants' own keys, by the tenants' names.
    #[serde(default)]
    pub own_keys: OwnKeys,
}

/// The table `[entries]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entries {
    /// Address and port.
    pub listen: String,
}

/// Where the journal of what restricts stands: on another disk than the data, if it is to outlive that one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// Its folder; `journal` in the vault's own, unless it is given.
    folder: Option<PathBuf>,
}

impl Journal {
    /// Its folder.
    pub fn folder(&self, layout: &Layout) -> PathBuf {
        self.folder.as_ref().map_or_else(|| layout.journal(), |folder| layout.dir().join(folder))
    }
}

/// How values that are due by retention are erased.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// How often by itself, in hours; 0: only when somebody asks for it.
    pub every_hours: u32,
    /// The part of a tenant's values that is erased without approval, in percent.
    pub cap_percent: u8,
    /// Values that are erased without approval whatever part they are.
    pub cap_values: u64,
    /// How long the vault may be stopped, in days: a start after longer is a jump of the clock.
    pub longest_stop_days: u32,
}

const HOUR_MICROS: u64 = 3_600_000_000;

impl Default for Retention {
    fn default() -> Self {
        Self { every_hours: 24, cap_percent: 10, cap_values: 1_000, longest_stop_days: 7 }
    }
}

impl Retention {
    /// As the vault has it.
    pub fn of_vault(&self) -> vault::Retention {
        vault::Retention {
            every: (self.every_hours > 0).then_some(u64::from(self.every_hours) * HOUR_MICROS),
            cap_percent: self.cap_percent,
            cap_values: self.cap_values,
            longest_stop: u64::from(self.longest_stop_days) * 24 * HOUR_MICROS,
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        match (self.cap_percent, self.longest_stop_days) {
            (101.., _) => Err("[retention] cap_percent is more than 100: give 0 to 100; 10 is usual"),
            (_, 0) => Err("[retention] longest_stop_days = 0: give 1 or more; 7 is usual"),
            _ => Ok(()),
        }
    }
}

/// Who may keep a tenant's own key, for each tenant that has one with a provider.
pub type OwnKeys = BTreeMap<String, Outside>;

/// Where keys outside of the process are. What is wrapped by one says by which.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outside {
    /// In a token, by PKCS#11.
    pub pkcs11: Option<pkcs11::Settings>,
    /// In AWS KMS.
    #[serde(rename = "aws-kms")]
    pub aws_kms: Option<aws_kms::Settings>,
    /// In OpenBao or HashiCorp Vault.
    pub openbao: Option<openbao::Settings>,
}

/// Where a root key outside of the process is, and how it is watched. The keystore says which of them is in use.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Root {
    /// How often an open vault asks whether it may still have its root key, in seconds.
    pub check_seconds: u64,
    /// How long an open vault goes on when nobody answers, in seconds.
    pub unreachable_seconds: u64,
    /// A token, by PKCS#11.
    pub pkcs11: Option<pkcs11::Settings>,
    /// AWS KMS.
    #[serde(rename = "aws-kms")]
    pub aws_kms: Option<aws_kms::Settings>,
    /// OpenBao or HashiCorp Vault.
    pub openbao: Option<openbao::Settings>,
}

impl Default for Root {
    fn default() -> Self {
        Self { check_seconds: 60, unreachable_seconds: 24 * 3_600, pkcs11: None, aws_kms: None, openbao: None }
    }
}

impl Root {
    /// Reads the table `[root]` of a file that holds nothing else.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            root: Root,
        }
        let text = std::fs::read_to_string(path).map_err(|error| CliError::file(path, error))?;
        let unfit = |why: &dyn std::fmt::Display| CliError::unfit(format!("{}: {why}", path.display()));
        let File { root } = toml::from_str(&text).map_err(|error| unfit(&error))?;
        root.check().map_err(|why| unfit(&why))?;
        Ok(root)
    }

    /// Where it may be.
    pub fn outside(&self) -> Outside {
        Outside { pkcs11: self.pkcs11.clone(), aws_kms: self.aws_kms.clone(), openbao: self.openbao.clone() }
    }

    fn check(&self) -> Result<(), &'static str> {
        match (self.check_seconds, self.unreachable_seconds) {
            (0, _) => Err("[root] check_seconds = 0: give 1 or more; 60 is usual"),
            (check, unreachable) if unreachable < check => Err(
                "[root] unreachable_seconds is less than check_seconds: the first answer that is lost would seal the vault",
            ),
            _ => Ok(()),
        }
    }
}

/// The certificates that the vault shows and accepts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The vault's own chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities whose client certificates are accepted, PEM.
    pub client_ca: PathBuf,
    /// The lists of what they have revoked, PEM or DER.
    #[serde(default)]
    pub crl: Vec<PathBuf>,
    /// Where there are lists, whether who has an issuer without one is refused.
    #[serde(default = "yes")]
    pub require_crl: bool,
    /// How often the files are looked at while the vault runs, in seconds.
    #[serde(default = "one")]
    pub reload_seconds: u64,
    /// Who those services are whose certificates carry no URI.
    #[serde(default)]
    names: Vec<Name>,
}

/// A service that is known by its certificate's common name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    /// The only common name of the certificate's subject, whole.
    cn: String,
    /// The name that it stands for.
    spiffe: String,
}

fn yes() -> bool {
    true
}

fn one() -> u64 {
    1
}

impl Tls {
    /// Who those services are whose certificates carry no URI.
    pub fn names(&self) -> Result<NameRules, String> {
        let rules = self.names.iter().map(|name| (name.cn.clone(), name.spiffe.clone()));
        NameRules::new(rules).map_err(|why| format!("[[tls.names]] {why}"))
    }

    fn check(&self) -> Result<(), String> {
        if self.reload_seconds == 0 {
            return Err("[tls] reload_seconds = 0: give 1 or more; 1 is usual".to_owned());
        }
        self.names().map(drop)
    }
}

/// How much the vault may take at once.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capacity {
    /// Mebibytes of stored blocks kept in memory.
    pub block_cache_mib: usize,
    /// DEKs of hot subjects kept in memory.
    pub hot_deks: usize,
    /// Connections at once.
    pub connections: usize,
    /// Requests in work at once, over all connections.
    pub requests: usize,
    /// Mebibytes on the disk that are set aside: below them only what frees space is done.
    pub disk_reserve_mib: u64,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { block_cache_mib: 256, hot_deks: 100_000, connections: 1_000, requests: 1_024, disk_reserve_mib: 512 }
    }
}

impl Config {
    /// Reads the configuration of a vault's folder, or another file.
    pub fn read(layout: &Layout, file: Option<&Path>) -> Result<Self, CliError> {
        let path = file.map_or_else(|| layout.config(), Path::to_path_buf);
        let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound if file.is_none() && layout.keystore().exists() => CliError::Unfit {
                message: format!(
                    "the vault in {} is unfinished, or its strongroom.toml was removed: there is no {}",
                    layout.dir().display(),
                    path.display()
                ),
                next: "if it was never served: empty the folder, and `strongroom init` again; else put the file back"
                    .into(),
            },
            std::io::ErrorKind::NotFound => CliError::Unfit {
                message: format!("there is no {}", path.display()),
                next: "make a vault with `strongroom init`, or name its folder with --dir; \
                       `strongroom dev` makes one to try things with"
                    .into(),
            },
            _ => CliError::file(&path, error),
        })?;
        Self::parse(&text).map_err(|why| CliError::unfit(format!("{}: {why}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        config.root.check()?;
        config.tls.check()?;
        config.retention.check()?;
        config.actors.check()?;
        config.ledger.witnesses()?;
        config.backups.days()?;
        config.tiles.as_ref().map(Tiles::logs).transpose()?;
        Ok(config)
    }

    /// The limits in force.
    pub fn limits(&self) -> Result<Limits, CliError> {
        let mut limits = Limits::MOST;
        for (name, to) in &self.limits {
            limits.lower(name, *to).map_err(|why| CliError::unfit(format!("[limits] {name} = {to}: {why}")))?;
        }
        Ok(limits)
    }

    /// The text of a new vault's configuration, with that of its table `[root]` if it has one.
    pub fn text(listen: &str, root: &str) -> Result<String, CliError> {
        let text = format!(
            "# Where the vault answers.\nlisten = \"{listen}\"\n\n\
             # Paths are relative to this folder. Certificates that are replaced here come into force\n\
             # while the vault runs; deploy/README.md tells of crl = [\"pki/ca.crl\"] and [[tls.names]].\n\
             [tls]\ncertificate = \"pki/server.pem\"\nkey = \"pki/server.key\"\nclient_ca = \"pki/ca.pem\"\n\n\
             # What restricts is journalled apart from the data: put the folder on another disk, once the vault is stopped.\n\
             # [journal]\n# folder = \"/mnt/other-disk/strongroom-journal\"\n\n\
             # Limits of requests may be lowered here: value, token, subject, idempotency_key, items, message, found.\n\
             # [limits]\n# items = 1000\n\n\
             # [capacity]\n# block_cache_mib = 256\n# hot_deks = 100000\n# connections = 1000\n# requests = 1024\n# disk_reserve_mib = 512\n\n\
             # What is due by retention is erased by itself, and more than this at once only with an officer's approval.\n\
             # [retention]\n# every_hours = 24\n# cap_percent = 10\n# cap_values = 1000\n# longest_stop_days = 7\n\n\
             # For how long leaves of the ledgers are kept in the vault at the least, before they may be archived.\n\
             # [ledger]\n# keep_days = 1096\n\n\
             # For how long a backup is kept: the receipts of erasures say when the last one of before is deleted.\n\
             # [backups]\n# kept = \"35d\"\n\n\
             # Ledgers for tools that read C2SP tlog-tiles, under mutual TLS and policy.\n\
             # [entries]\n# listen = \"0.0.0.0:7445\"\n\n\
             # deploy/README.md lists all tables.\n\n{root}"
        );
        // What stands alone may not stand here: in TOML a name belongs to the table before it.
        Self::parse(&text).map_err(|why| {
            CliError::unfit(format!("this makes no configuration: {why}"))
                .advise("a file of tables: [root.openbao], ...")
        })?;
        Ok(text)
    }
}
