//! A field as it is written: one form for the TOML of a schema file and for the stored JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::mask::Mask;
use crate::shape::TokenFormat;
use crate::types::FieldType;

/// What stands under `[field.COLLECTION.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Declaration {
    pub number: u32,
    #[serde(rename = "type")]
    pub kind: FieldType,
    pub class: Class,
    pub retention: Retention,
    #[serde(default)]
    pub token: TokenFormat,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lookup: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deterministic: Option<Scope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_length: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    pub purposes: Vec<String>,
    #[serde(default)]
    pub views: BTreeMap<String, Mask>,
}

/// The data class, as in JR/T 0171-2020. C3 is the strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// For use inside the institution: opening dates, branches.
    C1,
    /// Identifies a person or says how they stand: identity documents, accounts, mobiles, loans.
    C2,
    /// Authentication secrets: passwords, CVV, track data, biometrics. Stored and compared, never shown.
    C3,
}

impl Class {
    /// `c1`, `c2`, `c3`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::C1 => "c1",
            Self::C2 => "c2",
            Self::C3 => "c3",
        }
    }

    /// The class of a name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::C1, Self::C2, Self::C3].into_iter().find(|class| class.as_str() == name)
    }

    /// The number by which rows name it: 1 to 3.
    pub fn number(self) -> u8 {
        match self {
            Self::C1 => 1,
            Self::C2 => 2,
            Self::C3 => 3,
        }
    }

    /// The class of a number.
    pub fn numbered(number: u8) -> Option<Self> {
        [Self::C1, Self::C2, Self::C3].into_iter().find(|class| class.number() == number)
    }
}

/// Why it is lawful to process data for a purpose: the grounds of article 6 GDPR, which those of article 13 PIPL match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The data subject allowed it.
    Consent,
    /// A contract with the data subject, or steps before one.
    Contract,
    /// The law demands it.
    LegalObligation,
    /// Somebody's life is at stake.
    VitalInterests,
    /// A task in the public interest.
    PublicTask,
    /// Interests of the controller that weigh more than the data subject's. PIPL does not know it.
    LegitimateInterests,
}

impl Basis {
    /// As it is written in a schema.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consent => "consent",
            Self::Contract => "contract",
            Self::LegalObligation => "legal_obligation",
            Self::VitalInterests => "vital_interests",
            Self::PublicTask => "public_task",
            Self::LegitimateInterests => "legitimate_interests",
        }
    }
}

/// Within which bounds a deterministic field gives the same token for the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Among the values of one data subject.
    PerSubject,
    /// Among all values of the tenant.
    Tenant,
}

/// What the officer knows of a field's possible values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Domain {
    /// So few that they can be tried one by one: yes and no, income bands, branches.
    Small,
}

/// How long a value may be read after it was stored. Written `10y`, `180d` or `forever`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Retention {
    /// Absent: forever.
    days: Option<u32>,
}

impl Retention {
    /// A year is 366 days, so that a span that the law asks for in years is never cut short.
    const DAYS_OF_A_YEAR: u32 = 366;
    const MOST_YEARS: u32 = 100;

    /// One year.
    pub(crate) const A_YEAR: Self = Self { days: Some(Self::DAYS_OF_A_YEAR) };
    const MICROS_OF_A_DAY: u64 = 86_400_000_000;

    /// The span in microseconds; absent: forever.
    pub fn micros(self) -> Option<u64> {
        self.days.map(|days| u64::from(days) * Self::MICROS_OF_A_DAY)
    }
}

impl TryFrom<String> for Retention {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "forever" {
            return Ok(Self { days: None });
        }
        let years = |count: u32| count.checked_mul(Self::DAYS_OF_A_YEAR);
        let days = match (text.strip_suffix('y'), text.strip_suffix('d')) {
            (Some(count), _) => counting(count).and_then(years),
            (_, Some(count)) => counting(count),
            _ => None,
        };
        match days {
            Some(days) if days <= Self::MOST_YEARS * Self::DAYS_OF_A_YEAR => Ok(Self { days: Some(days) }),
            _ => Err(format!(
                "a retention is written \"10y\", \"180d\" or \"forever\", with at most {} years",
                Self::MOST_YEARS
            )),
        }
    }
}

/// A number from 1 up, written in the one usual way.
fn counting(text: &str) -> Option<u32> {
    let usual = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if usual { text.parse().ok() } else { None }
}

impl From<Retention> for String {
    fn from(retention: Retention) -> Self {
        retention.to_string()
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.days {
            None => f.write_str("forever"),
            Some(days) if days % Self::DAYS_OF_A_YEAR == 0 => write!(f, "{}y", days / Self::DAYS_OF_A_YEAR),
            Some(days) => write!(f, "{days}d"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn retention(text: &str) -> Result<Retention, String> {
        Retention::try_from(text.to_owned())
    }

    #[test]
    fn ten_years_are_never_shorter_than_ten_calendar_years() {
        // At most three leap days fall into ten years.
        assert!(retention("10y").unwrap().micros().unwrap() >= 3_653 * 86_400_000_000);
        assert_eq!(retention("180d").unwrap().micros(), Some(180 * 86_400_000_000));
        assert_eq!(retention("forever").unwrap().micros(), None);
    }

    #[test]
    fn a_retention_of_another_form_is_refused() {
        for text in
            ["", "10", "y", "0d", "010d", "-1d", "+1d", "1.5y", "10 y", "101y", "36601d", "99999999999y", "4294967295y"]
        {
            assert!(retention(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_retention_reads_back_as_it_is_written(days in 1u32..=36_600) {
            let written = Retention { days: Some(days) };
            prop_assert_eq!(retention(&written.to_string()).unwrap(), written);
        }

        #[test]
        fn no_text_makes_a_retention_panic(text in ".{0,20}") {
            let _ = retention(&text);
        }
    }
}
