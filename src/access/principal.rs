//! Who asks: a name and a role within one tenant.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use strongroom_ids::TenantNo;

use crate::query::UnknownName;

/// What a principal is for. Its powers are what policies give to the role.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// A service that stores and reads customer data.
    App,
    /// A job that rotates keys.
    Rotator,
    /// Reads the ledger, never a value.
    Auditor,
    /// The privacy desk: answers and erases for data subjects.
    Privacy,
    /// A security officer: schema and policy. Its key is pinned.
    Officer,
    /// Runs the machine.
    Operator,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 6] = [Self::App, Self::Rotator, Self::Auditor, Self::Privacy, Self::Officer, Self::Operator];

    /// The name in certificates, policies and the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Rotator => "rotator",
            Self::Auditor => "auditor",
            Self::Privacy => "privacy",
            Self::Officer => "officer",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == name)
            .ok_or(UnknownName { kind: "role", known: "app, rotator, auditor, privacy, officer, operator" })
    }
}

/// Who asks, as the client certificate says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Principal {
    /// The tenant; zero for the vault's own operators.
    pub tenant: TenantNo,
    /// Role and name as the ledger writes them: `app/loan-core`.
    pub name: Arc<str>,
    /// The role, the same as in the name.
    pub role: Role,
}

impl Principal {
    /// Somebody whom a certificate names and nobody has looked up. It belongs to no tenant but the vault itself, and no
    /// decision may stand on it.
    pub fn unlooked(role: Role, name: &str) -> Self {
        Self { tenant: TenantNo(0), role, name: name.into() }
    }

    /// A principal by its role and the name under it.
    pub fn new(tenant: TenantNo, role: Role, name: &str) -> Self {
        Self { tenant, name: format!("{role}/{name}").into(), role }
    }

    /// The name under the role: `loan-core`.
    pub fn short_name(&self) -> &str {
        self.name.split_once('/').map_or(&self.name, |(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_reads_back_from_its_name() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
        }
    }

    #[test]
    fn a_role_in_capitals_or_with_spaces_is_unknown() {
        for name in ["", "App", "OFFICER", "app ", " app", "root", "app\0"] {
            assert!(name.parse::<Role>().is_err());
        }
    }

    #[test]
    fn a_principal_knows_its_name_with_and_without_the_role() {
        let principal = Principal::new(TenantNo(3), Role::App, "loan-core");
        assert_eq!((&*principal.name, principal.short_name()), ("app/loan-core", "loan-core"));
    }
}
