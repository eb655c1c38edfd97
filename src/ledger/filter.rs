//! Which leaves somebody asks for: the one place where a leaf is held against a filter.
//!
//! A line is read where it lies, and nothing of it is copied: an export looks at every leaf of its range.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use strongroom_ids::{RowId, SubjectHandle};

use crate::error::LedgerError;
use crate::leaf::{ParsedItem, ParsedLeaf};
use crate::refused::{REFUSED, Told, is_reason, unlisted};
use crate::timestamp::Timestamp;

/// What a leaf must fit, all of it; what is not given fits every leaf.
///
/// `field`, `subjects`, `rows`, `fields` and `view` are about items: a leaf fits if one of its items fits all of them. With
/// `reasons` or `refused` that item must have been refused, by itself or with the whole request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Not committed before this.
    pub from: Option<Timestamp>,
    /// Committed before this.
    pub to: Option<Timestamp>,
    /// Who asked.
    pub principal: Option<String>,
    /// What was asked for.
    pub action: Option<String>,
    /// `allow`, `deny` or `fail`.
    pub decision: Option<String>,
    /// The full name of an item's field.
    pub field: Option<String>,
    /// An item's data subject is one of these. An empty list fits no leaf: nobody was found.
    pub subjects: Option<Vec<SubjectHandle>>,
    /// An item's row is one of these. An empty list fits no leaf.
    pub rows: Option<Vec<RowId>>,
    /// On whose behalf it was asked.
    pub actor: Option<String>,
    /// What was asked for is one of these. An empty list fits no leaf.
    pub actions: Option<Vec<String>>,
    /// An item's field is one of these. An empty list fits no leaf.
    pub fields: Option<Vec<FieldName>>,
    /// An item was shown, in this view.
    pub view: Option<String>,
    /// The request or one of its items was refused for one of these reasons. An empty list fits no leaf.
    pub reasons: Option<Vec<String>>,
    /// The request or one of its items was refused, for whatever reason.
    pub refused: bool,
    /// Why it was asked for.
    pub purpose: Option<String>,
}

/// A field by the name that it had under some versions of the schema: a name may be another's before and after.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldName {
    /// Its full name.
    pub name: String,
    /// The first version in which it had it.
    pub since: u32,
    /// The last one; none if it still has it.
    pub until: Option<u32>,
}

impl FieldName {
    /// Whether a leaf of this version of the schema means it by a name.
    fn is(&self, name: &str, schema: Option<u32>) -> bool {
        self.name == name
            && schema.is_some_and(|schema| schema >= self.since && self.until.is_none_or(|until| schema <= until))
    }

    /// As it is written: `borrower.mobile 3-7`, or `borrower.mobile 3-`.
    fn to_text(&self) -> String {
        let until = self.until.map(|until| until.to_string()).unwrap_or_default();
        format!("{} {}-{until}", self.name, self.since)
    }

    fn from_text(text: &str) -> Option<Self> {
        let (name, versions) = text.rsplit_once(' ')?;
        let (since, until) = versions.split_once('-')?;
        let until = (!until.is_empty()).then(|| until.parse()).transpose().ok()?;
        Some(Self { name: name.to_owned(), since: since.parse().ok()?, until })
    }
}

/// The outcome of an item that was shown, if it names a view.
pub(crate) const SHOWN: &str = "ok";

/// The same as it is written: in this order, and only what is given.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decision: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subjects: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actions: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    view: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reasons: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    refused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    purpose: Option<String>,
}

impl Filter {
    /// Whether every leaf fits.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a leaf, a line without its newline, fits. What is no JSON object with a leaf's members is an error, and
    /// fits nothing.
    pub fn fits(&self, line: &[u8]) -> Result<bool, LedgerError> {
        let mut json = serde_json::Deserializer::from_slice(line);
        let fits = Leaf(self).deserialize(&mut json).and_then(|fits| json.end().map(|()| fits));
        fits.map_err(|error| LedgerError::no_leaf(&error))
    }

    /// One line of JSON that says it, the same for the same filter.
    pub fn to_json(&self) -> String {
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let written = Written {
            from: time(self.from),
            to: time(self.to),
            principal: self.principal.clone(),
            action: self.action.clone(),
            decision: self.decision.clone(),
            field: self.field.clone(),
            subjects: self.subjects.as_ref().map(|all| all.iter().map(|one| one.0.to_string()).collect()),
            rows: self.rows.as_ref().map(|all| all.iter().map(|one| one.0.to_string()).collect()),
            actor: self.actor.clone(),
            actions: self.actions.clone(),
            fields: self.fields.as_ref().map(|all| all.iter().map(FieldName::to_text).collect()),
            view: self.view.clone(),
            reasons: self.reasons.clone(),
            refused: self.refused,
            purpose: self.purpose.clone(),
        };
        // Nothing in it can fail to be written.
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// Reads it; written again it must come out the same.
    pub fn from_json(text: &str) -> Option<Self> {
        let numbers = |all: Option<Vec<String>>| {
            all.map(|all| all.iter().map(|one| one.parse()).collect::<Result<Vec<u64>, _>>()).transpose().ok()
        };
        let fields = |all: Option<Vec<String>>| match all {
            Some(all) => all.iter().map(|one| FieldName::from_text(one)).collect::<Option<Vec<_>>>().map(Some),
            None => Some(None),
        };
        let time = |text: Option<String>| text.map(|text| text.parse()).transpose().ok();
        let read: Written = serde_json::from_str(text).ok()?;
        let filter = Self {
            from: time(read.from)?,
            to: time(read.to)?,
            principal: read.principal,
            action: read.action,
            decision: read.decision,
            field: read.field,
            subjects: numbers(read.subjects)?.map(|all| all.into_iter().map(SubjectHandle).collect()),
            rows: numbers(read.rows)?.map(|all| all.into_iter().map(RowId).collect()),
            actor: read.actor,
            actions: read.actions,
            fields: fields(read.fields)?,
            view: read.view,
            reasons: read.reasons,
            refused: read.refused,
            purpose: read.purpose,
        };
        (filter.to_json() == text).then_some(filter)
    }

    /// Whether an item of a leaf fits what is asked of items.
    pub fn fits_item(&self, leaf: &ParsedLeaf, item: &ParsedItem) -> bool {
        let refused = |reason: &str| self.is_among_reasons(reason);
        (!self.asks_for_reasons()
            || leaf.reason.as_deref().is_some_and(refused)
            || (is_reason(&item.outcome) && refused(&item.outcome)))
            && self.is_item(leaf, item)
    }

    /// How many items of a leaf that fits were refused for what is asked for, and are not listed.
    pub fn unlisted(&self, leaf: &ParsedLeaf) -> u64 {
        // Each part of a request says the same of all of it.
        let is_first = leaf.part.is_none_or(|part| part.which == 1);
        let counts = leaf.says(REFUSED).filter(|_| is_first && !self.asks_for_items()).unwrap_or_default();
        let asked = unlisted(counts).filter(|(reason, _)| self.is_among_reasons(reason));
        asked.fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    fn asks_for_reasons(&self) -> bool {
        self.reasons.is_some() || self.refused
    }

    /// Whether a reason is one of those that are asked for.
    fn is_among_reasons(&self, reason: &str) -> bool {
        self.reasons.as_ref().map_or(self.refused, |all| all.iter().any(|one| one == reason))
    }

    /// Whether an item fits, whatever became of it.
    fn is_item(&self, leaf: &ParsedLeaf, item: &ParsedItem) -> bool {
        let is = |wanted: &Option<String>, there: &Option<String>| wanted.is_none() || wanted == there;
        is(&self.field, &item.field)
            && self.fields.as_ref().is_none_or(|all| {
                let is = |name: &String| all.iter().any(|field| field.is(name, Some(leaf.schema)));
                item.field.as_ref().is_some_and(is)
            })
            && self.view.as_ref().is_none_or(|view| item.view.as_ref() == Some(view) && item.outcome == SHOWN)
            && self.subjects.as_ref().is_none_or(|all| item.subject.is_some_and(|subject| all.contains(&subject)))
            && self.rows.as_ref().is_none_or(|all| item.row.is_some_and(|row| all.contains(&row)))
    }

    /// Whether anything is asked of items.
    pub fn asks_for_items(&self) -> bool {
        self.field.is_some()
            || self.fields.is_some()
            || self.view.is_some()
            || self.subjects.is_some()
            || self.rows.is_some()
    }

    /// Whether an action is one of those that are asked for.
    fn is_asked(&self, action: &str) -> bool {
        self.action.as_ref().is_none_or(|one| one == action)
            && self.actions.as_ref().is_none_or(|all| all.iter().any(|one| one == action))
    }

    /// Times have one way of being written, in which the order of bytes is that of time.
    fn is_in_time(&self, time: &str) -> bool {
        self.from.is_none_or(|from| time.as_bytes() >= &from.to_ascii()[..])
            && self.to.is_none_or(|to| time.as_bytes() < &to.to_ascii()[..])
    }
}

/// When a leaf was committed, from its beginning alone.
pub fn time_of(line: &[u8]) -> Option<Timestamp> {
    let rest = line.strip_prefix(br#"{"index":""#)?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    Timestamp::from_ascii(rest.get(digits..)?.strip_prefix(br#"","time":""#)?.first_chunk()?)
}

/// A string where it lies, unless it has escapes.
#[derive(Deserialize)]
pub(crate) struct Text<'l>(#[serde(borrow)] pub(crate) Cow<'l, str>);

/// A leaf is read, and only what is asked for is looked at.
struct Leaf<'f>(&'f Filter);

impl<'l> DeserializeSeed<'l> for Leaf<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'l>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'l> Visitor<'l> for Leaf<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a leaf")
    }

    fn visit_map<A: MapAccess<'l>>(self, mut leaf: A) -> Result<bool, A::Error> {
        let filter = self.0;
        let mut fits = true;
        // What a leaf must have and this one does not have fits nothing.
        let mut timed = filter.from.is_none() && filter.to.is_none();
        let (asks_for_items, asks_for_reasons) = (filter.asks_for_items(), filter.asks_for_reasons());
        let mut items = Found::default();
        // Whether it was refused as a whole, and whether items were that are not listed, so that nobody knows of what.
        let (mut is_refused, mut are_refused) = (false, false);
        // It stands before the items.
        let mut schema = None;
        let mut is_asked = filter.action.is_none() && filter.actions.is_none();
        let mut wanted = [
            ("principal", filter.principal.as_deref()),
            ("actor", filter.actor.as_deref()),
            ("purpose", filter.purpose.as_deref()),
            ("decision", filter.decision.as_deref()),
        ];
        while let Some(member) = leaf.next_key::<Text<'l>>()? {
            match &*member.0 {
                "time" if !timed => {
                    timed = true;
                    fits &= filter.is_in_time(&leaf.next_value::<Text<'l>>()?.0);
                }
                "action" if !is_asked => {
                    is_asked = true;
                    fits &= filter.is_asked(&leaf.next_value::<Text<'l>>()?.0);
                }
                "items" if fits && (asks_for_items || asks_for_reasons) => {
                    items = leaf.next_value_seed(Items(filter, schema))?;
                }
                "schema" if filter.fields.is_some() => schema = Some(leaf.next_value()?),
                "reason" if asks_for_reasons => {
                    is_refused = filter.is_among_reasons(&leaf.next_value::<Text<'l>>()?.0);
                }
                "detail" if asks_for_reasons && !asks_for_items => {
                    let told = leaf.next_value::<Told<'l>>()?;
                    are_refused = told.reasons().any(|reason| filter.is_among_reasons(reason));
                }
                name => match wanted.iter_mut().find(|(known, value)| *known == name && value.is_some()) {
                    Some((_, value)) => fits &= value.take() == Some(&*leaf.next_value::<Text<'l>>()?.0),
                    None => drop(leaf.next_value::<IgnoredAny>()?),
                },
            }
        }
        let any = items.fits || !asks_for_items;
        let what = match asks_for_reasons {
            false => any,
            true => items.refused || are_refused || (is_refused && any),
        };
        Ok(fits && timed && is_asked && what && wanted.iter().all(|(_, value)| value.is_none()))
    }
}

/// What is known of items, or of one.
#[derive(Clone, Copy, Default)]
struct Found {
    /// One fits what is asked of items, whatever became of it.
    fits: bool,
    /// And was refused for what is asked for.
    refused: bool,
}

/// What the items of a leaf of some version of the schema are.
struct Items<'f>(&'f Filter, Option<u32>);

impl<'l> DeserializeSeed<'l> for Items<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'l>>(self, from: D) -> Result<Found, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'l> Visitor<'l> for Items<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("items")
    }

    fn visit_seq<A: SeqAccess<'l>>(self, mut items: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        while let Some(item) = items.next_element_seed(Item(self.0, self.1))? {
            found.fits |= item.fits;
            found.refused |= item.refused;
            if found.refused || (found.fits && !self.0.asks_for_reasons()) {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
        }
        Ok(found)
    }
}

/// What an item is.
struct Item<'f>(&'f Filter, Option<u32>);

impl<'l> DeserializeSeed<'l> for Item<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'l>>(self, from: D) -> Result<Found, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'l> Visitor<'l> for Item<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item")
    }

    fn visit_map<A: MapAccess<'l>>(self, mut item: A) -> Result<Found, A::Error> {
        let Filter { field, fields, view, subjects, rows, .. } = self.0;
        let (mut is_field, mut is_subject, mut is_row) =
            (field.is_none() && fields.is_none(), subjects.is_none(), rows.is_none());
        let (mut is_view, mut is_shown, mut is_refused) = (view.is_none(), view.is_none(), false);
        while let Some(member) = item.next_key::<Text<'l>>()? {
            match &*member.0 {
                "field" if field.is_some() || fields.is_some() => {
                    let name = item.next_value::<Text<'l>>()?.0;
                    is_field = field.as_ref().is_none_or(|field| *field == name)
                        && fields.as_ref().is_none_or(|fields| fields.iter().any(|field| field.is(&name, self.1)));
                }
                "view" if view.is_some() => is_view = view.as_deref() == Some(&*item.next_value::<Text<'l>>()?.0),
                "outcome" if view.is_some() || self.0.asks_for_reasons() => {
                    let outcome = item.next_value::<Text<'l>>()?.0;
                    is_shown |= outcome == SHOWN;
                    is_refused = is_reason(&outcome) && self.0.is_among_reasons(&outcome);
                }
                "subject" if subjects.is_some() => {
                    let number = item.next_value::<Text<'l>>()?.0.parse();
                    is_subject =
                        number.is_ok_and(|one| subjects.as_ref().is_some_and(|all| all.contains(&SubjectHandle(one))));
                }
                "row" if rows.is_some() => {
                    let number = item.next_value::<Text<'l>>()?.0.parse();
                    is_row = number.is_ok_and(|one| rows.as_ref().is_some_and(|all| all.contains(&RowId(one))));
                }
                _ => drop(item.next_value::<IgnoredAny>()?),
            }
        }
        let fits = is_field && is_subject && is_row && is_view && is_shown;
        Ok(Found { fits, refused: fits && is_refused })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::leaf::{self, LeafHeader, LeafItem, ParsedLeaf};

    /// A filter as one would write it who has all the time in the world.
    fn naive(filter: &Filter, leaf: &ParsedLeaf) -> bool {
        let is = |wanted: &Option<String>, there: &str| wanted.as_ref().is_none_or(|wanted| wanted == there);
        let in_list = |wanted: &Option<Vec<String>>, there: Option<&String>| {
            wanted.as_ref().is_none_or(|wanted| there.is_some_and(|there| wanted.contains(there)))
        };
        let fitting = leaf.items.iter().filter(|item| {
            filter.field.as_ref().is_none_or(|field| item.field.as_ref() == Some(field))
                && filter.subjects.as_ref().is_none_or(|all| item.subject.is_some_and(|one| all.contains(&one)))
                && filter.rows.as_ref().is_none_or(|all| item.row.is_some_and(|one| all.contains(&one)))
                && filter.fields.as_ref().is_none_or(|all| {
                    let one = |one: &FieldName| {
                        item.field.as_ref() == Some(&one.name)
                            && (one.since..=one.until.unwrap_or(u32::MAX)).contains(&leaf.schema)
                    };
                    all.iter().any(one)
                })
                && filter.view.as_ref().is_none_or(|view| item.view.as_ref() == Some(view) && item.outcome == "ok")
        });
        let outcomes: Vec<&str> = fitting.map(|item| item.outcome.as_str()).collect();
        let any = !outcomes.is_empty() || !filter.asks_for_items();
        let asked =
            |reason: &str| filter.reasons.as_ref().is_none_or(|reasons| reasons.iter().any(|one| one == reason));
        let refused = || {
            let counts = leaf.detail.iter().find(|(name, _)| name == "refused").map_or("", |(_, counts)| counts);
            let counted = counts.split(' ').any(|one| one.split_once('=').is_some_and(|(reason, _)| asked(reason)));
            outcomes.iter().any(|outcome| *outcome != "ok" && asked(outcome))
                || (leaf.reason.as_deref().is_some_and(asked) && any)
                || (counted && !filter.asks_for_items())
        };
        filter.from.is_none_or(|from| leaf.time >= from)
            && filter.to.is_none_or(|to| leaf.time < to)
            && is(&filter.principal, &leaf.principal)
            && is(&filter.action, &leaf.action)
            && is(&filter.decision, &leaf.decision)
            && filter.actor.as_ref().is_none_or(|actor| leaf.actor.as_ref() == Some(actor))
            && filter.purpose.as_ref().is_none_or(|purpose| leaf.purpose.as_ref() == Some(purpose))
            && in_list(&filter.actions, Some(&leaf.action))
            && if filter.reasons.is_some() || filter.refused { refused() } else { any }
    }

    /// Reasons, and what is none.
    const REASONS: [&str; 4] = ["DENIED", "FROZEN", "ok", "NOT_FOUND"];

    /// Few words, so that they meet, and some that must be escaped.
    fn word() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "app/a", "\"", "\\", "é", "\u{1f512}", "", "items"]).prop_map(str::to_owned)
    }

    pub(crate) fn line() -> impl Strategy<Value = Vec<u8>> {
        use prop::option::of as some;

        let item =
            (some(word()), some(0..4_u64), some(0..4_u64), some(word()), prop::sample::select(vec!["ok", "DENIED"]));
        let words = (word(), word(), word(), some(word()), some(word()), some(prop::sample::select(REASONS.to_vec())));
        let counts = prop::sample::select(vec!["", "DENIED=3", "FROZEN=1 DENIED=2", "DENIED", "=1"]);
        let all = (words, 0..4_u64, prop::collection::vec(item, 0..4), counts, 0..4_u32);
        all.prop_map(|(words, time, items, counts, schema)| {
            let (principal, action, decision, actor, purpose, reason) = words;
            let header = LeafHeader {
                request: &[7; 16],
                principal: &principal,
                actor: actor.as_deref(),
                action: &action,
                purpose: purpose.as_deref(),
                decision: &decision,
                reason,
                policy: 1,
                schema,
                keys: &[("principal".to_owned(), 3)],
                client: "a",
                detail: &[("action", "a"), ("items", "field"), ("refused", counts)],
            };
            let items = items.iter().map(|(field, subject, row, view, outcome)| LeafItem {
                field: field.as_deref(),
                view: view.as_deref(),
                subject: subject.map(SubjectHandle),
                row: row.map(RowId),
                outcome,
                ..LeafItem::default()
            });
            leaf::prepare(&header, items)[0].finish(3, Timestamp(time * 1_000_000))
        })
    }

    pub(crate) fn filter() -> impl Strategy<Value = Filter> {
        use prop::option::of as some;

        let numbers = || some(prop::collection::vec(0..4_u64, 0..3));
        let words = (some(word()), some(word()), some(word()), some(word()));
        let lists = || some(prop::collection::vec(word(), 0..3));
        let reasons = some(prop::collection::vec(prop::sample::select(REASONS.to_vec()), 0..3));
        let name = (word(), 0..4_u32, some(0..4_u32));
        let name = name.prop_map(|(name, since, until)| FieldName { name, since, until });
        let fields = some(prop::collection::vec(name, 0..3));
        let more = (some(word()), lists(), fields, some(word()), (reasons, any::<bool>(), some(word())));
        let all = (some(0..4_u64), some(0..4_u64), words, numbers(), numbers(), more);
        all.prop_map(
            |(from, to, words, subjects, rows, (actor, actions, fields, view, (reasons, refused, purpose)))| Filter {
                from: from.map(|time| Timestamp(time * 1_000_000)),
                to: to.map(|time| Timestamp(time * 1_000_000)),
                principal: words.0,
                action: words.1,
                decision: words.2,
                field: words.3,
                subjects: subjects.map(|all| all.into_iter().map(SubjectHandle).collect()),
                rows: rows.map(|all| all.into_iter().map(RowId).collect()),
                actor,
                actions,
                fields,
                view,
                reasons: reasons.map(|all| all.into_iter().map(str::to_owned).collect()),
                refused,
                purpose,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_filter_answers_like_a_naive_one(line in line(), filter in filter()) {
            let leaf = leaf::parse(&line).unwrap();
            prop_assert_eq!(filter.fits(&line), Ok(naive(&filter, &leaf)));
            if filter.fits(&line) == Ok(true) && filter.asks_for_items() {
                prop_assert!(leaf.items.iter().any(|item| filter.fits_item(&leaf, item)));
            }
            let of_items = Filter {
                field: filter.field.clone(),
                fields: filter.fields.clone(),
                view: filter.view.clone(),
                subjects: filter.subjects.clone(),
                rows: filter.rows.clone(),
                ..Filter::default()
            };
            let any = leaf.items.iter().any(|item| of_items.fits_item(&leaf, item));
            prop_assert_eq!(naive(&of_items, &leaf), any || !filter.asks_for_items());
            prop_assert_eq!(time_of(&line), Some(leaf.time));
            prop_assert_eq!(Filter::default().fits(&line), Ok(true));
        }

        #[test]
        fn a_filter_is_read_as_it_was_written(filter in filter()) {
            let text = filter.to_json();
            prop_assert!(!text.contains('\n'));
            prop_assert_eq!(Filter::from_json(&text), Some(filter));
            prop_assert_eq!(Filter::from_json(&format!(" {text}")), None);
        }

        #[test]
        fn no_bytes_panic(line in prop::collection::vec(any::<u8>(), 0..40), filter in filter(), cut in 0..200_usize) {
            let _ = (filter.fits(&line), time_of(&line));
            let whole = br#"{"index":"1","time":"1970-01-01T00:00:00.000001Z","principal":"a","items":[{"field":"a"}]}"#;
            let _ = (filter.fits(&whole[..cut.min(whole.len())]), time_of(&whole[..cut.min(whole.len())]));
        }
    }

    #[test]
    fn what_is_no_leaf_is_an_error_that_repeats_nothing() {
        let filter = Filter { principal: Some("a".to_owned()), ..Filter::default() };
        for line in ["", "secret", "[1]", "{\"principal\":1}", "{\"principal\":\"a\"} x", "{\"principal\":\"secret"] {
            let error = filter.fits(line.as_bytes()).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert_eq!(filter.fits(b"{}"), Ok(false), "what is not there fits nothing");
        assert_eq!(Filter::from_json("{\"rows\":[\"x\"]}"), None);
        assert_eq!(Filter::from_json("{\"row\":[]}"), None);
    }
}
