//! The vault's certificates in force, and the watch over their files: what is replaced there comes into force while
//! connections go on.
//!
//! What can't be used, or would let in authorities that are not enrolled, never comes into force: the last good ones
//! stay, and the log and `Status` say why. An authority in force that is not enrolled any more, since it was removed while
//! the vault was sealed, vouches for nobody from then on, whether its file was changed or not.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use data_encoding::HEXLOWER;
use rustls::ServerConfig;
use strongroom_access::Directory;
use strongroom_proto::v1;
use tokio::sync::Notify;

use crate::actors::Actors;
use crate::identity::{self, DirectorySource};
use crate::names::NameRules;
use crate::tls::{self, TlsError, TlsMaterial, Usable};

/// A certificate that ends within this many seconds is warned about: a week.
const SOON: i64 = 7 * 86_400;
/// How often a warning is repeated, in seconds.
const REPEAT: i64 = 86_400;

/// Where the certificates are looked for while the vault runs.
pub struct Reload {
    /// Reads all of them, or says why not.
    pub read: Arc<dyn Fn() -> Result<TlsMaterial, String> + Send + Sync>,
    /// How often.
    pub every: Duration,
    /// Asks for it at once.
    pub now: Arc<Notify>,
}

/// Certificates that came into force together.
pub(crate) struct InForce {
    /// Which ones these are: 1 at start, one more each time.
    pub generation: u64,
    pub usable: Usable,
    /// Of what was read; `None` if that holds authorities that are not enrolled any more.
    fingerprint: Option<[u8; 32]>,
}

/// The authorities that vouch for callers at this moment: SHA-256 of each certificate (DER). Clones are the same. A vault
/// that is unsealed is asked about these, not about those that the process started with.
#[derive(Clone, Default)]
pub struct Vouching(Arc<ArcSwap<Vec<[u8; 32]>>>);

impl Vouching {
    /// These, until others come into force.
    pub fn new(authorities: Vec<[u8; 32]>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(authorities)))
    }

    /// Those of this moment.
    pub fn now(&self) -> Arc<Vec<[u8; 32]>> {
        self.0.load_full()
    }
}

/// What is told of the watch.
#[derive(Default)]
struct Told {
    /// When others came into force last, in seconds since 1970.
    reloaded: Option<i64>,
    /// Why the files are not what is in force; empty if they are.
    problem: String,
    /// When it was last warned that something ends, in seconds since 1970.
    warned: Option<i64>,
}

/// The certificates of a vault that runs.
pub(crate) struct Certificates {
    in_force: ArcSwap<InForce>,
    names: NameRules,
    told: Mutex<Told>,
    vouching: Vouching,
}

impl Certificates {
    /// Those that the vault starts with. Whoever starts it has asked the vault about their authorities.
    pub fn new(material: &TlsMaterial, names: NameRules, vouching: Vouching) -> Result<Self, TlsError> {
        let (usable, fingerprint) = (tls::usable(material)?, Some(material.fingerprint()));
        vouching.0.store(Arc::new(usable.authorities.clone()));
        let in_force = ArcSwap::from_pointee(InForce { generation: 1, usable, fingerprint });
        Ok(Self { in_force, names, told: Mutex::default(), vouching })
    }

    /// How the next connection is served.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.in_force.load().usable.server)
    }

    /// How the next connection of a caller is served who may speak HTTP/1.1 as well.
    pub fn server_with_older_http(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.in_force.load().usable.server);
        config.alpn_protocols = [tls::ALPN, tls::PUBLIC_ALPN].map(<[u8]>::to_vec).into();
        Arc::new(config)
    }

    /// How the next connection of somebody is served who needs no certificate.
    pub fn public_server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.in_force.load().usable.public_server)
    }

    /// What vouches for callers at this moment.
    pub fn in_force(&self) -> Guard<Arc<InForce>> {
        self.in_force.load()
    }

    /// The names of those whose certificates carry no URI.
    pub fn names(&self) -> &NameRules {
        &self.names
    }

    /// What `Status` says. What is wrong names files and authorities, so it is not for everybody.
    pub fn status(&self, with_problem: bool) -> v1::CertificateStatus {
        let at = |seconds| prost_types::Timestamp { seconds, nanos: 0 };
        let in_force = self.in_force.load();
        let told = self.lock();
        v1::CertificateStatus {
            not_after: Some(at(in_force.usable.not_after)),
            crl_next_update: in_force.usable.crl_next_update.map(at),
            reload_time: told.reloaded.map(at),
            problem: if with_problem { told.problem.clone() } else { String::new() },
        }
    }

    /// Takes what was read, at `now` in seconds since 1970, if it is new and good. Without a directory, while the vault
    /// is sealed, no other authorities come into force than those that are. With one, those in force are held against it
    /// first, whatever was read.
    pub fn consider(&self, read: Result<TlsMaterial, String>, directory: Option<&Directory>, now: i64) {
        if let Some(directory) = directory {
            self.disown(directory);
        }
        match read.and_then(|material| self.take(&material, directory, now)) {
            Ok(()) => self.lock().problem.clear(),
            Err(problem) => {
                let mut told = self.lock();
                if told.problem != problem {
                    // It may quote a certificate, so it is escaped.
                    tracing::warn!(why = ?problem, "the certificates on disk are not taken: those in force stay");
                    told.problem = problem;
                }
            }
        }
        self.remind(now);
    }

    /// Has no authority vouch any more that is not enrolled.
    fn disown(&self, directory: &Directory) {
        let before = self.in_force.load();
        let enrolled = |authority: &[u8; 32]| directory.trust_anchors.contains(authority);
        let gone = before.usable.authorities.iter().filter(|authority| !enrolled(authority)).count();
        if gone == 0 {
            return;
        }
        let usable = before.usable.with_authorities(enrolled).or_else(|error| {
            // Fewer of what was good a moment ago: if that can't be had, nobody is vouched for.
            tracing::error!(%error, "the authorities that are left can't be used");
            before.usable.with_authorities(|_| false)
        });
        let Ok(usable) = usable else { return };
        tracing::warn!(
            gone,
            left = usable.authorities.len(),
            "authorities that are not enrolled any more vouch for nobody"
        );
        self.enforce(InForce { generation: before.generation + 1, usable, fingerprint: None });
    }

    fn enforce(&self, in_force: InForce) {
        self.vouching.0.store(Arc::new(in_force.usable.authorities.clone()));
        self.in_force.store(Arc::new(in_force));
    }

    fn take(&self, material: &TlsMaterial, directory: Option<&Directory>, now: i64) -> Result<(), String> {
        let fingerprint = Some(material.fingerprint());
        let before = self.in_force.load();
        if before.fingerprint == fingerprint {
            return Ok(());
        }
        let usable = tls::usable(material).map_err(|error| error.to_string())?;
        if usable.not_after < now {
            return Err("the server certificate has expired: put one in place that has not".to_owned());
        }
        may_vouch(&before.usable.authorities, &usable.authorities, directory)?;
        tracing::info!(
            generation = before.generation + 1,
            not_after = usable.not_after,
            authorities = usable.authorities.len(),
            lists = material.crls.len(),
            "new certificates are in force"
        );
        self.enforce(InForce { generation: before.generation + 1, usable, fingerprint });
        self.lock().reloaded = Some(now);
        Ok(())
    }

    /// Warns once a day of what is about to end.
    fn remind(&self, now: i64) {
        let in_force = self.in_force.load();
        let (ends, list) = (in_force.usable.not_after, in_force.usable.crl_next_update);
        let (soon, overdue) = (ends - now < SOON, list.is_some_and(|next| next < now));
        let mut told = self.lock();
        if !(soon || overdue) || told.warned.is_some_and(|at| (0..REPEAT).contains(&(now - at))) {
            return;
        }
        told.warned = Some(now);
        if soon {
            let hours = (ends - now) / 3_600;
            tracing::warn!(hours, "the server certificate ends soon: put a new one and its key in place");
        }
        if overdue {
            tracing::warn!(
                "a revocation list is overdue: what it revokes stays revoked, but nobody has told of more since"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // A panic elsewhere leaves it whole.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether authorities may come into force: whoever controls the files must not be able to bring their own. Fewer may
/// always: one that was removed while the vault is sealed has to go before it is unsealed.
fn may_vouch(before: &[[u8; 32]], after: &[[u8; 32]], directory: Option<&Directory>) -> Result<(), String> {
    let Some(directory) = directory else {
        if after.iter().all(|authority| before.contains(authority)) {
            return Ok(());
        }
        return Err("the client authorities are others than before, and a sealed vault can't see whether they are \
                    enrolled: unseal it, or put the former ones back"
            .to_owned());
    };
    let strange: BTreeSet<_> = after.iter().filter(|anchor| !directory.trust_anchors.contains(*anchor)).collect();
    if let Some(&first) = strange.first() {
        let first = HEXLOWER.encode(first);
        return Err(format!(
            "{} of the client authorities are not enrolled in this vault (the first has the SHA-256 {first}), so none \
             of the file is accepted: put the enrolled ones back; those who hold the root key enrol another, while the vault \
             is stopped: `strongroom break-glass anchor add FILE`",
            strange.len()
        ));
    }
    Ok(())
}

/// Looks at the files, those of issuers too, for as long as the vault is served. Neither waits for the other: a file of
/// issuers that can't be read holds up no list of what is revoked.
pub(crate) async fn follow(
    (certificates, actors): (Arc<Certificates>, Arc<Actors>),
    directory: DirectorySource,
    reload: Option<Reload>,
) {
    let Some(Reload { read, every, now }) = reload else { return std::future::pending().await };
    loop {
        let read = Arc::clone(&read);
        let read = tokio::task::spawn_blocking(move || read());
        actors.look_apart(identity::now());
        let read = read.await;
        let read = read.unwrap_or_else(|_| Err("the certificates could not be read: the log says why".to_owned()));
        certificates.consider(read, directory().as_deref(), identity::now());
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = now.notified() => tracing::info!("the certificates are read again, as was asked"),
        }
    }
}

#[cfg(test)]
impl Certificates {
    /// Certificates that are good, without any rules.
    pub fn of(material: TlsMaterial) -> Arc<Self> {
        Arc::new(Self::new(&material, NameRules::default(), Vouching::default()).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::ReadKeys;
    use crate::identity::{Nobody, Peer};
    use crate::testing::{Authority, Issued, directory, rules};

    const APP: &str = "spiffe://bank.example/tenant/retail/app/loan-core";

    fn knows(authorities: &[&Authority]) -> Directory {
        let pem: String = authorities.iter().map(|authority| authority.pem()).collect();
        let trust_anchors = tls::authorities(pem.as_bytes()).unwrap().into_iter().collect();
        Directory { trust_anchors, ..(*directory(&[])).clone() }
    }

    fn peer(issued: &Issued, certificates: &Arc<Certificates>) -> Peer {
        Peer::new(&[issued.certificate.der().clone()], String::new(), Arc::clone(certificates)).unwrap()
    }

    fn asks(peer: &Peer) -> Result<(), Nobody> {
        peer.caller(&directory(&[]), 0).map(drop)
    }

    #[tokio::test]
    async fn a_file_of_issuers_that_does_not_answer_holds_up_no_look_at_the_certificates() {
        let (held, never) = std::sync::mpsc::channel::<()>();
        let never = Mutex::new(never);
        let keys: ReadKeys = Arc::new(move || match never.lock().unwrap().recv() {
            Ok(()) => Ok(vec![]),
            Err(error) => Err(error.to_string()),
        });
        let actors = Arc::new(Actors::new([(rules("hr"), keys)]).unwrap());
        let certificates = Certificates::of(Authority::new().server_material());
        let (looks, mut looked) = tokio::sync::mpsc::unbounded_channel();
        let read = move || looks.send(()).map_err(|error| error.to_string()).and(Err("none".to_owned()));
        let reload = Reload { read: Arc::new(read), every: Duration::from_millis(1), now: Arc::default() };
        let directory: DirectorySource = Arc::new(|| None);
        tokio::select! {
            () = follow((certificates, Arc::clone(&actors)), directory, Some(reload)) => {}
            () = async { for _ in 0..3 { looked.recv().await.unwrap(); } } => {}
        }
        assert!(actors.status(true)[0].problem.contains("has not ended"));
        drop(held);
    }

    #[test]
    fn a_pair_that_does_not_fit_is_not_taken_and_a_good_one_is() {
        let authority = Authority::new();
        let (old, new) = (authority.server_material(), authority.server_material());
        let certificates = Certificates::of(authority.server_material());
        let half = TlsMaterial { certificate_pem: new.certificate_pem.clone(), ..old };
        let published_with = certificates.public_server();
        certificates.consider(Ok(half), None, 0);
        assert_eq!(certificates.in_force().generation, 1);
        assert!(Arc::ptr_eq(&certificates.public_server(), &published_with));
        assert!(certificates.status(true).problem.contains("server certificate and key"));
        assert_eq!(certificates.status(false).problem, "");
        certificates.consider(Ok(new), None, 5);
        assert_eq!(certificates.in_force().generation, 2);
        assert!(
            !Arc::ptr_eq(&certificates.public_server(), &published_with),
            "what is published has the same certificate"
        );
        let status = certificates.status(true);
        assert_eq!((status.problem.as_str(), status.reload_time.unwrap().seconds), ("", 5));
    }

    #[test]
    fn what_has_not_changed_breaks_nothing_off() {
        let authority = Authority::new();
        let material = authority.server_material();
        let again = TlsMaterial {
            certificate_pem: material.certificate_pem.clone(),
            key_pem: material.key_pem.clone(),
            client_ca_pem: material.client_ca_pem.clone(),
            ..authority.server_material()
        };
        let certificates = Certificates::of(material);
        certificates.consider(Ok(again), None, 5);
        assert_eq!(certificates.in_force().generation, 1);
        certificates.consider(Err("it is gone".to_owned()), None, 6);
        assert_eq!(certificates.status(true).problem, "it is gone");
        assert!(certificates.status(true).reload_time.is_none());
    }

    #[test]
    fn an_expired_certificate_does_not_replace_a_good_one() {
        let authority = Authority::new();
        let certificates = Certificates::of(authority.server_material());
        certificates.consider(Ok(authority.server_material()), None, i64::MAX / 2);
        assert_eq!(certificates.in_force().generation, 1);
        assert!(certificates.status(true).problem.contains("expired"));
    }

    #[test]
    fn only_enrolled_authorities_come_into_force_and_none_while_nobody_can_tell() {
        let (first, second) = (Authority::new(), Authority::new());
        let known = knows(&[&first, &second]);
        let certificates = Certificates::of(first.server_material());
        let with = |pem: String| Ok(TlsMaterial { client_ca_pem: pem.into_bytes(), ..first.server_material() });
        let both = || with(first.pem() + &second.pem());
        certificates.consider(both(), None, 0);
        assert!(certificates.status(true).problem.contains("sealed"));
        certificates.consider(with(first.pem() + &Authority::new().pem()), Some(&known), 0);
        let problem = certificates.status(true).problem;
        assert!(problem.starts_with("1 of") && problem.contains("break-glass anchor add"), "{problem}");
        assert_eq!(certificates.in_force().generation, 1);
        certificates.consider(both(), Some(&known), 0);
        assert_eq!((certificates.in_force().generation, certificates.status(true).problem.as_str()), (2, ""));
    }

    #[test]
    fn an_authority_that_is_not_enrolled_any_more_vouches_for_nobody_though_its_file_is_unchanged() {
        let (first, second) = (Authority::new(), Authority::new());
        let material =
            || TlsMaterial { client_ca_pem: (first.pem() + &second.pem()).into_bytes(), ..first.server_material() };
        let both = material();
        let again = || TlsMaterial {
            certificate_pem: both.certificate_pem.clone(),
            key_pem: both.key_pem.clone(),
            ..material()
        };
        // Whether the file can be read at that moment or not.
        for read in [Ok(again()), Err("it is gone".to_owned())] {
            let vouching = Vouching::default();
            let certificates = Arc::new(Certificates::new(&again(), NameRules::default(), vouching.clone()).unwrap());
            let (lost, kept) = (
                peer(&second.numbered(7, "", &[APP]), &certificates),
                peer(&first.numbered(8, "", &[APP]), &certificates),
            );
            assert_eq!((asks(&lost), asks(&kept), vouching.now().len()), (Ok(()), Ok(()), 2));
            // Sealed, removed, and unsealed.
            certificates.consider(Ok(again()), None, 0);
            certificates.consider(read, Some(&knows(&[&first])), 1);
            assert_eq!((asks(&lost), asks(&kept)), (Err(Nobody::AuthorityNotAccepted), Ok(())));
            assert_eq!(*vouching.now(), tls::authorities(first.pem().as_bytes()).unwrap());
            assert_eq!(certificates.server().alpn_protocols, [tls::ALPN]);
            // It says so until the file has it no longer, and then it can come back.
            certificates.consider(Ok(again()), Some(&knows(&[&first])), 2);
            assert!(certificates.status(true).problem.contains("not enrolled"));
            assert_eq!(certificates.in_force().generation, 2);
            certificates.consider(Ok(first.server_material()), Some(&knows(&[&first])), 3);
            assert_eq!(certificates.status(true).problem, "");
            certificates.consider(Ok(again()), Some(&knows(&[&first, &second])), 4);
            assert_eq!((asks(&lost), asks(&kept), vouching.now().len()), (Ok(()), Ok(()), 2));
        }
    }

    #[test]
    fn where_no_authority_is_enrolled_any_more_nobody_is_vouched_for() {
        let (first, second) = (Authority::new(), Authority::new());
        let certificates = Certificates::of(first.server_material());
        let lost = peer(&first.numbered(7, "", &[APP]), &certificates);
        assert_eq!(asks(&lost), Ok(()));
        certificates.consider(Err("it is gone".to_owned()), Some(&knows(&[&second])), 0);
        assert_eq!(asks(&lost), Err(Nobody::AuthorityNotAccepted));
        assert_eq!(lost.named(0).err(), Some(Nobody::AuthorityNotAccepted));
        certificates.consider(Ok(second.server_material()), Some(&knows(&[&second])), 1);
        assert_eq!(asks(&peer(&second.numbered(7, "", &[APP]), &certificates)), Ok(()));
    }

    #[test]
    fn a_sealed_vault_takes_fewer_authorities_and_no_others() {
        let (first, second) = (Authority::new(), Authority::new());
        let both = TlsMaterial { client_ca_pem: (first.pem() + &second.pem()).into_bytes(), ..first.server_material() };
        let vouching = Vouching::default();
        let certificates = Certificates::new(&both, NameRules::default(), vouching.clone()).unwrap();
        certificates.consider(Ok(first.server_material()), None, 0);
        assert_eq!((certificates.status(true).problem.as_str(), vouching.now().len()), ("", 1));
        certificates.consider(Ok(both), None, 1);
        assert!(certificates.status(true).problem.contains("sealed"));
        assert_eq!(vouching.now().len(), 1);
    }

    #[test]
    fn a_standing_connection_ends_with_its_certificate_or_its_authority_and_others_go_on() {
        let (first, second) = (Authority::new(), Authority::new());
        let known = knows(&[&first, &second]);
        let certificates = Certificates::of(first.server_material());
        let (lost, kept) =
            (peer(&first.numbered(7, "", &[APP]), &certificates), peer(&first.numbered(8, "", &[APP]), &certificates));
        assert_eq!((asks(&lost), asks(&kept)), (Ok(()), Ok(())));
        let revoking = TlsMaterial { crls: vec![first.revoked(&[7])], ..first.server_material() };
        certificates.consider(Ok(revoking), None, 0);
        assert_eq!((asks(&lost), asks(&kept)), (Err(Nobody::CertificateRevoked), Ok(())));
        assert_eq!(lost.named(0).err(), Some(Nobody::CertificateRevoked));
        certificates.consider(Ok(second.server_material()), Some(&known), 0);
        assert_eq!(asks(&kept), Err(Nobody::AuthorityNotAccepted));
        certificates.consider(Ok(first.server_material()), Some(&known), 0);
        assert_eq!(asks(&kept), Ok(()));
    }

    #[test]
    fn who_has_an_issuer_without_a_list_is_refused_unless_that_is_allowed() {
        let (first, second) = (Authority::new(), Authority::new());
        let listed = |require_crl| TlsMaterial {
            client_ca_pem: (first.pem() + &second.pem()).into_bytes(),
            crls: vec![first.revoked(&[7])],
            require_crl,
            ..first.server_material()
        };
        for (require_crl, expected) in [(true, Err(Nobody::AuthorityNotAccepted)), (false, Ok(()))] {
            let certificates = Certificates::of(listed(require_crl));
            assert_eq!(asks(&peer(&first.numbered(8, "", &[APP]), &certificates)), Ok(()));
            assert_eq!(asks(&peer(&second.numbered(8, "", &[APP]), &certificates)), expected);
            assert_eq!(certificates.status(false).crl_next_update.unwrap().seconds, 2_840_140_800);
        }
    }
}
