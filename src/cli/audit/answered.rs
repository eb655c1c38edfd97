//! Whether the vault answered what was asked: a vault of another build passes over what it does not know, and says so by the
//! filter that it names.

use prost_types::Timestamp as Wire;
use strongroom_ids::{RowId, SubjectHandle};
use strongroom_ledger::Timestamp;
use strongroom_ledger::filter::Filter;
use strongroom_proto::v1::LeafFilter;

use crate::cli::output::CliError;

/// Refuses a filter that is not the one that was asked for. Which handles, rows, fields and actions are meant the vault
/// knows; that it held leaves against some must be there. Of a class no field may be, and of a subject no handle.
pub fn is_answered(asked: &LeafFilter, told: &Filter) -> Result<(), CliError> {
    let LeafFilter { from_time, to_time, principal, subject, token, field, action, decision, .. } = asked;
    let LeafFilter { actor, changes, class, view, reads, denied, reason, refused, handle, row, purpose, .. } = asked;
    // What is not asked for is empty, and what is told is not.
    let same = |asked: &String, told: &Option<String>| told.as_ref() == Some(asked).filter(|asked| !asked.is_empty());
    let one_reason = |told: &Option<Vec<String>>| told.as_deref() == Some(std::slice::from_ref(reason));
    // Nothing fits one of none: all of it would be left out, and called an answer.
    let listed = |asked: bool, told: &Option<Vec<String>>| match told {
        Some(names) => asked && !names.is_empty(),
        None => !asked,
    };
    let parts = [
        ("from", from_time.as_ref().map(instant) == told.from),
        ("to", to_time.as_ref().map(instant) == told.to),
        ("principal", same(principal, &told.principal)),
        ("subject", (subject.is_empty() && handle.is_none()) == told.subjects.is_none()),
        ("token", (token.is_empty() && row.is_none()) == told.rows.is_none()),
        ("handle", handle.is_none_or(|handle| told.subjects == Some(vec![SubjectHandle(handle)]))),
        ("row", row.is_none_or(|row| told.rows == Some(vec![RowId(row)]))),
        ("purpose", same(purpose, &told.purpose)),
        ("field", same(field, &told.field)),
        ("action", same(action, &told.action)),
        ("decision", same(decision, &told.decision)),
        ("actor", same(actor, &told.actor)),
        ("class", class.is_empty() == told.fields.is_none()),
        ("view", same(view, &told.view)),
        ("changes or reads", listed(*changes || *reads, &told.actions)),
        ("denied", listed(*denied || !reason.is_empty(), &told.reasons)),
        ("reason", reason.is_empty() || one_reason(&told.reasons)),
        ("refused", *refused == told.refused),
    ];
    match parts.iter().find(|(_, is_same)| !is_same) {
        None => Ok(()),
        Some((part, _)) => Err(other(&format!("the vault's filter is another in: {part}"))),
    }
}

/// The vault did not answer what was asked.
pub fn other(why: &str) -> CliError {
    CliError::Unfit {
        message: format!("the vault answered another question than was asked: {why}"),
        next: "a command line and a vault of the same version: see `strongroom --version` and `strongroom status`"
            .into(),
    }
}

/// As the vault takes it: to the microsecond, and none before 1970.
pub fn instant(at: &Wire) -> Timestamp {
    let micros = u64::try_from(at.nanos).unwrap_or_default() / 1_000;
    Timestamp(u64::try_from(at.seconds).map_or(0, |seconds| seconds.saturating_mul(1_000_000).saturating_add(micros)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_vault_passes_over_is_noticed_and_what_it_adds() {
        let name = || Some("x".to_owned());
        let word = || "x".to_owned();
        let at = || Some(Wire { seconds: 1, nanos: 2_999 });
        type Asks = fn(&mut LeafFilter, String, Option<Wire>);
        type Tells = fn(&mut Filter, Option<String>);
        let parts: [(&str, Asks, Tells); 19] = [
            ("from", |asked, _, at| asked.from_time = at, |told, _| told.from = Some(Timestamp(1_000_002))),
            ("to", |asked, _, at| asked.to_time = at, |told, _| told.to = Some(Timestamp(1_000_002))),
            ("principal", |asked, word, _| asked.principal = word, |told, name| told.principal = name),
            ("subject", |asked, word, _| asked.subject = word, |told, _| told.subjects = Some(vec![SubjectHandle(1)])),
            ("token", |asked, word, _| asked.token = word, |told, _| told.rows = Some(vec![RowId(1)])),
            ("field", |asked, word, _| asked.field = word, |told, name| told.field = name),
            ("action", |asked, word, _| asked.action = word, |told, name| told.action = name),
            ("decision", |asked, word, _| asked.decision = word, |told, name| told.decision = name),
            ("actor", |asked, word, _| asked.actor = word, |told, name| told.actor = name),
            ("class", |asked, word, _| asked.class = word, |told, _| told.fields = Some(vec![])),
            ("view", |asked, word, _| asked.view = word, |told, name| told.view = name),
            ("changes", |asked, _, _| asked.changes = true, |told, name| told.actions = name.map(|name| vec![name])),
            ("reads", |asked, _, _| asked.reads = true, |told, name| told.actions = name.map(|name| vec![name])),
            ("denied", |asked, _, _| asked.denied = true, |told, name| told.reasons = name.map(|name| vec![name])),
            ("denied", |asked, word, _| asked.reason = word, |told, name| told.reasons = name.map(|name| vec![name])),
            ("subject", |asked, _, _| asked.handle = Some(1), |told, _| told.subjects = Some(vec![SubjectHandle(1)])),
            ("token", |asked, _, _| asked.row = Some(1), |told, _| told.rows = Some(vec![RowId(1)])),
            ("purpose", |asked, word, _| asked.purpose = word, |told, name| told.purpose = name),
            ("refused", |asked, _, _| asked.refused = true, |told, _| told.refused = true),
        ];
        for (part, asks, tells) in parts {
            let (mut asked, mut told) = (LeafFilter::default(), Filter::default());
            asks(&mut asked, word(), at());
            let refused = is_answered(&asked, &told).unwrap_err().to_string();
            assert!(refused.contains(part), "{part}: {refused}");
            tells(&mut told, name());
            assert!(is_answered(&asked, &told).is_ok(), "{part}");
            assert!(is_answered(&LeafFilter::default(), &told).is_err(), "{part}");
        }
        let asked = LeafFilter { principal: word(), ..LeafFilter::default() };
        assert!(is_answered(&asked, &Filter { principal: Some("y".to_owned()), ..Filter::default() }).is_err());
        let asked = LeafFilter { handle: Some(1), row: Some(1), ..LeafFilter::default() };
        let told = |subject, row| {
            let (subjects, rows) = (Some(vec![SubjectHandle(subject)]), Some(vec![RowId(row)]));
            is_answered(&asked, &Filter { subjects, rows, ..Filter::default() })
        };
        assert!(told(1, 1).is_ok() && told(2, 1).is_err() && told(1, 2).is_err());
        for asked in [(true, false, false), (false, true, false), (false, false, true), (false, false, false)] {
            let (changes, reads, denied) = asked;
            let asked = LeafFilter { changes, reads, denied, ..LeafFilter::default() };
            let (actions, reasons) = (Some(vec![]), Some(vec![]));
            assert!(is_answered(&asked, &Filter { actions, ..Filter::default() }).is_err());
            assert!(is_answered(&asked, &Filter { reasons, ..Filter::default() }).is_err());
        }
        let asked = LeafFilter { reason: word(), ..LeafFilter::default() };
        let told = Filter { reasons: Some(vec!["y".to_owned()]), ..Filter::default() };
        assert!(is_answered(&asked, &told).unwrap_err().to_string().contains("reason"));
        assert!(is_answered(&LeafFilter::default(), &Filter::default()).is_ok());
    }
}
