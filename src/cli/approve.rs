//! `strongroom approvals`, `approve` and `reject`: what waits for the approval of others.

use std::io::{self, Write};

use clap::Args as ClapArgs;
use clap::builder::NonEmptyStringValueParser;
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use strongroom_ids::{TenantId, VaultId};
use strongroom_ledger::approval;
use strongroom_proto::v1::{Approval, ApproveRequest, ListApprovalsRequest, ListApprovalsResponse, RejectRequest};
use x509_parser::prelude::FromDer;

use super::client::Context;
use super::output::{CliError, Exit, facts, instant, table};

/// Who asks unless the caller says otherwise: the other one.
pub const PRINCIPAL: &str = "officer-2";

/// Show what waits for the approval of officers.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom approvals
  strongroom approvals --subject customer-4711     what waits that is about this data subject

Erasures and ends of legal holds name a data subject by a number of the vault's own,
which says nothing of who it is: --subject finds those of one whose id you know.
Next: strongroom approve approval/7, by an officer who did not ask for it")]
pub struct ListArgs {
    /// Only what is about this data subject, by the id that values were stored with.
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    subject: Option<String>,
}

/// Approve what somebody else asked for, by your own signature.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Examples:
  strongroom approvals
  strongroom approve approval/7 --as officer-2

Shows what it signs, with the private key of your certificate. The signature
stands in the ledger. Of policies and schemas it names the SHA-256: have the
file given to you, and compare (sha256sum FILE). Of a data subject it names a
handle: have its id given to you, and look (strongroom approvals --subject ID).
Who asked for it then asks for the same again.")]
pub struct ApproveArgs {
    /// What is approved: approval/7.
    name: String,
}

/// Reject what somebody asked for, which ends it.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = "Example:
  strongroom reject approval/7 --as officer-2")]
pub struct RejectArgs {
    /// What is rejected: approval/7.
    name: String,
}

/// Shows what waits.
pub async fn list(args: ListArgs, context: &Context) -> Result<Exit, CliError> {
    let approvals = waiting(context, args.subject.unwrap_or_default()).await?.approvals;
    context.output.show(
        || json!({ "approvals": approvals.iter().map(document).collect::<Vec<_>>() }),
        || {
            let rows = approvals.iter().map(|one| {
                vec![
                    one.name.clone(),
                    one.requester.clone(),
                    one.summary.clone(),
                    format!("{} of {}", one.have, one.need),
                    one.approved_by.join(" "),
                    instant(one.expire_time.as_ref()),
                ]
            });
            table(&["APPROVAL", "ASKED BY", "FOR", "HAS", "APPROVED BY", "EXPIRES"], rows)
        },
    )?;
    Ok(Exit::Done)
}

/// Approves.
pub async fn approve(args: ApproveArgs, context: &Context) -> Result<Exit, CliError> {
    let ListApprovalsResponse { approvals, vault_id, tenant_id } = waiting(context, String::new()).await?;
    let one = approvals.into_iter().find(|one| one.name == args.name).ok_or_else(|| CliError::Unfit {
        message: format!("nothing waits under the name {}: it was done, rejected, or has expired", args.name),
        next: "strongroom approvals".into(),
    })?;
    let (certificate, key) = identity(context)?;
    let (public_key, officer) = named(&certificate)?;
    let id = |hex: &str| {
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| CliError::unfit("the vault's answer names no vault or tenant"))
    };
    let text = approval::Approval {
        vault: VaultId(id(&vault_id)?),
        tenant: TenantId(id(&tenant_id)?),
        name: &one.name,
        request: &one.request,
        action: &one.action,
        requester: &one.requester,
        summary: &one.summary,
        officer: &officer,
    }
    .text();
    // Before it is signed: just this is.
    let _ = write!(io::stderr(), "signs:\n{text}\n");
    let signature = signed(&key, text.as_bytes())?;
    let request = ApproveRequest { name: args.name, public_key: public_key.into(), signature: signature.into() };
    let approved = context.access().await?.approve(request).await?.into_inner();
    context.output.show(|| document(&approved), || shown(&approved, "approved"))?;
    Ok(Exit::Done)
}

/// Rejects.
pub async fn reject(args: RejectArgs, context: &Context) -> Result<Exit, CliError> {
    let rejected = context.access().await?.reject(RejectRequest { name: args.name }).await?.into_inner();
    context.output.show(|| document(&rejected), || shown(&rejected, "rejected"))?;
    Ok(Exit::Done)
}

async fn waiting(context: &Context, subject: String) -> Result<ListApprovalsResponse, CliError> {
    Ok(context.access().await?.list_approvals(ListApprovalsRequest { subject }).await?.into_inner())
}

/// The caller's certificate, and its private key, which wipes itself.
fn identity(context: &Context) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), CliError> {
    let unfit =
        |path: &std::path::Path| CliError::unfit(format!("{} is no PEM file of the right kind", path.display()));
    let connect = &context.connect;
    let certificate = CertificateDer::from_pem_file(&connect.cert).map_err(|_| unfit(&connect.cert))?;
    let key = PrivateKeyDer::from_pem_file(&connect.key).map_err(|_| unfit(&connect.key))?;
    Ok((certificate, key))
}

/// The public key in a certificate, and whom it names by role and name.
fn named(certificate: &[u8]) -> Result<(Vec<u8>, String), CliError> {
    let unfit =
        || CliError::unfit("the certificate names no officer: spiffe://TRUST-DOMAIN/tenant/TENANT/officer/NAME");
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate).map_err(|_| unfit())?;
    let names = certificate.subject_alternative_name().ok().flatten().ok_or_else(unfit)?;
    let uri = names.value.general_names.iter().find_map(|name| match name {
        x509_parser::extensions::GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let name = uri.and_then(|uri| uri.rsplit_once("/officer/")).map(|(_, name)| format!("officer/{name}"));
    Ok((certificate.public_key().raw.to_vec(), name.ok_or_else(unfit)?))
}

/// The signature of the officer's key.
fn signed(key: &PrivateKeyDer<'_>, text: &[u8]) -> Result<Vec<u8>, CliError> {
    const SCHEMES: [SignatureScheme; 3] =
        [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::ED25519];
    let unfit =
        || CliError::unfit("an approval is signed by ECDSA on P-256 or P-384, or by Ed25519: this key is another");
    let signer = any_supported_type(key).map_err(|_| unfit())?.choose_scheme(&SCHEMES).ok_or_else(unfit)?;
    signer.sign(text).map_err(|_| unfit())
}

fn document(one: &Approval) -> Value {
    json!({
        "name": one.name,
        "action": one.action,
        "requester": one.requester,
        "request": one.request,
        "summary": one.summary,
        "create_time": instant(one.create_time.as_ref()),
        "expire_time": instant(one.expire_time.as_ref()),
        "need": one.need,
        "have": one.have,
        "approved_by": one.approved_by,
    })
}

fn shown(one: &Approval, done: &str) -> String {
    let told = facts([
        ("approval", one.name.clone()),
        ("is", done.to_owned()),
        ("asked by", one.requester.clone()),
        ("for", one.summary.clone()),
        ("has", format!("{} of {}", one.have, one.need)),
    ]);
    match done == "approved" && one.have >= one.need {
        true => format!("{told}\nNext: {} asks for the same again", one.requester),
        false => told,
    }
}
