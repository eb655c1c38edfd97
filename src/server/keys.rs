//! strongroom.v1.Keys: the life of keys, for rotation jobs and security officers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::{
    BackupKeystore, CancelJob, DestroyKeyVersion, GetJob, ImportOwnKey, ImportPublicKey, Job, KeyCopy, ListedKey,
    MoveOwnKey, NewKeyCopy, OwnKeyInfo, ProviderSource, RootKind, RotateKey, SetKeyState, StartRewrap, StartRoll,
    StrikeKeystoreCopy,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::edge::{self, Edge};
use crate::errors::status;
use crate::identity::Peer;
use crate::instants;
use crate::stage::{self, Stage};

/// How often a watcher is told at most.
const WATCHED_EVERY: Duration = Duration::from_millis(200);

/// How often a watcher who is told nothing asks anew.
const ASKED_EVERY: Duration = Duration::from_secs(15);

/// The service.
pub(crate) struct KeysService<S: Store>(pub Edge<S>);

#[tonic::async_trait]
impl<S: Store> v1::keys_server::Keys for KeysService<S> {
    type WatchJobStream = Pin<Box<dyn Stream<Item = Result<v1::Job, Status>> + Send>>;

    async fn list_keys(&self, request: Request<v1::ListKeysRequest>) -> Result<Response<v1::ListKeysResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let keys = self.0.vault()?.list_keys(&caller).await.map_err(status)?;
        Ok(Response::new(v1::ListKeysResponse { keys: keys.into_iter().map(listed).collect() }))
    }

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::RotateKeyResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::RotateKeyRequest { name, from_version } = request.into_inner();
        let vault = self.0.vault()?;
        let change = async move { vault.rotate_key(&caller, &RotateKey { name, from_version }).await };
        let rotated = self.0.to_its_end(change).await?;
        Ok(Response::new(v1::RotateKeyResponse { version: rotated.version, rotated: rotated.rotated }))
    }

    async fn set_key_state(
        &self,
        request: Request<v1::SetKeyStateRequest>,
    ) -> Result<Response<v1::SetKeyStateResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::SetKeyStateRequest { name, version, state } = request.into_inner();
        let vault = self.0.vault()?;
        let change = async move { vault.set_key_state(&caller, &SetKeyState { name, version, state }).await };
        self.0.to_its_end(change).await?;
        Ok(Response::new(v1::SetKeyStateResponse {}))
    }

    async fn destroy_key_version(
        &self,
        request: Request<v1::DestroyKeyVersionRequest>,
    ) -> Result<Response<v1::DestroyKeyVersionResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::DestroyKeyVersionRequest { name, version, dry_run } = request.into_inner();
        let vault = self.0.vault()?;
        let request = DestroyKeyVersion { name, version, dry_run };
        let change = async move { vault.destroy_key_version(&caller, &request).await };
        // Who only counts stops when nobody waits any more.
        let dependants = if dry_run { change.await.map_err(status)? } else { self.0.to_its_end(change).await? };
        Ok(Response::new(v1::DestroyKeyVersionResponse { dependants }))
    }

    async fn backup_keystore(
        &self,
        request: Request<v1::BackupKeystoreRequest>,
    ) -> Result<Response<v1::BackupKeystoreResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::BackupKeystoreRequest { label } = request.into_inner();
        let vault = self.0.vault()?;
        let backup = async move { vault.backup_keystore(&caller, &BackupKeystore { label }).await };
        let NewKeyCopy { listed, bytes } = self.0.to_its_end(backup).await?;
        Ok(Response::new(v1::BackupKeystoreResponse { copy: Some(copy(listed)), content: bytes.into() }))
    }

    async fn list_keystore_copies(
        &self,
        request: Request<v1::ListKeystoreCopiesRequest>,
    ) -> Result<Response<v1::ListKeystoreCopiesResponse>, Status> {
        let caller = self.0.caller(&request)?;
        let copies = self.0.vault()?.list_keystore_copies(&caller).await.map_err(status)?;
        Ok(Response::new(v1::ListKeystoreCopiesResponse { copies: copies.into_iter().map(copy).collect() }))
    }

    async fn strike_keystore_copy(
        &self,
        request: Request<v1::StrikeKeystoreCopyRequest>,
    ) -> Result<Response<v1::KeystoreCopy>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::StrikeKeystoreCopyRequest { name } = request.into_inner();
        let vault = self.0.vault()?;
        let strike = async move { vault.strike_keystore_copy(&caller, &StrikeKeystoreCopy { name }).await };
        Ok(Response::new(copy(self.0.to_its_end(strike).await?)))
    }

    async fn start_rewrap(&self, request: Request<v1::StartRewrapRequest>) -> Result<Response<v1::Job>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::StartRewrapRequest { name } = request.into_inner();
        let vault = self.0.vault()?;
        let start = async move { vault.start_rewrap(&caller, &StartRewrap { name }).await };
        Ok(Response::new(told(self.0.to_its_end(start).await?)))
    }

    async fn start_roll(&self, request: Request<v1::StartRollRequest>) -> Result<Response<v1::Job>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::StartRollRequest { name, subject } = request.into_inner();
        let vault = self.0.vault()?;
        let start = async move { vault.start_roll(&caller, &StartRoll { name, subject }).await };
        Ok(Response::new(told(self.0.to_its_end(start).await?)))
    }

    async fn start_reindex(&self, request: Request<v1::StartReindexRequest>) -> Result<Response<v1::Job>, Status> {
        let caller = self.0.caller(&request)?;
        let vault = self.0.vault()?;
        let start = async move { vault.start_reindex(&caller).await };
        Ok(Response::new(told(self.0.to_its_end(start).await?)))
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::GetJobRequest { name } = request.into_inner();
        let job = self.0.vault()?.get_job(&caller, &GetJob { name }).await.map_err(status)?;
        Ok(Response::new(told(job)))
    }

    async fn watch_job(&self, request: Request<v1::WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        let (peer, caller) = (edge::peer(&request)?, self.0.caller(&request)?);
        let v1::WatchJobRequest { name } = request.into_inner();
        let (job, after) = self.0.vault()?.watch_job(&caller, &GetJob { name }).await.map_err(status)?;
        let watched =
            Watched { edge: self.0.clone(), peer, name: job.name.clone(), after, first: Some(job), ended: false };
        Ok(Response::new(Box::pin(stream::unfold(watched, Watched::tell))))
    }

    async fn cancel_job(&self, request: Request<v1::CancelJobRequest>) -> Result<Response<v1::Job>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::CancelJobRequest { name } = request.into_inner();
        let vault = self.0.vault()?;
        let cancel = async move { vault.cancel_job(&caller, &CancelJob { name }).await };
        Ok(Response::new(told(self.0.to_its_end(cancel).await?)))
    }

    async fn get_own_key(&self, request: Request<v1::GetOwnKeyRequest>) -> Result<Response<v1::OwnKey>, Status> {
        let caller = self.0.caller(&request)?;
        let own = self.0.vault()?.get_own_key(&caller).await.map_err(status)?;
        Ok(Response::new(own_key(own)))
    }

    async fn create_import_key(
        &self,
        request: Request<v1::CreateImportKeyRequest>,
    ) -> Result<Response<v1::ImportKey>, Status> {
        let caller = self.0.caller(&request)?;
        let vault = self.0.vault()?;
        let key = self.0.to_its_end(async move { vault.create_import_key(&caller).await }).await?;
        Ok(Response::new(v1::ImportKey {
            pem: key.pem(),
            sha256: key.fingerprint(),
            expire_time: Some(instants::to_wire(key.made.saturating_add(ImportPublicKey::AGE))),
        }))
    }

    async fn import_own_key(&self, request: Request<v1::ImportOwnKeyRequest>) -> Result<Response<v1::OwnKey>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::ImportOwnKeyRequest { wrapped, replace } = request.into_inner();
        let vault = self.0.vault()?;
        let request = ImportOwnKey { wrapped: wrapped.to_vec(), replace };
        let own = self.0.to_its_end(async move { vault.import_own_key(&caller, &request).await }).await?;
        Ok(Response::new(own_key(own)))
    }

    async fn move_own_key(&self, request: Request<v1::MoveOwnKeyRequest>) -> Result<Response<v1::OwnKey>, Status> {
        let caller = self.0.caller(&request)?;
        let v1::MoveOwnKeyRequest { to } = request.into_inner();
        let vault = self.0.vault()?;
        let provider = RootKind::ALL.into_iter().find(|kind| kind.is_outside() && kind.as_str() == to);
        let tenant = vault.tenant_name(&caller).map_err(status)?;
        let door = Arc::clone(&self.0.door);
        let provider =
            provider.map(|kind| -> ProviderSource { Arc::new(move || door.own_key_provider(&tenant, kind)) });
        let request = MoveOwnKey { to, provider };
        let own = self.0.to_its_end(async move { vault.move_own_key(&caller, request).await }).await?;
        Ok(Response::new(own_key(own)))
    }

    async fn remove_own_key(&self, request: Request<v1::RemoveOwnKeyRequest>) -> Result<Response<v1::OwnKey>, Status> {
        let caller = self.0.caller(&request)?;
        let vault = self.0.vault()?;
        let own = self.0.to_its_end(async move { vault.remove_own_key(&caller).await }).await?;
        Ok(Response::new(own_key(own)))
    }
}

/// A job that somebody watches.
struct Watched<S: Store> {
    edge: Edge<S>,
    peer: Peer,
    name: String,
    after: watch::Receiver<Option<Job>>,
    /// What is told first.
    first: Option<Job>,
    ended: bool,
}

impl<S: Store> Watched<S> {
    /// Tells how far the job has come, and so on until it ends.
    async fn tell(mut self) -> Option<(Result<v1::Job, Status>, Self)> {
        let job = match self.first.take() {
            Some(first) => first,
            None if self.ended => return None,
            None => match self.next().await? {
                Ok(job) => job,
                Err(status) => {
                    self.ended = true;
                    return Some((Err(status), self));
                }
            },
        };
        self.ended = !job.is_running();
        Some((Ok(told(job)), self))
    }

    /// How far the job has come after a while; nothing when the vault shuts down or another job has begun, and a status
    /// when the watcher may see no more.
    async fn next(&mut self) -> Option<Result<Job, Status>> {
        let come_further = async {
            tokio::time::sleep(WATCHED_EVERY).await;
            // Whoever is told nothing asks anew, like any request: the job may have ended unseen, and so may the
            // watcher's certificate, or its permission.
            tokio::time::timeout(ASKED_EVERY, self.after.changed()).await
        };
        let told = tokio::select! {
            told = come_further => told,
            () = stage::reached(self.edge.stage.clone(), Stage::Closing) => return None,
        };
        let (caller, vault) = match self.edge.identify(&self.peer).and_then(|caller| Ok((caller, self.edge.vault()?))) {
            Ok(known) => known,
            Err(status) => return Some(Err(status)),
        };
        if let Err(error) = vault.still_admits(&caller) {
            return Some(Err(status(error)));
        }
        match told {
            Ok(Ok(())) => {
                let job = self.after.borrow_and_update().clone();
                job.filter(|job| job.name == self.name).map(Ok)
            }
            // Nobody tells any more, or nobody has for a while.
            Ok(Err(_)) | Err(_) => {
                let asked = GetJob { name: self.name.clone() };
                Some(vault.get_job(&caller, &asked).await.map_err(status))
            }
        }
    }
}

fn listed(key: ListedKey) -> v1::KeyVersion {
    let (class, retention) = key.values.map_or_else(Default::default, |(class, kept)| (class.to_owned(), kept));
    v1::KeyVersion {
        name: key.name,
        version: key.version,
        state: key.state.to_owned(),
        create_time: Some(instants::to_wire(key.created)),
        state_time: Some(instants::to_wire(key.changed)),
        next_rotation_time: key.next_rotation.map(instants::to_wire),
        class,
        retention,
        copies: key.copies,
        death_time: key.dead.map(instants::to_wire),
    }
}

fn copy(copy: KeyCopy) -> v1::KeystoreCopy {
    v1::KeystoreCopy {
        name: copy.name(),
        create_time: Some(instants::to_wire(copy.time)),
        strike_time: copy.struck.map(instants::to_wire),
        label: copy.label,
        principal: copy.principal,
        keystore_number: copy.keystore,
        sha256: copy.sha256,
    }
}

fn own_key(own: Option<OwnKeyInfo>) -> v1::OwnKey {
    let Some(own) = own else { return v1::OwnKey { kind: "none".to_owned(), ..v1::OwnKey::default() } };
    let state = match (own.removed, own.locked) {
        (true, _) => "removed",
        (false, true) => "away",
        (false, false) => "present",
    };
    v1::OwnKey {
        kind: own.kind.to_string(),
        state: state.to_owned(),
        fingerprint: own.fingerprint.unwrap_or_default(),
        change_time: Some(instants::to_wire(own.changed)),
    }
}

/// A job, as it is told.
pub(crate) fn told(job: Job) -> v1::Job {
    v1::Job {
        name: job.name,
        state: job.state.to_owned(),
        principal: job.principal,
        start_time: Some(instants::to_wire(job.started)),
        update_time: Some(instants::to_wire(job.updated)),
        total: job.total,
        done: job.done,
        skipped: job.skipped,
        key: job.key,
        moved_time: (job.moved > 0).then(|| instants::to_wire(job.moved)),
        waits_for: job.waits_for,
    }
}
