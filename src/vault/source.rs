//! The rows of schema, policy, freezes, enrolled principals and key changes, which nobody without keys can write.

use serde::Serialize;
use serde::de::DeserializeOwned;
use strongroom_access::Freezes;
use strongroom_ids::TenantNo;
use strongroom_keys::{self as keys, IndexKey};
use strongroom_ledger::Rules;
use strongroom_storage::keys as place;
use strongroom_storage::rows::{LaneHead, TenantRow};
use strongroom_storage::{Family, Mutation, Store, StoreError};
use subtle::ConstantTimeEq;

use crate::error::Error;
use crate::open::{OpenError, SYSTEM_NO};
use crate::values::row_hash;

const FORMAT: u8 = 1;

/// What a [`Source`] is: part of what its MAC covers, so that none can stand in for another.
#[derive(Clone, Copy)]
pub(crate) enum SourceKind {
    Schema,
    Policy,
    Principals,
    /// The last change of a tenant's keys.
    Keys,
    /// The list of copies of the keystore.
    Copies,
    /// A tenant that is being made.
    Making,
    /// The end of a tenant.
    End,
    /// What is frozen and who is suspended.
    Freezes,
    /// What waits for approval.
    Approvals,
    /// When and by whom policies were applied.
    Policies,
    /// The tiers of principals and their limits.
    Tiers,
    /// The second factor of a principal.
    SecondFactor,
    /// The newest checkpoint that enough witnesses have cosigned.
    Witnessed,
    /// Whether the clock is believed.
    Clock,
}

impl SourceKind {
    fn name(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Policy => "policy",
            Self::Principals => "principals",
            Self::Keys => "keys",
            Self::Copies => "copies",
            Self::Making => "making",
            Self::End => "end",
            Self::Freezes => "freezes",
            Self::Approvals => "approvals",
            Self::Policies => "policies",
            Self::Tiers => "tiers",
            Self::SecondFactor => "second factor",
            Self::Witnessed => "witnessed",
            Self::Clock => "clock",
        }
    }

    fn place(self) -> &'static str {
        match self {
            Self::Schema | Self::Policy | Self::Principals => "the rules in force",
            Self::Freezes => "the freezes in force",
            Self::Tiers => "the tiers in force",
            Self::Approvals => "what waits for approval",
            Self::Policies => "when policies were applied",
            Self::SecondFactor => "a second factor",
            Self::Witnessed => "the newest witnessed checkpoint",
            Self::Keys => "the last change of keys",
            Self::Copies => "the list of copies of the keystore",
            Self::Making => "the tenant in the making",
            Self::End => "the end of a tenant",
            Self::Clock => "whether the clock is believed",
        }
    }
}

/// The row of a schema, of policies, of freezes, of the enrolled principals, or of the last change of keys: format
/// byte, salt (16), version (4, big-endian), version of the tenant's fingerprint key (4), HMAC-SHA256 under that key
/// (32), text.
///
/// The MAC is what keeps whoever controls the files, and not the keys, from writing rules of their own.
#[derive(Clone)]
pub(crate) struct Source {
    pub salt: [u8; 16],
    pub version: u32,
    pub body: String,
}

impl Source {
    /// The row, with a fresh salt.
    pub fn new(version: u32, body: String) -> Result<Self, Error> {
        Ok(Self { salt: keys::random()?, version, body })
    }

    /// The bytes to be stored. `key` is the tenant's fingerprint key.
    pub fn encode(&self, kind: SourceKind, key: &IndexKey) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(&key.version().0.to_be_bytes());
        bytes.extend_from_slice(&self.mac(kind, key));
        bytes.extend_from_slice(self.body.as_bytes());
        bytes
    }

    /// Reads a row, if this vault wrote it.
    pub fn decode(bytes: &[u8], kind: SourceKind, key: &IndexKey) -> Result<Self, StoreError> {
        let (source, version, mac) = Self::parse(bytes)?;
        // Only the newest key is at hand; its rotation will write these rows anew.
        if version != key.version().0 || !bool::from(source.mac(kind, key).ct_eq(&mac)) {
            let what = format!("the {} is not one that this vault wrote", kind.name());
            return Err(StoreError::Corrupt { place: kind.place(), what });
        }
        Ok(source)
    }

    /// What a row holds as JSON; `None` if there is no such row.
    pub async fn load<S: Store, T: DeserializeOwned>(
        store: &S,
        at: Vec<u8>,
        kind: SourceKind,
        key: &IndexKey,
    ) -> Result<Option<T>, Error> {
        let Some(row) = store.get(Family::Meta, at).await? else { return Ok(None) };
        let source = Self::decode(&row, kind, key)?;
        serde_json::from_str(&source.body).map(Some).map_err(|_| Error::DataLoss(kind.place()))
    }

    /// Writes a row that [`Source::load`] reads.
    pub fn put<T: Serialize>(held: &T, at: Vec<u8>, kind: SourceKind, key: &IndexKey) -> Result<Mutation, Error> {
        let body = serde_json::to_string(held).map_err(|_| Error::Internal("a row that is not text"))?;
        Ok(Mutation::Put(Family::Meta, at, Self::new(1, body)?.encode(kind, key)))
    }

    /// Reads a row's version, whoever wrote it.
    pub fn claimed_version(bytes: &[u8]) -> Option<u32> {
        Self::parse(bytes).ok().map(|(source, ..)| source.version)
    }

    fn parse(bytes: &[u8]) -> Result<(Self, u32, [u8; 32]), StoreError> {
        let corrupt = |what: &str| StoreError::Corrupt { place: "the rules in force", what: what.to_owned() };
        let (&format, rest) = bytes.split_first().ok_or_else(|| corrupt("empty"))?;
        if format != FORMAT {
            return Err(corrupt("unknown format"));
        }
        let short = || corrupt("too short");
        let (salt, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (key, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (mac, body) = rest.split_first_chunk::<32>().ok_or_else(short)?;
        let body = std::str::from_utf8(body).map_err(|_| corrupt("not UTF-8"))?.to_owned();
        let source = Self { salt: *salt, version: u32::from_be_bytes(*version), body };
        Ok((source, u32::from_be_bytes(*key), *mac))
    }

    fn mac(&self, kind: SourceKind, key: &IndexKey) -> [u8; 32] {
        key.mac(&[b"rules", kind.name().as_bytes(), &self.salt, &self.version.to_be_bytes(), self.body.as_bytes()])
    }
}

/// Whether a tenant's policy, schema, freezes and tiers, and the principals, are those that its log has in force. A MAC says that this vault wrote
/// a row, and not that it is the newest: an older one that was put back has one, too. `lane` is the log's head, which
/// the head file vouches for.
pub(crate) async fn as_recorded<S: Store>(store: &S, tenant: &TenantRow, lane: &LaneHead) -> Result<(), OpenError> {
    let rules = Rules::from_bytes(&lane.rules).map_err(|_| Error::DataLoss("the head of a log"))?;
    in_force(store, (tenant.number, &tenant.name), &rules).await
}

/// The same for a tenant, by number and name, of a vault that runs.
pub(crate) async fn in_force<S: Store>(
    store: &S,
    (number, name): (TenantNo, &str),
    rules: &Rules,
) -> Result<(), OpenError> {
    let rows = [
        ("policy", place::policy(number), rules.policy),
        ("schema", place::schema(number), rules.schema),
        ("list of freezes", place::freezes(number), rules.freezes),
        ("list of tiers", place::tiers(number), rules.tiers),
    ];
    // One row for all tenants, for which the vault's own log answers.
    let principals = ("list of officers and authorities", place::principals(), rules.principals);
    for (what, key, recorded) in rows.into_iter().chain((number == SYSTEM_NO).then_some(principals)) {
        let row = store.get(Family::Meta, key).await?;
        let stored = match &row {
            None if recorded.version == 0 => continue,
            None => "missing".to_owned(),
            Some(row) if (Source::claimed_version(row), row_hash(row)) == (Some(recorded.version), recorded.hash) => {
                continue;
            }
            Some(row) => match Source::claimed_version(row) {
                Some(version) if version != recorded.version => format!("version {version}"),
                _ => "another text".to_owned(),
            },
        };
        let (tenant, recorded) = (name.to_owned(), recorded.version);
        return Err(OpenError::Rules { tenant, what, stored, recorded });
    }
    Ok(())
}

/// What a tenant has frozen, read without its keys: while it is locked nothing proves its row but the hash in its log.
pub(crate) async fn logged_freezes<S: Store>(store: &S, number: TenantNo, rules: &Rules) -> Result<Freezes, Error> {
    const DAMAGED: Error = Error::DataLoss("the freezes in force");
    let recorded = rules.freezes;
    match store.get(Family::Meta, place::freezes(number)).await? {
        None if recorded.version == 0 => Ok(Freezes::default()),
        Some(row) if row_hash(&row) == recorded.hash => {
            let (source, ..) = Source::parse(&row)?;
            Freezes::from_stored(&source.body).map_err(|_| DAMAGED)
        }
        _ => Err(DAMAGED),
    }
}
