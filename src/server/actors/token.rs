//! One token of an actor (RFC 7519, in the compact form of RFC 7515): what is looked at, in which order.
//!
//! What fails is named by a word; nothing of the token is.

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonwebtoken::{Validation, dangerous};
use serde_json::{Map, Value};
use strongroom_access::{Actor, ActorError};
use strongroom_vault::Error;

use super::{InForce, Issuer};

/// Bytes of a token.
pub(super) const TOKEN_BYTES: usize = 8 << 10;
const SECOND: u64 = 1_000_000;

fn refused(check: &'static str) -> Error {
    Error::ActorTokenRefused { check }
}

/// The person that a token names, for a service of a tenant, at `now` in seconds since 1970.
pub(super) fn check(
    token: &[u8],
    tenant: &str,
    issuers: &BTreeMap<String, Arc<Issuer>>,
    now: u64,
) -> Result<Actor, Error> {
    if token.len() > TOKEN_BYTES {
        return Err(refused("size"));
    }
    // Nothing is believed yet: this says only whose key the token has to be checked with.
    let header = jsonwebtoken::decode_header(token).map_err(|_| refused("form"))?;
    let claimed: Map<String, Value> = dangerous::insecure_decode_claims(token).map_err(|_| refused("form"))?;
    let issuer = text(&claimed, "iss").and_then(|iss| issuers.get(iss)).ok_or_else(|| refused("issuer"))?;
    if !issuer.rules.speaks_for(tenant) {
        return Err(refused("tenant"));
    }
    // A key is looked for among those of its issuer only, so that no issuer can sign for another.
    let in_force: &InForce = &issuer.in_force.load();
    let kid = header.kid.as_deref().ok_or_else(|| refused("key"))?;
    let key = in_force.keys.get(kid).ok_or_else(|| refused("key"))?;
    if !key.algorithms.contains(&header.alg) {
        return Err(refused("algorithm"));
    }
    let signed = jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &signature_only(header.alg));
    let claims = signed.map_err(|_| refused("signature"))?.claims;
    if text(&claims, "iss") != Some(&issuer.rules.issuer) {
        return Err(refused("issuer"));
    }
    if !is_for(claims.get("aud"), &issuer.rules.audience) {
        return Err(refused("audience"));
    }
    if let Some(claim) = &issuer.rules.tenant_claim
        && text(&claims, claim) != Some(tenant)
    {
        return Err(refused("tenant"));
    }
    let ends = issuer.times(&claims, now)?;
    let role = text(&claims, &issuer.rules.role_claim).ok_or_else(|| refused("role"))?;
    let labels = labels(claims.get(&issuer.rules.labels_claim)).ok_or_else(|| refused("labels"))?;
    let sub = text(&claims, "sub").ok_or_else(|| refused("sub"))?;
    Actor::new(&issuer.rules.name, sub, role, labels, ends.saturating_mul(SECOND)).map_err(|error| {
        refused(match error {
            ActorError::Name => "sub",
            ActorError::Role => "role",
            ActorError::Labels => "labels",
        })
    })
}

/// The signature alone: all else is looked at here, by the vault's clock, and its kind with it.
fn signature_only(algorithm: jsonwebtoken::Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c str> {
    claims.get(name)?.as_str()
}

/// RFC 7519, section 4.1.3: one text, or several.
fn is_for(audience: Option<&Value>, ours: &str) -> bool {
    match audience {
        Some(Value::String(one)) => one == ours,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(ours)),
        _ => false,
    }
}

fn labels(claim: Option<&Value>) -> Option<Vec<String>> {
    match claim {
        None => Some(vec![]),
        Some(Value::Array(labels)) => labels.iter().map(|label| label.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    }
}

/// A time of RFC 7519, section 2, in whole seconds. `Ok(None)`: it is not there. What is there and is no time is never taken
/// for nothing.
fn instant(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, ()> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(whole) = value.as_u64() {
        return Ok(Some(whole));
    }
    match value.as_f64() {
        // Beyond it a number has no seconds any more.
        Some(parts) if (0.0..9e15).contains(&parts) => Ok(Some(parts as u64)),
        _ => Err(()),
    }
}

impl Issuer {
    /// Until when a token holds, in seconds since 1970, if it holds now. Clocks may differ about when one begins; the end is
    /// the vault's alone to say, and nothing is told after it.
    fn times(&self, claims: &Map<String, Value>, now: u64) -> Result<u64, Error> {
        let at = |name, check: &'static str| instant(claims, name).map_err(|()| refused(check));
        let ends = at("exp", "exp")?.ok_or_else(|| refused("exp"))?;
        let begins = at("nbf", "nbf")?;
        // Without it nobody could tell how long it lives.
        let issued = at("iat", "iat")?.ok_or_else(|| refused("iat"))?;
        if ends <= now {
            return Err(refused("exp"));
        }
        if begins.into_iter().chain([issued]).any(|at| at > now.saturating_add(self.rules.leeway_seconds)) {
            return Err(refused("nbf"));
        }
        if ends.saturating_sub(issued.min(now)) > self.rules.max_lifetime_seconds {
            return Err(refused("lifetime"));
        }
        Ok(ends)
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
