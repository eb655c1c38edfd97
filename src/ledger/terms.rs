//! By what leaves are found: the terms of a leaf, and those that a filter asks for.
//!
//! An index of terms leads to few leaves, of which the filter itself then takes those that fit. So a term may lead to too
//! many leaves, as a shortened hash does, but never to too few: a leaf that fits has a term of each condition. All follow
//! from the leaf alone, so that whoever has the leaves can make the index again.

use ring::digest::{Context, SHA256};
use serde::Deserialize;
use strongroom_ids::{RowId, SubjectHandle};

use crate::error::LedgerError;
use crate::filter::{Filter, SHOWN, Text};
use crate::refused::{Told, is_reason};

/// Bytes of a term.
pub const LENGTH: usize = 9;

/// What stands for whatever reason: none has no name.
const ANY: &str = "";

/// One thing that leaves are found by: what it is, and which. The name of a principal, of an actor, an action, a decision, a
/// reason, a purpose or a field is the beginning of its SHA-256, a subject its handle, a row its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Term([u8; LENGTH]);

/// What a term is.
#[derive(Clone, Copy)]
enum Kind {
    Subject = 1,
    Principal = 2,
    Actor = 3,
    Action = 4,
    Decision = 5,
    Shown = 6,
    Reason = 7,
    Field = 8,
    Row = 9,
    Purpose = 10,
}

impl Term {
    /// The same as bytes: what it is, then which.
    pub fn to_bytes(self) -> [u8; LENGTH] {
        self.0
    }

    /// A term as it was written.
    pub fn from_bytes(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }

    fn new(kind: Kind, which: [u8; 8]) -> Self {
        let mut bytes = [kind as u8; LENGTH];
        bytes[1..].copy_from_slice(&which);
        Self(bytes)
    }

    fn subject(subject: SubjectHandle) -> Self {
        Self::new(Kind::Subject, subject.0.to_be_bytes())
    }

    fn row(row: RowId) -> Self {
        Self::new(Kind::Row, row.0.to_be_bytes())
    }

    fn name(kind: Kind, name: &str) -> Self {
        Self::hashed(kind, [name.as_bytes()])
    }

    /// A field that was shown in a view.
    fn shown(field: &str, view: &str) -> Self {
        Self::hashed(Kind::Shown, [field.as_bytes(), b"\0", view.as_bytes()])
    }

    fn hashed<'p>(kind: Kind, parts: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut hash = Context::new(&SHA256);
        parts.into_iter().for_each(|part| hash.update(part));
        let mut which = [0; 8];
        which.iter_mut().zip(hash.finish().as_ref()).for_each(|(byte, hashed)| *byte = *hashed);
        Self::new(kind, which)
    }
}

/// What is read of a leaf.
#[derive(Deserialize)]
struct Leaf<'l> {
    #[serde(borrow)]
    principal: Text<'l>,
    #[serde(borrow, default)]
    actor: Option<Text<'l>>,
    #[serde(borrow)]
    action: Text<'l>,
    #[serde(borrow, default)]
    purpose: Option<Text<'l>>,
    #[serde(borrow)]
    decision: Text<'l>,
    #[serde(borrow, default)]
    reason: Option<Text<'l>>,
    #[serde(borrow, default)]
    detail: Option<Told<'l>>,
    #[serde(borrow, default)]
    items: Vec<Item<'l>>,
}

#[derive(Deserialize)]
struct Item<'l> {
    #[serde(borrow, default)]
    field: Option<Text<'l>>,
    #[serde(borrow, default)]
    row: Option<Text<'l>>,
    #[serde(borrow, default)]
    view: Option<Text<'l>>,
    #[serde(borrow, default)]
    outcome: Option<Text<'l>>,
    #[serde(borrow, default)]
    subject: Option<Text<'l>>,
}

/// The terms of a leaf, a line without its newline; each once.
pub fn of_leaf(line: &[u8]) -> Result<Vec<Term>, LedgerError> {
    let leaf: Leaf<'_> = serde_json::from_slice(line).map_err(|error| LedgerError::no_leaf(&error))?;
    let mut terms = vec![
        Term::name(Kind::Principal, &leaf.principal.0),
        Term::name(Kind::Action, &leaf.action.0),
        Term::name(Kind::Decision, &leaf.decision.0),
    ];
    terms.extend(leaf.actor.map(|actor| Term::name(Kind::Actor, &actor.0)));
    terms.extend(leaf.purpose.map(|purpose| Term::name(Kind::Purpose, &purpose.0)));
    let reason = |reason: &str| Term::name(Kind::Reason, reason);
    terms.extend(leaf.reason.as_ref().map(|whole| reason(&whole.0)));
    terms.extend(leaf.detail.iter().flat_map(Told::reasons).map(reason));
    // The items of a large request are mostly alike.
    let (mut last, mut last_reason, mut last_field) = (None, None, None);
    for item in &leaf.items {
        // What is no number is nobody's handle and no row, and fits no filter.
        let number = |text: &Option<Text<'_>>| text.as_ref().and_then(|text| text.0.parse().ok());
        terms.extend(number(&item.subject).map(|subject| Term::subject(SubjectHandle(subject))));
        terms.extend(number(&item.row).map(|row| Term::row(RowId(row))));
        if let Some(field) = item.field.as_ref().map(|field| &field.0)
            && last_field.replace(field) != Some(field)
        {
            terms.push(Term::name(Kind::Field, field));
        }
        if let Some(outcome) = item.outcome.as_ref().map(|outcome| &outcome.0)
            && is_reason(outcome)
            && last_reason.replace(outcome) != Some(outcome)
        {
            terms.push(reason(outcome));
        }
        let shown = item.outcome.as_ref().is_some_and(|outcome| outcome.0 == SHOWN);
        if let (true, Some(field), Some(view)) = (shown, &item.field, &item.view)
            && last.replace((&field.0, &view.0)) != Some((&field.0, &view.0))
        {
            terms.push(Term::shown(&field.0, &view.0));
        }
    }
    let refused = terms.iter().any(|term| term.0[0] == Kind::Reason as u8);
    terms.extend(refused.then(|| reason(ANY)));
    terms.sort_unstable();
    terms.dedup();
    Ok(terms)
}

/// What an index is asked for a filter: of each condition a leaf that fits has one term at least. No condition: the index
/// does not help. The conditions that few leaves meet come first.
pub fn of_filter(filter: &Filter) -> Vec<Vec<Term>> {
    let mut conditions: Vec<Vec<Term>> = Vec::new();
    if let Some(subjects) = &filter.subjects {
        conditions.push(subjects.iter().map(|subject| Term::subject(*subject)).collect());
    }
    if let Some(rows) = &filter.rows {
        conditions.push(rows.iter().map(|row| Term::row(*row)).collect());
    }
    let fields: Option<Vec<&str>> = match (&filter.field, &filter.fields) {
        (Some(field), _) => Some(vec![field.as_str()]),
        (None, fields) => fields.as_ref().map(|fields| fields.iter().map(|field| &*field.name).collect()),
    };
    if let Some(fields) = fields {
        let term = |field: &&str| match &filter.view {
            Some(view) => Term::shown(field, view),
            None => Term::name(Kind::Field, field),
        };
        conditions.push(fields.iter().map(term).collect());
    }
    let names = |kind: Kind, names: &[String]| names.iter().map(|name| Term::name(kind, name)).collect();
    let any = filter.refused.then(|| vec![Term::name(Kind::Reason, ANY)]);
    conditions.extend(filter.reasons.as_ref().map(|reasons| names(Kind::Reason, reasons)).or(any));
    if let Some(actions) = &filter.actions {
        conditions.push(names(Kind::Action, actions));
    }
    let names = [
        (Kind::Actor, &filter.actor),
        (Kind::Purpose, &filter.purpose),
        (Kind::Action, &filter.action),
        (Kind::Decision, &filter.decision),
        (Kind::Principal, &filter.principal),
    ];
    conditions.extend(names.into_iter().filter_map(|(kind, name)| Some(vec![Term::name(kind, name.as_ref()?)])));
    conditions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::tests::{filter, line};
    use crate::timestamp::Timestamp;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn a_leaf_that_fits_has_a_term_of_each_condition(line in line(), filter in filter()) {
            let terms = of_leaf(&line).unwrap();
            let found = of_filter(&filter).iter().all(|any| any.iter().any(|term| terms.contains(term)));
            prop_assert!(found || filter.fits(&line) == Ok(false), "the index would leave it out");
            prop_assert!(terms.is_sorted_by(|one, next| one < next), "each once");
        }

        #[test]
        fn no_bytes_panic(line in prop::collection::vec(any::<u8>(), 0..40), whole in line(), cut in 0..200_usize) {
            let _ = of_leaf(&line);
            prop_assert!(of_leaf(&whole[..cut.min(whole.len() - 1)]).is_err());
        }

        #[test]
        fn a_term_is_read_as_it_was_written(bytes: [u8; LENGTH]) {
            prop_assert_eq!(Term::from_bytes(bytes).to_bytes(), bytes);
        }
    }

    #[test]
    fn a_filter_by_times_or_a_view_alone_asks_the_index_for_nothing() {
        assert!(of_filter(&Filter::default()).is_empty());
        let view = Filter { view: Some("plain".to_owned()), from: Some(Timestamp(1)), ..Filter::default() };
        assert!(of_filter(&view).is_empty());
        let field = Filter { field: Some("a.b".to_owned()), ..Filter::default() };
        assert_eq!(of_filter(&field), [[Term::name(Kind::Field, "a.b")]]);
        let rows = Filter { rows: Some(vec![RowId(7)]), ..Filter::default() };
        assert_eq!(of_filter(&rows), [[Term::row(RowId(7))]]);
        let shown = Filter { view: Some("plain".to_owned()), ..field };
        assert_eq!(of_filter(&shown), [[Term::shown("a.b", "plain")]]);
        let nobody = Filter { subjects: Some(vec![]), ..Filter::default() };
        assert_eq!(of_filter(&nobody), [Vec::<Term>::new()], "and finds nothing");
    }

    #[test]
    fn terms_are_as_specified() {
        let written = [
            Term::subject(SubjectHandle(1 << 48 | 42)),
            Term::name(Kind::Principal, "app/loan-core"),
            Term::shown("borrower.mobile", "plain"),
            Term::name(Kind::Field, "borrower.mobile"),
            Term::row(RowId(1 << 48 | 43)),
            Term::name(Kind::Reason, ANY),
        ];
        for term in written {
            let hex = data_encoding::HEXLOWER.encode(&term.to_bytes());
            assert!(include_str!("FORMAT.md").contains(&format!("`{hex}`")), "{hex}");
        }
    }
}
