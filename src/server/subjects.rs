//! strongroom.v1.Subjects: what the vault knows of data subjects besides their values.

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{
    ConsentScope, Error, GetLabels, GrantConsent, ListConsents, ListedConsent, SetLabels, WithdrawConsent,
};
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::errors::status;
use crate::instants;

/// The service.
pub(crate) struct SubjectsService<S: Store>(pub Edge<S>);

#[tonic::async_trait]
impl<S: Store> v1::subjects_server::Subjects for SubjectsService<S> {
    async fn set_labels(
        &self,
        request: Request<v1::SetLabelsRequest>,
    ) -> Result<Response<v1::SetLabelsResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::SetLabelsRequest { subject, labels } = request.into_inner();
        let changed = self.0.vault()?.set_labels(&caller, &SetLabels { subject, labels }).await.map_err(status)?;
        Ok(Response::new(v1::SetLabelsResponse { changed }))
    }

    async fn get_labels(
        &self,
        request: Request<v1::GetLabelsRequest>,
    ) -> Result<Response<v1::GetLabelsResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::GetLabelsRequest { subject } = request.into_inner();
        let labels = self.0.vault()?.get_labels(&caller, &GetLabels { subject }).await.map_err(status)?;
        Ok(Response::new(v1::GetLabelsResponse { labels }))
    }

    async fn grant_consent(
        &self,
        request: Request<v1::GrantConsentRequest>,
    ) -> Result<Response<v1::GrantConsentResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let request = grant(request.into_inner()).map_err(status)?;
        let changed = self.0.vault()?.grant_consent(&caller, &request).await.map_err(status)?;
        Ok(Response::new(v1::GrantConsentResponse { changed }))
    }

    async fn withdraw_consent(
        &self,
        request: Request<v1::WithdrawConsentRequest>,
    ) -> Result<Response<v1::WithdrawConsentResponse>, Status> {
        use v1::withdraw_consent_request::Scope;
        let caller = self.0.caller(&request)?;
        let v1::WithdrawConsentRequest { subject, purpose, scope } = request.into_inner();
        let scope = match scope {
            None => ConsentScope::All,
            Some(Scope::Class(class)) => ConsentScope::Class(class),
            Some(Scope::Field(field)) => ConsentScope::Field(field),
        };
        let request = WithdrawConsent { subject, purpose, scope };
        let changed = self.0.vault()?.withdraw_consent(&caller, &request).await.map_err(status)?;
        Ok(Response::new(v1::WithdrawConsentResponse { changed }))
    }

    async fn list_consents(
        &self,
        request: Request<v1::ListConsentsRequest>,
    ) -> Result<Response<v1::ListConsentsResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::ListConsentsRequest { subject, purpose } = request.into_inner();
        let listed =
            self.0.vault()?.list_consents(&caller, &ListConsents { subject, purpose }).await.map_err(status)?;
        Ok(Response::new(v1::ListConsentsResponse { consents: listed.into_iter().map(consent).collect() }))
    }
}

fn grant(request: v1::GrantConsentRequest) -> Result<GrantConsent, Error> {
    use v1::grant_consent_request::Scope;
    let v1::GrantConsentRequest { subject, purpose, scope, text_sha256, text_version, channel, expire_time } = request;
    let mut wrong = Vec::new();
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
    Ok(GrantConsent { subject, purpose, scope, text, version: text_version, channel, expires })
}

fn consent(listed: ListedConsent) -> v1::Consent {
    use v1::consent::Scope;
    let of_class = listed.class.map(|class| Scope::Class(class.to_owned()));
    v1::Consent {
        purpose: listed.purpose,
        scope: listed.field.map(Scope::Field).or(of_class),
        grant_time: Some(instants::to_wire(listed.granted)),
        expire_time: listed.expires.map(instants::to_wire),
        withdraw_time: listed.withdrawn.map(instants::to_wire),
        text_sha256: listed.text.to_vec().into(),
        text_version: listed.version,
        channel: listed.channel,
        state: listed.state.to_owned(),
    }
}
