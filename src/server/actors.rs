//! Who vouches for the people behind services: issuers, their keys while the vault runs, and what a request brings.
//!
//! A service passes the token that its own user came with. Whose it is says a signature under a key of an issuer that the
//! configuration names; so a service can name nobody who has not come to it, and nobody for longer than the token says.

mod keys;
mod signature;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use strongroom_access::{Actor, Directory, Role, SpiffeId};
use strongroom_proto::v1;
use strongroom_vault::{Caller, Error};
use tokio::sync::oneshot;
use tonic::{Request, Status};
use zeroize::Zeroizing;

use crate::errors;
pub use keys::KEYS_BYTES;
use keys::Keys;

/// The metadata in which a service passes the token of the person on whose behalf it calls.
pub(crate) const ACTOR: &str = "strongroom-actor";
/// The most seconds that clocks may differ by.
const LEEWAY: u64 = 60;
/// The most seconds that a token may live: a day.
const LIFETIME: u64 = 86_400;
/// Issuers of a vault.
const ISSUERS: usize = 64;
/// Looks in a row at a file that can't be used, after which its keys count no more: whoever takes the file away takes the keys
/// back, and whoever replaces it clumsily has some time.
const LOOKS: u32 = 10;
/// Principals of which it is remembered when a refused token was told.
const REFUSED: usize = 1_024;

/// What the configuration says of one issuer.
#[derive(Clone, Debug)]
pub struct IssuerRules {
    /// What the ledger calls it: short, a name.
    pub name: String,
    /// The `iss` of its tokens.
    pub issuer: String,
    /// What must stand in their `aud`.
    pub audience: String,
    /// The algorithms that they may be signed by: `ES256`, `EdDSA`.
    pub algorithms: Vec<String>,
    /// The claim that holds the role.
    pub role_claim: String,
    /// The claim that holds the labels.
    pub labels_claim: String,
    /// How far clocks may differ, in seconds.
    pub leeway_seconds: u64,
    /// How long a token may live, in seconds.
    pub max_lifetime_seconds: u64,
    /// For people of which tenants it speaks; `*` for those of all.
    pub tenants: Vec<String>,
    /// The claim that holds a person's tenant; needed if it speaks for several.
    pub tenant_claim: Option<String>,
}

impl IssuerRules {
    fn speaks_for(&self, tenant: &str) -> bool {
        self.tenants.iter().any(|name| name == "*" || name == tenant)
    }

    /// The algorithms, if all is right.
    fn check(&self) -> Result<Vec<Algorithm>, String> {
        // A name has the form of a principal's, so that it can stand in a leaf.
        if SpiffeId::parse(&format!("spiffe://x/system/operator/{}", self.name)).is_err() {
            return Err("`name` must be 1 to 64 of A-Z a-z 0-9 . - _".to_owned());
        }
        let claims = [&self.role_claim, &self.labels_claim].into_iter().chain(&self.tenant_claim);
        if [&self.issuer, &self.audience].into_iter().chain(claims).any(String::is_empty) {
            return Err(
                "`issuer`, `audience`, `role_claim`, `labels_claim` and `tenant_claim` must not be empty".to_owned()
            );
        }
        if self.leeway_seconds > LEEWAY {
            return Err(format!("`leeway_seconds` is at most {LEEWAY}: keep clocks by NTP"));
        }
        if !(1..=LIFETIME).contains(&self.max_lifetime_seconds) {
            return Err(format!("`max_lifetime_seconds` is 1 to {LIFETIME}"));
        }
        if self.tenants.is_empty() {
            return Err("`tenants` must name those for whose people it speaks; [\"*\"] for all".to_owned());
        }
        let several = self.tenants.len() > 1 || self.tenants.iter().any(|name| name == "*");
        if several && self.tenant_claim.is_none() {
            return Err("it speaks for several tenants, so `tenant_claim` must name the claim that says whose person it is: else \
                        people of one could act at the services of another"
                .to_owned());
        }
        if self.algorithms.is_empty() {
            return Err("`algorithms` must not be empty; [\"ES256\", \"EdDSA\"] is usual".to_owned());
        }
        let asymmetric = |name: &String| {
            match name.parse::<Algorithm>() {
            Ok(algorithm) if algorithm.family() != AlgorithmFamily::Hmac => Ok(algorithm),
            _ => Err("`algorithms` may be ES256, ES384, EdDSA, RS256, RS384, RS512, PS256, PS384 and PS512: signatures that \
                      the vault can check and can't make"
                .to_owned()),
        }
        };
        self.algorithms.iter().map(asymmetric).collect()
    }
}

/// Where an issuer's keys are read, or why they are not.
pub type ReadKeys = Arc<dyn Fn() -> Result<Vec<u8>, String> + Send + Sync>;

/// An issuer, as the vault trusts it.
struct Issuer {
    rules: IssuerRules,
    algorithms: Vec<Algorithm>,
    read: ReadKeys,
    in_force: ArcSwap<InForce>,
    told: Mutex<Told>,
    /// Whether a look at the file is under way.
    looking: AtomicBool,
}

/// Keys that came into force together.
#[derive(Default)]
struct InForce {
    keys: Keys,
    /// The file that they are from, if there was one.
    file: Option<Vec<u8>>,
}

/// What is told of an issuer's keys.
#[derive(Default)]
struct Told {
    /// When others came into force last, in seconds since 1970.
    reloaded: Option<i64>,
    /// Why the file is not what is in force, or that it vouches for nobody; empty if all is well.
    problem: String,
    /// Looks in a row at a file that can't be used.
    failed: u32,
}

impl Issuer {
    /// Looks at the file, at `now` in seconds since 1970, and takes what is new and good.
    fn look(&self, now: i64) {
        let taken = (self.read)().and_then(|file| match self.in_force.load().file.as_ref() == Some(&file) {
            true => Ok(None),
            false => keys::read(&file, &self.algorithms).map(|keys| Some(InForce { keys, file: Some(file) })),
        });
        self.take(taken, now);
    }

    /// The same on a thread of its own, whose end comes with the answer. A look that has not ended when the next one is due,
    /// on a disk that answers no more, is one that failed.
    fn look_apart(self: &Arc<Self>, now: i64) -> Option<oneshot::Receiver<()>> {
        if self.looking.swap(true, Ordering::AcqRel) {
            self.take(Err("its file can't be read: the last look at it has not ended yet".to_owned()), now);
            return None;
        }
        let (ended, end) = oneshot::channel();
        let issuer = Arc::clone(self);
        let look = move || {
            issuer.look(now);
            issuer.looking.store(false, Ordering::Release);
            // Whoever waited may have given up.
            let _ = ended.send(());
        };
        if let Err(error) = thread::Builder::new().name("issuer-keys".to_owned()).spawn(look) {
            self.looking.store(false, Ordering::Release);
            self.take(Err(format!("there is no thread to read its file: {error}")), now);
        }
        Some(end)
    }

    /// What a look has found: other keys, the same ones, or why there are none.
    fn take(&self, taken: Result<Option<InForce>, String>, now: i64) {
        let issuer = &self.rules.name;
        let mut told = self.lock();
        let problem = match taken {
            Ok(new) => {
                told.failed = 0;
                if let Some(new) = new {
                    let keys = new.keys.len();
                    tracing::info!(issuer, keys, "new keys of an issuer of actors are in force");
                    self.in_force.store(Arc::new(new));
                    told.reloaded = Some(now);
                }
                match self.in_force.load().keys.is_empty() {
                    true => {
                        "it has no public key with a `kid` that the algorithms which are allowed can be checked with: \
                             nobody is vouched for"
                            .to_owned()
                    }
                    false => String::new(),
                }
            }
            Err(problem) => {
                told.failed = told.failed.saturating_add(1);
                problem
            }
        };
        if told.problem != problem {
            if !problem.is_empty() {
                tracing::warn!(
                    issuer,
                    why = problem,
                    looks = LOOKS,
                    "the keys of an issuer of actors can't be used: \
                               those in force are dropped after so many looks"
                );
            }
            told.problem = problem;
        }
        if told.failed >= LOOKS && !self.in_force.load().keys.is_empty() {
            tracing::warn!(
                issuer,
                looks = told.failed,
                "the keys of an issuer of actors are dropped: its file could not \
                           be used for so many looks, and nobody is vouched for until it can"
            );
            self.in_force.store(Arc::default());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // A panic elsewhere leaves it whole.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All issuers that the vault trusts.
#[derive(Default)]
pub struct Actors {
    /// By their `iss`.
    issuers: BTreeMap<String, Arc<Issuer>>,
    /// By the tenant's number and the principal, so that no service hides what others are refused.
    refused: Mutex<BTreeMap<(u32, String), Refused>>,
}

/// Tokens of a principal that were refused: one line of log a second at most, however many there are.
#[derive(Default)]
struct Refused {
    /// When the last line was written, in seconds since 1970.
    told: i64,
    /// How many were refused since.
    since: u64,
}

impl Actors {
    /// The issuers of a configuration, each with where its keys are read, or what is wrong with one of them.
    pub fn new(issuers: impl IntoIterator<Item = (IssuerRules, ReadKeys)>) -> Result<Self, String> {
        signature::install();
        let mut names = BTreeSet::new();
        let mut found = BTreeMap::new();
        for (rules, read) in issuers {
            let algorithms = rules.check().map_err(|why| format!("`{}`: {why}", rules.issuer))?;
            if !names.insert(rules.name.clone()) {
                return Err(format!("two issuers are called `{}`: the ledger could not tell them apart", rules.name));
            }
            let (in_force, told, looking) = (ArcSwap::default(), Mutex::default(), AtomicBool::default());
            let issuer = Issuer { rules, algorithms, read, in_force, told, looking };
            if let Some(twice) = found.insert(issuer.rules.issuer.clone(), Arc::new(issuer)) {
                return Err(format!("there are two issuers `{}`: keep one", twice.rules.issuer));
            }
        }
        match found.len() > ISSUERS {
            true => Err(format!("there are {} issuers, and at most {ISSUERS} may be", found.len())),
            false => Ok(Self { issuers: found, refused: Mutex::default() }),
        }
    }

    /// Looks at all files, each on a thread of its own, at `now` in seconds since 1970. Nobody has to wait for the ends that
    /// it answers.
    pub(crate) fn look_apart(&self, now: i64) -> Vec<oneshot::Receiver<()>> {
        self.issuers.values().filter_map(|issuer| issuer.look_apart(now)).collect()
    }

    /// Looks at all files.
    #[cfg(test)]
    pub(crate) fn look(&self, now: i64) {
        self.issuers.values().for_each(|issuer| issuer.look(now));
    }

    /// What `Status` says. What is wrong names files, so it is not for everybody.
    pub(crate) fn status(&self, with_problem: bool) -> Vec<v1::ActorIssuerStatus> {
        let of = |issuer: &Arc<Issuer>| {
            let told = issuer.lock();
            v1::ActorIssuerStatus {
                name: issuer.rules.name.clone(),
                keys: u32::try_from(issuer.in_force.load().keys.len()).unwrap_or(u32::MAX),
                reload_time: told.reloaded.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
                problem: if with_problem { told.problem.clone() } else { String::new() },
            }
        };
        self.issuers.values().map(of).collect()
    }

    /// On whose behalf a caller calls, at `now` in seconds since 1970, if it says so.
    pub(crate) fn actor(
        &self,
        caller: &Caller,
        token: Option<&ActorToken>,
        directory: &Directory,
        now: i64,
    ) -> Result<Option<Arc<Actor>>, Status> {
        let Some(ActorToken(token)) = token else { return Ok(None) };
        let actor = match caller.principal.role {
            Role::App => {
                let tenant = directory.tenants.iter().find(|(_, number)| **number == caller.principal.tenant);
                // Nobody of a tenant that is not there any more.
                let tenant = tenant.map_or("", |(name, _)| name);
                token::check(token, tenant, &self.issuers, u64::try_from(now).unwrap_or(0))
            }
            // People come with their own certificates, and nobody is behind a job.
            _ => Err(Error::ActorTokenRefused { check: "caller" }),
        };
        actor.map(|actor| Some(Arc::new(actor))).map_err(|error| {
            self.log(caller, &error, now);
            errors::status(error)
        })
    }

    fn log(&self, caller: &Caller, error: &Error, now: i64) {
        let (client, principal) = (&*caller.client, &caller.principal.name);
        if let Some(others) = self.tell(caller.principal.tenant.0, principal, now) {
            tracing::warn!(client, ?principal, others, why = %error, "a token of an actor is refused");
        }
    }

    /// Whether a refusal is told, and how many of the principal were not since the last that was.
    fn tell(&self, tenant: u32, principal: &str, now: i64) -> Option<u64> {
        // A panic elsewhere leaves it whole.
        let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (tenant, principal.to_owned());
        if all.len() >= REFUSED && !all.contains_key(&key) {
            all.retain(|_, refused| refused.told == now);
            if all.len() >= REFUSED {
                // Those who are too many have one line together.
                key = (tenant, String::new());
            }
        }
        let refused = all.entry(key).or_default();
        if refused.told == now {
            refused.since += 1;
            return None;
        }
        let others = std::mem::take(refused).since;
        refused.told = now;
        Some(others)
    }
}

/// The token that a request brought, wiped when the request is done.
#[derive(Clone)]
pub(crate) struct ActorToken(Arc<Zeroizing<Vec<u8>>>);

impl ActorToken {
    /// What a request brings; none if it brings none.
    pub fn of<T>(request: &Request<T>) -> Result<Option<Self>, Status> {
        let mut brought = request.metadata().get_all(ACTOR).iter();
        match (brought.next(), brought.next()) {
            (None, _) => Ok(None),
            (Some(one), None) if one.as_encoded_bytes().len() <= token::TOKEN_BYTES => {
                Ok(Some(Self(Arc::new(Zeroizing::new(one.as_encoded_bytes().to_vec())))))
            }
            // Of two, nobody knows which is meant.
            _ => Err(errors::status(Error::ActorTokenRefused { check: "size" })),
        }
    }
}
