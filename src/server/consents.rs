//! Consents of data subjects, between the wire and the vault.

use strongroom_proto::v1;
use strongroom_vault::{ConsentScope, Error, GrantConsent, ListConsents, ListedConsent, WithdrawConsent};

use crate::instants;

/// What a request to record a consent asks for.
pub(crate) fn granted(request: v1::GrantConsentRequest) -> Result<GrantConsent, Error> {
    use v1::grant_consent_request::Scope;
    let v1::GrantConsentRequest { subject, purpose, scope, text_sha256, .. } = request;
    let v1::GrantConsentRequest { text_version, channel, given_time, expire_time, .. } = request;
    let mut wrong = Vec::new();
    let given = instants::from_wire(given_time.as_ref(), || "given_time".to_owned(), &mut wrong);
    let expires = instants::from_wire(expire_time.as_ref(), || "expire_time".to_owned(), &mut wrong);
    if !wrong.is_empty() {
        return Err(Error::Invalid(wrong));
    }
    let scope = match scope {
        None => ConsentScope::All,
        Some(Scope::Class(class)) => ConsentScope::Class(class),
        Some(Scope::Field(field)) => ConsentScope::Field(field),
    };
    let text = text_sha256.into();
    Ok(GrantConsent { subject, purpose, scope, text, version: text_version, channel, given, expires })
}

/// What a request to take one back asks for.
pub(crate) fn withdrawn(request: v1::WithdrawConsentRequest) -> WithdrawConsent {
    use v1::withdraw_consent_request::Scope;
    let v1::WithdrawConsentRequest { subject, purpose, scope } = request;
    let scope = match scope {
        None => ConsentScope::All,
        Some(Scope::Class(class)) => ConsentScope::Class(class),
        Some(Scope::Field(field)) => ConsentScope::Field(field),
    };
    WithdrawConsent { subject, purpose, scope }
}

/// What a request to list them asks for.
pub(crate) fn asked(request: v1::ListConsentsRequest) -> ListConsents {
    use v1::list_consents_request::Scope;
    let v1::ListConsentsRequest { subject, purpose, scope } = request;
    let scope = match scope {
        None => ConsentScope::All,
        Some(Scope::Class(class)) => ConsentScope::Class(class),
        Some(Scope::Field(field)) => ConsentScope::Field(field),
    };
    ListConsents { subject, purpose, scope }
}

/// A consent, as a list has it.
pub(crate) fn listed(one: ListedConsent) -> v1::Consent {
    use v1::consent::Scope;
    let of_class = one.class.map(|class| Scope::Class(class.to_owned()));
    v1::Consent {
        purpose: one.purpose,
        scope: one.field.map(Scope::Field).or(of_class),
        grant_time: Some(instants::to_wire(one.granted)),
        given_time: one.given.map(instants::to_wire),
        expire_time: one.expires.map(instants::to_wire),
        withdraw_time: one.withdrawn.map(instants::to_wire),
        text_sha256: one.text.to_vec().into(),
        text_version: one.version,
        channel: one.channel,
        state: one.state.to_owned(),
    }
}
