//! The part of strongroom.v1.Access that says why policy decides as it does.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{Caller, Error, Explain, Vault};
use tonic::{Response, Status};

use crate::errors::{problem, status};

pub(crate) async fn explain<S: Store>(
    vault: &Vault<S>,
    caller: &Caller,
    question: v1::ExplainPolicyRequest,
) -> Result<Response<v1::ExplainPolicyResponse>, Status> {
    let v1::ExplainPolicyRequest { role, name, action, field, view, purpose, hour, approvals, .. } = question;
    let v1::ExplainPolicyRequest { tier, actor_role, case_load, second_factor, consent, .. } = question;
    let question = Explain {
        role,
        name,
        action,
        field,
        view,
        purpose,
        tier,
        actor_role,
        case_load,
        second_factor,
        consent,
        hour,
        approvals,
    };
    let answer = match vault.explain_policy(caller, &question).await {
        Ok(explained) => v1::ExplainPolicyResponse {
            allowed: explained.allowed,
            policies: explained.policies,
            explanation: explained.text,
            allowed_views: explained.allowed_views,
            allowed_purposes: explained.allowed_purposes,
            problem: None,
            allowed_approvals: explained.allowed_approvals.into(),
            allowed_second_factor: explained.allowed_second_factor.to_owned(),
            allowed_with_consent: explained.allowed_with_consent,
        },
        // A name that nobody knows is part of the answer: the question itself was in order.
        Err(error @ Error::Invalid(_)) => {
            v1::ExplainPolicyResponse { problem: Some(problem(&error)), ..Default::default() }
        }
        Err(error) => return Err(status(error)),
    };
    Ok(Response::new(answer))
}
