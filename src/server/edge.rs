//! What every service needs of the edge: the vault, who is calling, and how far serving has come.

use std::sync::Arc;

use strongroom_access::{Actor, Assertion, Role};
use strongroom_storage::Store;
use strongroom_vault::{Caller, Error, Vault};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::{Request, Status};

use crate::actors::{ActorToken, Actors};
use crate::bulk;
use crate::door::Door;
use crate::errors;
use crate::gate;
use crate::identity::{self, Peer};
use crate::share::Load;
use crate::stage::Stage;

/// The metadata in which an assertion of `StepUp` is shown.
pub(crate) const SECOND_FACTOR: &str = "strongroom-second-factor";

/// Items of a request that is large: it takes half a millisecond or more.
const LARGE: usize = 64;

/// The vault, as the services see it.
pub(crate) struct Edge<S: Store> {
    pub door: Arc<Door<S>>,
    pub stage: watch::Receiver<Stage>,
    /// The runtime that long work is done on, apart from the threads of connections.
    pub workers: Handle,
    /// Who vouches for the people behind services.
    pub actors: Arc<Actors>,
}

// Derived, it would ask a store to be Clone.
impl<S: Store> Clone for Edge<S> {
    fn clone(&self) -> Self {
        Self {
            door: Arc::clone(&self.door),
            stage: self.stage.clone(),
            workers: self.workers.clone(),
            actors: Arc::clone(&self.actors),
        }
    }
}

impl<S: Store> Edge<S> {
    /// The vault, unless it is sealed.
    pub fn vault(&self) -> Result<Arc<Vault<S>>, Status> {
        self.door.vault()
    }

    /// Who sent a request: asked again now that its message is here, since a certificate may have ended meanwhile.
    pub fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let room = request.extensions().get::<Load>().map(Load::room);
        let (_, caller) = self.shown(request)?;
        Ok(Caller { room, ..caller })
    }

    /// What a request that begins a stream shows of who calls: good for as long as it holds.
    pub fn begun<T>(&self, request: &Request<T>) -> Result<Shown, Status> {
        Ok(self.shown(request)?.0)
    }

    /// Who calls by what was shown, at this moment. Each message of a stream asks again.
    pub fn again(&self, shown: &Shown) -> Result<Caller, Status> {
        let caller = self.identify(&shown.peer)?;
        let actor = self.actor(&caller, shown.token.as_ref())?;
        Ok(Caller { second_factor: shown.second_factor.clone(), actor, ..caller })
    }

    /// What a request shows of who calls, and who that is.
    fn shown<T>(&self, request: &Request<T>) -> Result<(Shown, Caller), Status> {
        let peer = peer(request)?;
        let caller = self.identify(&peer)?;
        let second_factor = second_factor(request, &caller)?;
        let token = ActorToken::of(request)?;
        let actor = self.actor(&caller, token.as_ref())?;
        let caller = Caller { second_factor: second_factor.clone(), actor, ..caller };
        Ok((Shown { peer, second_factor, token }, caller))
    }

    /// Who reads the ledger. Nobody does so on somebody's behalf: a stream of it would go on when that one is not vouched for any
    /// more.
    pub fn reader<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = self.caller(request)?;
        match caller.actor {
            None => Ok(caller),
            Some(_) => Err(errors::status(Error::ActorTokenRefused { check: "audit" })),
        }
    }

    /// Does a request's work: a small one's where its connection is, a large one's apart, where it keeps nobody waiting
    /// and a connection with several of them has more than one thread.
    pub async fn work<T: Send + 'static>(
        &self,
        items: usize,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Status> {
        if items < LARGE { Ok(work.await) } else { bulk::apart(&self.workers, work).await }
    }

    /// Changes rules or keys even if the caller hangs up or waits no longer: what is on disk must come into memory. Apart,
    /// since others wait for it: it must not wait for what a connection's thread has queued.
    pub async fn to_its_end<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Status> {
        let done = self.workers.spawn(change).await;
        done.map_err(|_| errors::status(Error::Internal("a change did not end")))?.map_err(errors::status)
    }

    /// On whose behalf a caller calls at this moment, if it brought a token.
    fn actor(&self, caller: &Caller, token: Option<&ActorToken>) -> Result<Option<Arc<Actor>>, Status> {
        match token {
            None => Ok(None),
            token => self.actors.actor(caller, token, &self.vault()?.directory(), identity::now()),
        }
    }

    /// Who a peer is at this moment.
    pub fn identify(&self, peer: &Peer) -> Result<Caller, Status> {
        Ok(peer.caller(&self.vault()?.directory(), identity::now())?)
    }
}

/// What a request showed of who calls.
#[derive(Clone)]
pub(crate) struct Shown {
    peer: Peer,
    second_factor: Option<Arc<Assertion>>,
    token: Option<ActorToken>,
}

/// The other end of the connection that brought a request.
pub(crate) fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get::<Peer>().cloned().ok_or_else(gate::no_peer)
}

/// What a request shows as its second factor. A service has none, and nobody looks for it.
fn second_factor<T>(request: &Request<T>, caller: &Caller) -> Result<Option<Arc<Assertion>>, Status> {
    if !matches!(caller.principal.role, Role::Officer | Role::Privacy) {
        return Ok(None);
    }
    let mut shown = request.metadata().get_all(SECOND_FACTOR).iter();
    match (shown.next(), shown.next()) {
        (None, _) => Ok(None),
        (Some(text), None) => match Assertion::parse(text.as_encoded_bytes()) {
            Some(assertion) => Ok(Some(Arc::new(assertion))),
            None => Err(errors::status(Error::SecondFactorNotAccepted)),
        },
        // Of two, nobody knows which is meant.
        _ => Err(errors::status(Error::SecondFactorNotAccepted)),
    }
}
