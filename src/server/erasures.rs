//! Erasures of data subjects and legal holds, between the wire and the vault.

use bytes::Bytes;
use strongroom_proto::v1;
use strongroom_vault::{EraseSubject, ErasureStatus, Error, ListedHold, SetHold, Violation};

use crate::instants;

/// What a request to erase asks for.
pub(crate) fn asked(request: v1::EraseSubjectRequest) -> Result<EraseSubject, Error> {
    let v1::EraseSubjectRequest { subject, grace, idempotency_key } = request;
    let grace = grace.map_or(Ok(0), |grace| micros(&grace))?;
    Ok(EraseSubject { subject, grace, idempotency_key })
}

/// A span of time in microseconds.
fn micros(span: &prost_types::Duration) -> Result<u64, Error> {
    let (seconds, nanos) = (u64::try_from(span.seconds).ok(), u64::try_from(span.nanos).ok());
    let span =
        seconds.zip(nanos).and_then(|(seconds, nanos)| seconds.checked_mul(1_000_000)?.checked_add(nanos / 1_000));
    let description = "a time of grace is not negative";
    span.ok_or_else(|| Error::Invalid(vec![Violation::new("grace", "negative", description)]))
}

/// How far an erasure has come.
pub(crate) fn status(told: ErasureStatus) -> v1::ErasureStatus {
    let kept = told.kept.into_iter().map(|kept| v1::KeptByHold {
        hold: kept.hold,
        fields: kept.fields,
        purpose: kept.purpose,
        until_time: Some(instants::to_wire(kept.until)),
    });
    v1::ErasureStatus {
        erasure: told.erasure,
        state: told.state.to_owned(),
        due_time: told.due.map(instants::to_wire),
        receipt: told.receipt,
        kept: kept.collect(),
        salt: told.salt.map(|salt| Bytes::copy_from_slice(&salt)).unwrap_or_default(),
    }
}

/// An erasure, as a list has it.
pub(crate) fn listed_erasure(told: ErasureStatus) -> v1::ListedErasure {
    v1::ListedErasure {
        erasure: told.erasure,
        state: told.state.to_owned(),
        due_time: told.due.map(instants::to_wire),
        has_receipt: !told.receipt.is_empty(),
    }
}

/// What a request to set a legal hold asks for.
pub(crate) fn hold(request: v1::SetHoldRequest) -> Result<SetHold, Error> {
    let v1::SetHoldRequest { subject, fields, reason, purpose, until_time } = request;
    let mut wrong = Vec::new();
    let until = instants::from_wire(until_time.as_ref(), || "until_time".to_owned(), &mut wrong);
    if !wrong.is_empty() {
        return Err(Error::Invalid(wrong));
    }
    // Without an end it ends in the past, which is refused where all of it is looked at.
    Ok(SetHold { subject, fields, reason, purpose, until: until.unwrap_or(0) })
}

/// A legal hold, as a list has it.
pub(crate) fn listed(hold: ListedHold) -> v1::Hold {
    v1::Hold {
        number: hold.number,
        reason: hold.reason,
        purpose: hold.purpose,
        fields: hold.fields,
        set_time: Some(instants::to_wire(hold.set)),
        until_time: Some(instants::to_wire(hold.until)),
        stands: hold.stands,
    }
}
