//! Who vouches for the people behind services: the list `[[actors.issuers]]` of the configuration, and `strongroom status`
//! on them.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use serde::Deserialize;
use serde_json::json;
use strongroom_proto::v1::StatusResponse;
use strongroom_server::{self as server, IssuerRules, KEYS_BYTES, ReadKeys};

use super::layout::Layout;
use super::output::instant;

/// The table `[actors]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actors {
    /// The issuers.
    #[serde(default)]
    issuers: Vec<Issuer>,
}

/// Somebody who vouches for people.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Issuer {
    /// What the ledger calls it.
    name: String,
    /// The `iss` of its tokens.
    issuer: String,
    /// What must stand in their `aud`.
    audience: String,
    /// Its public keys, a JSON Web Key Set.
    jwks: PathBuf,
    /// For people of which tenants it speaks.
    tenants: Vec<String>,
    /// The claim that holds a person's tenant.
    #[serde(default)]
    tenant_claim: Option<String>,
    /// The algorithms that its tokens may be signed by.
    #[serde(default = "elliptic")]
    algorithms: Vec<String>,
    /// The claim that holds a person's role.
    #[serde(default = "role")]
    role_claim: String,
    /// The claim that holds a person's labels.
    #[serde(default = "labels")]
    labels_claim: String,
    /// How far clocks may differ, in seconds.
    #[serde(default = "leeway")]
    leeway_seconds: u64,
    /// How long a token may live, in seconds.
    #[serde(default = "lifetime")]
    max_lifetime_seconds: u64,
}

fn elliptic() -> Vec<String> {
    vec!["ES256".to_owned(), "EdDSA".to_owned()]
}

fn role() -> String {
    "role".to_owned()
}

fn labels() -> String {
    "labels".to_owned()
}

fn leeway() -> u64 {
    5
}

fn lifetime() -> u64 {
    3_600
}

impl Actors {
    /// The issuers, each with where its keys are read, or what is wrong with one of them.
    pub fn issuers(&self, layout: &Layout) -> Result<server::Actors, String> {
        let issuer = |one: &Issuer| {
            let path = layout.dir().join(&one.jwks);
            let read: ReadKeys = Arc::new(move || read(&path));
            (one.rules(), read)
        };
        server::Actors::new(self.issuers.iter().map(issuer)).map_err(|why| format!("[[actors.issuers]] {why}"))
    }

    /// Sees that the list can be used, wherever the keys are: nothing is read.
    pub fn check(&self) -> Result<(), String> {
        self.issuers(&Layout::new(Path::new(""))).map(drop)
    }
}

impl Issuer {
    fn rules(&self) -> IssuerRules {
        let one = self.clone();
        IssuerRules {
            name: one.name,
            issuer: one.issuer,
            audience: one.audience,
            algorithms: one.algorithms,
            role_claim: one.role_claim,
            labels_claim: one.labels_claim,
            leeway_seconds: one.leeway_seconds,
            max_lifetime_seconds: one.max_lifetime_seconds,
            tenants: one.tenants,
            tenant_claim: one.tenant_claim,
        }
    }
}

/// A file of keys, and one byte more than it may have at most. What is no file, such as a pipe to which nobody writes, is not
/// waited for.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("{}: it is no regular file", path.display()));
    }
    let mut bytes = Vec::new();
    file.take(KEYS_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// What `strongroom status` says of them, as JSON.
pub fn documents(status: &StatusResponse) -> serde_json::Value {
    let issuers = status.actor_issuers.iter().map(|issuer| {
        json!({
            "name": issuer.name,
            "keys": issuer.keys,
            "reload_time": issuer.reload_time.as_ref().map(|at| instant(Some(at))),
            "problem": issuer.problem,
        })
    });
    issuers.collect()
}

/// The same as rows of a table.
pub fn facts(status: &StatusResponse) -> Vec<(&'static str, String)> {
    let row = |issuer: &strongroom_proto::v1::ActorIssuerStatus| {
        let problem =
            if issuer.problem.is_empty() { String::new() } else { format!("; not taken: {}", issuer.problem) };
        ("actors", format!("{}: {} keys{problem}", issuer.name, issuer.keys))
    };
    status.actor_issuers.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[issuers]]\nname = \"hr\"\nissuer = \"https://login.bank.example\"\naudience = \"strongroom\"\n\
                        jwks = \"pki/login.jwks\"\ntenants = [\"retail\"]\n";

    fn checked(text: &str) -> Result<(), String> {
        toml::from_str::<Actors>(text).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn an_issuer_has_what_goes_without_saying() {
        checked("").unwrap();
        checked(GOOD).unwrap();
        let actors: Actors = toml::from_str(GOOD).unwrap();
        let rules = actors.issuers[0].rules();
        assert_eq!(rules.algorithms, ["ES256", "EdDSA"]);
        assert_eq!((rules.leeway_seconds, rules.max_lifetime_seconds), (5, 3_600));
        assert_eq!((rules.role_claim.as_str(), rules.labels_claim.as_str()), ("role", "labels"));
    }

    #[test]
    fn what_would_let_anybody_be_anybody_is_refused() {
        for (more, named) in [
            ("algorithms = [\"none\"]", "ES384"),
            ("algorithms = [\"ES256\", \"HS256\"]", "can't make"),
            ("algorithms = []", "must not be empty"),
            ("leeway_seconds = 61", "at most 60"),
            ("max_lifetime_seconds = 0", "86400"),
            ("max_lifetime_seconds = 86401", "86400"),
            ("role_claim = \"\"", "must not be empty"),
            ("rolle = \"x\"", "unknown field"),
            ("tenant_claim = \"\"", "must not be empty"),
        ] {
            let why = checked(&format!("{GOOD}{more}\n")).unwrap_err();
            assert!(why.contains(named), "{more}: {why}");
        }
        for (from, to, named) in [
            ("name = \"hr\"", "name = \"h/r\"", "`name`"),
            ("name = \"hr\"", "name = \"\"", "`name`"),
            ("[\"retail\"]", "[]", "`tenants`"),
            ("[\"retail\"]", "[\"*\"]", "`tenant_claim`"),
            ("[\"retail\"]", "[\"retail\", \"corporate\"]", "`tenant_claim`"),
            ("\"strongroom\"", "\"\"", "must not be empty"),
        ] {
            let why = checked(&GOOD.replace(from, to)).unwrap_err();
            assert!(why.contains(named), "{to}: {why}");
        }
        checked(&GOOD.replace("[\"retail\"]", "[\"*\"]\ntenant_claim = \"tenant\"")).unwrap();
        let other = GOOD.replace("login.bank", "other.bank");
        assert!(checked(&format!("{GOOD}{other}")).unwrap_err().contains("called `hr`"));
        assert!(checked(&format!("{GOOD}{}", GOOD.replace("\"hr\"", "\"it\""))).unwrap_err().contains("two issuers"));
    }
    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        assert!(read(&path).unwrap_err().contains("keys"));
        std::fs::write(&path, b"{}").unwrap();
        assert_eq!(read(&path).unwrap(), b"{}");
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        for path in [&*path, folder.path()] {
            assert!(read(path).unwrap_err().contains("no regular file"));
        }
    }
}
