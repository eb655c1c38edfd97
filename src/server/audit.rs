//! strongroom.v1.Audit: the ledger, for auditors.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{
    AddCosignature, Archive, Error, Export, ExportPage, GetArchive, LeafFilter, ProveGrowth, ProveLeaf, SignedExport,
    Tail, Vault, Wanted,
};
use tonic::{Request, Response, Status};

use crate::edge::Edge;
use crate::errors::status;
use crate::instants;
use crate::tail::Followed;

/// The service.
pub(crate) struct AuditService<S: Store>(pub Edge<S>);

#[tonic::async_trait]
impl<S: Store> v1::audit_server::Audit for AuditService<S> {
    type ExportStream = Pin<Box<dyn Stream<Item = Result<v1::ExportResponse, Status>> + Send>>;

    async fn export(&self, request: Request<v1::ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        let (shown, caller) = (self.0.begun(&request)?, self.0.reader(&request)?);
        let asked = asked(request.into_inner()).map_err(status)?;
        let pages = self.0.vault()?.export(&caller, &asked).await.map_err(status)?;
        let edge = self.0.clone();
        let answers = stream::try_unfold(Some(pages), move |pages| {
            let (edge, shown) = (edge.clone(), shown.clone());
            async move {
                let Some(mut pages) = pages else { return Ok(None) };
                let page = pages.next().await.map_err(status)?;
                // A long export outlives neither the certificate that it began with nor the permission. Last, so that
                // what was read before is not told after.
                let (caller, vault) = (edge.again(&shown)?, edge.vault()?);
                vault.may_go_on(&caller, &pages).await.map_err(status)?;
                if let Some(page) = page {
                    return Ok(Some((answer(page, pages.total), Some(pages))));
                }
                let signed = vault.sign_export(&pages).map_err(status)?;
                let (total, looked) = (pages.total, pages.total);
                let last = |signed| v1::ExportResponse { total, looked, signed: Some(signed), ..Default::default() };
                Ok(signed.map(|signed| (last(to_wire(&vault, signed)), None)))
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type TailStream = Pin<Box<dyn Stream<Item = Result<v1::TailResponse, Status>> + Send>>;

    async fn tail(&self, request: Request<v1::TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let (shown, caller) = (self.0.begun(&request)?, self.0.reader(&request)?);
        let v1::TailRequest { first, log } = request.into_inner();
        let leaves = self.0.vault()?.tail(&caller, &Tail { first, log }).await.map_err(status)?;
        let followed = Followed { edge: self.0.clone(), shown, leaves };
        Ok(Response::new(Box::pin(stream::try_unfold(followed, Followed::next))))
    }

    async fn archive(&self, request: Request<v1::ArchiveRequest>) -> Result<Response<v1::ArchiveResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::ArchiveRequest { manifest, place } = request.into_inner();
        self.0.vault()?.archive(&caller, &Archive { manifest, place }).await.map_err(status)?;
        Ok(Response::new(v1::ArchiveResponse {}))
    }

    async fn get_archive(
        &self,
        request: Request<v1::GetArchiveRequest>,
    ) -> Result<Response<v1::GetArchiveResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::GetArchiveRequest { before_time, log } = request.into_inner();
        let mut wrong = Vec::new();
        let before = instants::from_wire(before_time.as_ref(), || "before_time".to_owned(), &mut wrong);
        if !wrong.is_empty() {
            return Err(status(Error::Invalid(wrong)));
        }
        let archived = self.0.vault()?.get_archive(&caller, &GetArchive { before, log }).await.map_err(status)?;
        Ok(Response::new(v1::GetArchiveResponse {
            end: archived.end,
            end_time: (archived.end > 0).then(|| instants::to_wire(archived.time)),
            place: archived.place,
            manifest_sha256: archived.manifest.map(|sum| Bytes::copy_from_slice(&sum)).unwrap_or_default(),
            decided: archived.decided.unwrap_or(0),
            removing: archived.removing,
            could_end: archived.could_end,
        }))
    }

    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        let caller = self.0.reader(&request)?;
        let v1::GetCheckpointRequest { log, witnessed, awaited } = request.into_inner();
        let wanted = match (witnessed, awaited) {
            (false, false) => Wanted::Newest,
            (true, false) => Wanted::Witnessed,
            (false, true) => Wanted::Awaited,
            (true, true) => {
                return Err(status(Error::invalid("awaited", "not_both", "ask for `witnessed` or for `awaited`")));
            }
        };
        let vault = self.0.vault()?;
        let checkpoint = vault.checkpoint_wanted(&caller, &log, wanted).await.map_err(status)?;
        let (witnesses, witnesses_needed) = witnesses(&vault, &checkpoint.note);
        Ok(Response::new(v1::GetCheckpointResponse {
            checkpoint: checkpoint.note,
            keys: checkpoint.keys,
            witnesses,
            witnesses_needed,
        }))
    }

    async fn add_cosignature(
        &self,
        request: Request<v1::AddCosignatureRequest>,
    ) -> Result<Response<v1::AddCosignatureResponse>, Status> {
        let caller = self.0.reader(&request)?;
        let v1::AddCosignatureRequest { checkpoint, log } = request.into_inner();
        let added =
            self.0.vault()?.add_cosignature(&caller, &AddCosignature { checkpoint, log }).await.map_err(status)?;
        Ok(Response::new(v1::AddCosignatureResponse {
            leaves: added.leaves,
            witnesses: small(added.witnesses),
            needed: small(added.needed),
        }))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<v1::GetInclusionProofRequest>,
    ) -> Result<Response<v1::GetInclusionProofResponse>, Status> {
        let caller = self.0.reader(&request)?;
        let v1::GetInclusionProofRequest { index, size, log } = request.into_inner();
        let proof = self.0.vault()?.prove_leaf(&caller, &ProveLeaf { index, size, log }).await.map_err(status)?;
        Ok(Response::new(v1::GetInclusionProofResponse {
            hashes: hashes(&proof.hashes),
            size: proof.size,
            checkpoint: proof.checkpoint.note,
            keys: proof.checkpoint.keys,
        }))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<Response<v1::GetConsistencyProofResponse>, Status> {
        let caller = self.0.reader(&request)?;
        let v1::GetConsistencyProofRequest { from, to, log } = request.into_inner();
        let proof = self.0.vault()?.prove_growth(&caller, &ProveGrowth { from, to, log }).await.map_err(status)?;
        Ok(Response::new(v1::GetConsistencyProofResponse {
            hashes: hashes(&proof.hashes),
            to: proof.size,
            checkpoint: proof.checkpoint.note,
            keys: proof.checkpoint.keys,
        }))
    }
}

fn asked(request: v1::ExportRequest) -> Result<Export, Error> {
    let v1::ExportRequest { first, end, log, filter, proofs, every_leaf, without_archived } = request;
    let filter = filter.unwrap_or_default();
    let v1::LeafFilter { from_time, to_time, principal, subject, token, field, action, decision, .. } = filter;
    let v1::LeafFilter { actor, changes, class, view, reads, denied, reason, refused, handle, row, purpose, .. } =
        filter;
    let mut wrong = Vec::new();
    let from = instants::from_wire(from_time.as_ref(), || "filter.from_time".to_owned(), &mut wrong);
    let to = instants::from_wire(to_time.as_ref(), || "filter.to_time".to_owned(), &mut wrong);
    let about = LeafFilter { principal, subject, token, field, action, decision, ..LeafFilter::default() };
    let about = LeafFilter { denied, reason, refused, handle, row, purpose, ..about };
    let filter = LeafFilter { from, to, actor, changes, class, view, reads, ..about };
    match wrong.is_empty() {
        true => Ok(Export { first, end, log, filter, proofs, every_leaf, without_archived }),
        false => Err(Error::Invalid(wrong)),
    }
}

fn answer(page: ExportPage, total: u64) -> v1::ExportResponse {
    let ExportPage { leaves, left_out, looked, filter, archived } = page;
    let left_out = left_out.into_iter().map(|subtree| v1::Subtree {
        start: subtree.start,
        height: subtree.height.into(),
        hash: Bytes::copy_from_slice(&subtree.hash),
    });
    let filter = filter.unwrap_or_default();
    let archived = archived.map(|left| v1::LeftArchived {
        end: left.end,
        end_time: Some(instants::to_wire(left.until)),
        place: left.place,
    });
    v1::ExportResponse { leaves, total, looked, left_out: left_out.collect(), signed: None, filter, archived }
}

fn to_wire<S: Store>(vault: &Vault<S>, signed: SignedExport) -> v1::SignedExport {
    let SignedExport { manifest, checkpoint } = signed;
    let (witnesses, witnesses_needed) = witnesses(vault, &checkpoint.note);
    v1::SignedExport { manifest, checkpoint: checkpoint.note, keys: checkpoint.keys, witnesses, witnesses_needed }
}

/// How many witnesses have cosigned a checkpoint, and how many are needed.
fn witnesses<S: Store>(vault: &Vault<S>, note: &str) -> (u32, u32) {
    let (count, needed) = vault.cosigned_by(note).unwrap_or_default();
    (small(count), small(needed))
}

/// No list of witnesses is longer.
fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn hashes(proof: &[[u8; 32]]) -> Vec<Bytes> {
    proof.iter().map(|hash| Bytes::copy_from_slice(hash)).collect()
}
