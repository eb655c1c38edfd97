//! What anybody may read over HTTPS: the table `[tiles]` of the configuration.

use serde::Deserialize;
use strongroom_server::Logs;
use strongroom_vault::{SYSTEM, is_tenant_name};

/// The table `[tiles]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tiles {
    /// Address and port.
    pub listen: String,
    /// The logs that are published, and no others.
    logs: Vec<Log>,
}

/// A log that is published.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Log {
    /// Under its tenant's name.
    Named(String),
    /// Under another name.
    Renamed(Renamed),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Renamed {
    /// Whose log.
    tenant: String,
    /// What stands in paths instead of that name.
    name: String,
}

impl Tiles {
    /// Tenants by the names that their logs have in paths, or what is wrong with one of them.
    pub fn logs(&self) -> Result<Logs, String> {
        let mut logs = Logs::new();
        for log in &self.logs {
            let (tenant, name) = match log {
                Log::Named(tenant) => (tenant, tenant),
                Log::Renamed(Renamed { tenant, name }) => (tenant, name),
            };
            if [tenant, name].into_iter().any(|name| name != SYSTEM && !is_tenant_name(name)) {
                return Err(format!(
                    "[tiles] logs: \"{tenant}\" under the name \"{name}\": give names of tenants, or `{SYSTEM}`, and names of \
                     1 to 64 lower-case letters, digits and hyphens"
                ));
            }
            if logs.insert(name.clone(), tenant.clone()).is_some() {
                return Err(format!("[tiles] logs: two logs have the name \"{name}\": give each its own"));
            }
        }
        if logs.is_empty() {
            return Err("[tiles] logs = []: name the logs to be published, or remove the table".to_owned());
        }
        Ok(logs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(list: &str) -> Result<Logs, String> {
        let tiles: Tiles =
            toml::from_str(&format!("listen = \"127.0.0.1:0\"\nlogs = {list}")).map_err(|error| error.to_string())?;
        tiles.logs()
    }

    #[test]
    fn logs_are_published_under_their_tenants_names_or_others() {
        let logs = logs(r#"["lending", "system", { tenant = "retail", name = "l1" }]"#).unwrap();
        let logs: Vec<(&str, &str)> = logs.iter().map(|(name, tenant)| (name.as_str(), tenant.as_str())).collect();
        assert_eq!(logs, [("l1", "retail"), ("lending", "lending"), ("system", "system")]);
    }

    #[test]
    fn a_name_that_is_no_name_or_is_there_twice_is_refused() {
        for list in [
            "[]",
            r#"["Lending"]"#,
            r#"["a/b"]"#,
            r#"[""]"#,
            r#"["lending", "lending"]"#,
            r#"["lending", { tenant = "retail", name = "lending" }]"#,
            r#"[{ tenant = "retail" }]"#,
            r#"[{ tenant = "retail", name = "l/1" }]"#,
            r#"[{ tenant = "retail", name = "l1", entries = true }]"#,
        ] {
            assert!(logs(list).is_err(), "{list}");
        }
    }
}
