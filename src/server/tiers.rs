//! The part of strongroom.v1.Access that says how much principals may read.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{ClassLimits, ListedPrincipals, Rate, SetTier, SetTierLimits, Tier, TierLimits};
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::errors::status;
use crate::freezes;

pub(crate) async fn set<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::SetTierRequest>,
) -> Result<Response<v1::SetTierResponse>, Status> {
    let caller = edge.caller(&request)?;
    let v1::SetTierRequest { principal, tier } = request.into_inner();
    let change = SetTier { principal, tier };
    let vault = edge.vault()?;
    let changed = edge.to_its_end(async move { vault.set_tier(&caller, &change).await }).await?;
    Ok(Response::new(v1::SetTierResponse { changed }))
}

pub(crate) async fn set_limits<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::SetTierLimitsRequest>,
) -> Result<Response<v1::SetTierLimitsResponse>, Status> {
    let caller = edge.caller(&request)?;
    let v1::SetTierLimitsRequest { tier, limits } = request.into_inner();
    let change = SetTierLimits { tier, limits: limits_in(limits.unwrap_or_default()) };
    let vault = edge.vault()?;
    let changed = edge.to_its_end(async move { vault.set_tier_limits(&caller, &change).await }).await?;
    Ok(Response::new(v1::SetTierLimitsResponse { changed }))
}

pub(crate) async fn list<S: Store>(
    edge: &Edge<S>,
    request: Request<v1::ListPrincipalsRequest>,
) -> Result<Response<v1::ListPrincipalsResponse>, Status> {
    let caller = edge.caller(&request)?;
    let ListedPrincipals { principals, limits } = edge.vault()?.list_principals(&caller).await.map_err(status)?;
    let principals = principals.into_iter().map(|one| v1::ListedPrincipal {
        tier: one.tier.as_str().to_owned(),
        suspension: one.suspension.map(|why| freezes::suspension(one.principal.clone(), why)),
        principal: one.principal,
    });
    let tiers = Tier::ALL.into_iter().zip(limits);
    let tiers = tiers.map(|(tier, limits)| v1::Tier { name: tier.as_str().to_owned(), limits: Some(out(&limits)) });
    Ok(Response::new(v1::ListPrincipalsResponse { principals: principals.collect(), tiers: tiers.collect() }))
}

/// What is left out has no limit.
fn limits_in(limits: v1::TierLimits) -> TierLimits {
    let rate = |rate: Option<v1::Rate>| {
        let v1::Rate { per_minute, per_day } = rate.unwrap_or_default();
        Rate { per_minute, per_day }
    };
    let class = |class: Option<v1::ClassLimits>| {
        let v1::ClassLimits { plain, masked, subjects } = class.unwrap_or_default();
        ClassLimits { plain: rate(plain), masked: rate(masked), subjects: rate(subjects) }
    };
    let v1::TierLimits { c1, c2, c3, misses, token_misses } = limits;
    TierLimits { c1: class(c1), c2: class(c2), c3: class(c3), misses: rate(misses), token_misses: rate(token_misses) }
}

fn out(limits: &TierLimits) -> v1::TierLimits {
    let rate = |rate: Rate| Some(v1::Rate { per_minute: rate.per_minute, per_day: rate.per_day });
    let class = |class: &ClassLimits| {
        Some(v1::ClassLimits { plain: rate(class.plain), masked: rate(class.masked), subjects: rate(class.subjects) })
    };
    v1::TierLimits {
        c1: class(&limits.c1),
        c2: class(&limits.c2),
        c3: class(&limits.c3),
        misses: rate(limits.misses),
        token_misses: rate(limits.token_misses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_back_as_they_went() {
        for limits in [TierLimits::default(), TierLimits::II, TierLimits::III] {
            assert_eq!(limits_in(out(&limits)), limits);
        }
    }
}
