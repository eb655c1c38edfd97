//! Reads leaves back, and refuses what the vault would have written otherwise.

use std::fmt;
use std::marker::PhantomData;

use data_encoding::HEXLOWER;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use strongroom_ids::{RowId, RowVersion, SubjectHandle};

use super::{LeafHeader, LeafItem, MAX_LINE, write};
use crate::error::LedgerError;
use crate::timestamp::Timestamp;

/// A leaf as it was read.
#[derive(Clone, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParsedLeaf {
    /// Its place in the log, from 0.
    #[serde(deserialize_with = "number")]
    pub index: u64,
    /// When it was committed.
    #[serde(deserialize_with = "time")]
    pub time: Timestamp,
    /// Which part of a large request it is.
    #[serde(default, deserialize_with = "part")]
    pub part: Option<Part>,
    /// The request's number.
    #[serde(deserialize_with = "hex")]
    pub request: [u8; 16],
    /// Who asked.
    pub principal: String,
    /// On whose behalf.
    pub actor: Option<String>,
    /// What was asked for.
    pub action: String,
    /// Why.
    pub purpose: Option<String>,
    /// `allow`, `deny` or `fail`.
    pub decision: String,
    /// The stable word for a refusal.
    pub reason: Option<String>,
    /// Version of the policy that decided.
    pub policy: u32,
    /// Version of the schema.
    pub schema: u32,
    /// Versions of the keys in use.
    #[serde(deserialize_with = "members")]
    pub keys: Vec<(String, u32)>,
    /// The address that the request came from.
    pub client: String,
    /// What else belongs to this action.
    #[serde(default, deserialize_with = "members")]
    pub detail: Vec<(String, String)>,
    /// What became of each item.
    #[serde(default)]
    pub items: Vec<ParsedItem>,
}

/// Part `which` of `of` of a large request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// From 1.
    pub which: u64,
    /// How many there are.
    pub of: u64,
}

/// One item as it was read.
#[derive(Clone, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParsedItem {
    /// The field's full name.
    pub field: Option<String>,
    /// The value's row.
    #[serde(default, deserialize_with = "row")]
    pub row: Option<RowId>,
    /// The view that was shown.
    pub view: Option<String>,
    /// What became of it.
    pub outcome: String,
    /// The data subject.
    #[serde(default, deserialize_with = "subject")]
    pub subject: Option<SubjectHandle>,
    /// Of a write: the row's version.
    #[serde(default, deserialize_with = "version")]
    pub version: Option<RowVersion>,
    /// Of a write: the hash of the row.
    #[serde(default, rename = "sha256", deserialize_with = "some_hex")]
    pub hash: Option<[u8; 32]>,
    /// A keyed hash of what the caller sent and the vault does not know.
    #[serde(default, deserialize_with = "some_hex")]
    pub sent: Option<[u8; 32]>,
}

/// Reads a line (without its newline). It must be what the vault writes, to the byte: written again from what was
/// read, it must come out the same.
pub fn parse(line: &[u8]) -> Result<ParsedLeaf, LedgerError> {
    if line.len() > MAX_LINE {
        return Err(LedgerError::Leaf(format!("it has {} bytes, and at most {MAX_LINE} are allowed", line.len())));
    }
    let leaf: ParsedLeaf = serde_json::from_slice(line).map_err(|error| LedgerError::no_leaf(&error))?;
    let written = leaf.to_line();
    if written != line {
        let same = written.iter().zip(line).take_while(|(one, other)| one == other).count();
        return Err(LedgerError::Leaf(format!("from byte {} on, it is not written as the vault writes it", same + 1)));
    }
    Ok(leaf)
}

impl ParsedLeaf {
    /// What it says under a name in its `detail`.
    pub fn says(&self, name: &str) -> Option<&str> {
        self.detail.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The line as the vault writes it, without newline.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(512);
        write::prefix(&mut line, self.index, self.time);
        if let Some(part) = self.part {
            write::part(&mut line, part.which, part.of);
        }
        let detail: Vec<(&str, &str)> =
            self.detail.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let header = LeafHeader {
            request: &self.request,
            principal: &self.principal,
            actor: self.actor.as_deref(),
            action: &self.action,
            purpose: self.purpose.as_deref(),
            decision: &self.decision,
            reason: self.reason.as_deref(),
            policy: self.policy,
            schema: self.schema,
            keys: &self.keys,
            client: &self.client,
            detail: &detail,
        };
        write::header(&mut line, &header);
        let mut items = Vec::with_capacity(self.items.len().saturating_mul(160));
        for item in &self.items {
            if !items.is_empty() {
                items.push(b',');
            }
            write::item(&mut items, &item.borrow());
        }
        write::items(&mut line, &items);
        line
    }
}

impl ParsedItem {
    fn borrow(&self) -> LeafItem<'_> {
        LeafItem {
            field: self.field.as_deref(),
            row: self.row,
            view: self.view.as_deref(),
            outcome: &self.outcome,
            subject: self.subject,
            version: self.version,
            hash: self.hash.as_ref(),
            sent: self.sent.as_ref(),
        }
    }
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

fn part<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Part>, D::Error> {
    let text = String::deserialize(from)?;
    let (which, of) = text.split_once('/').ok_or_else(|| D::Error::custom("not k/n"))?;
    let number = |text: &str| text.parse().map_err(D::Error::custom);
    Ok(Some(Part { which: number(which)?, of: number(of)? }))
}

fn row<'de, D: Deserializer<'de>>(from: D) -> Result<Option<RowId>, D::Error> {
    number(from).map(|number| Some(RowId(number)))
}

fn subject<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SubjectHandle>, D::Error> {
    number(from).map(|number| Some(SubjectHandle(number)))
}

fn version<'de, D: Deserializer<'de>>(from: D) -> Result<Option<RowVersion>, D::Error> {
    u32::deserialize(from).map(|number| Some(RowVersion(number)))
}

fn hex<'de, D: Deserializer<'de>, const N: usize>(from: D) -> Result<[u8; N], D::Error> {
    let bytes = HEXLOWER.decode(String::deserialize(from)?.as_bytes()).map_err(D::Error::custom)?;
    bytes.try_into().map_err(|_| D::Error::custom("wrong length"))
}

fn some_hex<'de, D: Deserializer<'de>>(from: D) -> Result<Option<[u8; 32]>, D::Error> {
    hex(from).map(Some)
}

/// The members of an object in the order in which they stand.
fn members<'de, D: Deserializer<'de>, V: Deserialize<'de>>(from: D) -> Result<Vec<(String, V)>, D::Error> {
    struct Members<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for Members<V> {
        type Value = Vec<(String, V)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }

    from.deserialize_map(Members(PhantomData))
}
