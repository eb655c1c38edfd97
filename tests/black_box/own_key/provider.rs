//! A tenant's own key with a provider: an OpenBao of the tenant's own, while the vault's root key is elsewhere.

use std::fs;
use std::io::Write;

use super::{Two, in_order, parts, shown, to};
use crate::harness::refused;
use crate::outside::bao::{KEY, Server};
use crate::outside::relay::Relay;
use crate::outside::{BOTH, NOBODY};
use crate::tenants::proven;

/// Two tenants, and an OpenBao that the configuration names for `savings`.
struct WithBao {
    two: Two,
    server: Server,
    relay: Relay,
}

impl WithBao {
    async fn new(root: &str) -> Self {
        let server = Server::start();
        let mut two = Two::new().await;
        two.house.kill();
        let settings = server.settings();
        let relay = Relay::to(settings.address.strip_prefix("http://").unwrap());
        let table = format!(
            "\n[root]\n{root}\n\
             [own_keys.savings.openbao]\naddress = \"http://{}\"\nkey = \"{KEY}\"\ntoken_file = {:?}\n",
            relay.address(),
            settings.token_file.unwrap()
        );
        let config = fs::OpenOptions::new().append(true).open(two.house.dir().join("strongroom.toml"));
        config.unwrap().write_all(table.as_bytes()).unwrap();
        two.house.up();
        Self { two, server, relay }
    }

    async fn kind_and_state(&self) -> (String, String) {
        let own = shown(&mut self.two.officer().await).await;
        (own.kind, own.state)
    }

    fn restart(&mut self) {
        self.two.house.kill();
        self.two.house.up();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_locked_while_its_provider_denies_and_nobody_has_to_unlock_it() {
    let mut with = WithBao::new("check_seconds = 1").await;
    let mut officer = with.two.officer().await;
    with.server.set_policy(NOBODY);
    let told = refused(officer.move_own_key(to("openbao")).await);
    assert!(told.reason == "OWN_KEY" && told.message.contains("openbao"), "{told:?}");
    with.two.both_read().await;
    with.server.set_policy(BOTH);
    let moved = officer.move_own_key(to("openbao")).await.unwrap().into_inner();
    assert_eq!(parts(&moved), ("openbao", "present", ""));
    with.two.both_read().await;
    let told = refused(officer.remove_own_key(super::v1::RemoveOwnKeyRequest {}).await);
    assert!(told.reason == "OWN_KEY" && told.message.contains("provider"), "{told:?}");

    with.restart();
    with.two.until_served(true).await;
    with.server.set_policy(NOBODY);
    with.two.until_served(false).await;
    with.two.is_locked().await;
    assert_eq!(with.kind_and_state().await, ("openbao".to_owned(), "away".to_owned()));
    // Also what is started meanwhile serves the others.
    with.restart();
    with.two.is_locked().await;
    with.server.set_policy(BOTH);
    with.two.until_served(true).await;
    assert_eq!(with.kind_and_state().await, ("openbao".to_owned(), "present".to_owned()));

    let leaves = with.two.leaves().await;
    in_order(&leaves, &["move_own_key", "lock_tenant", "unlock_tenant"]);
    for leaf in leaves.iter().filter(|leaf| leaf["action"] == "lock_tenant" || leaf["action"] == "unlock_tenant") {
        assert_eq!((&leaf["principal"], &leaf["detail"]["own_key"]), (&"vault".into(), &"openbao".into()), "{leaf}");
    }
    with.two.house.kill();
    proven(&with.two.house);
    with.two.house.up();
    with.two.until_served(true).await;

    // Without an own key the provider is not needed any more.
    let mut officer = with.two.officer().await;
    let none = officer.move_own_key(to("none")).await.unwrap().into_inner();
    assert_eq!(parts(&none), ("none", "", ""));
    with.server.stop();
    with.two.both_read().await;
    with.restart();
    with.two.both_read().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_answer_is_waited_for_and_not_for_ever() {
    let with = WithBao::new("check_seconds = 1\nunreachable_seconds = 15").await;
    let mut officer = with.two.officer().await;
    officer.move_own_key(to("openbao")).await.unwrap();
    with.relay.cut();
    with.two.both_read().await;
    with.two.until_served(false).await;
    assert_eq!(with.kind_and_state().await, ("openbao".to_owned(), "away".to_owned()));
    with.relay.mend();
    with.two.until_served(true).await;
    // Another key of the same name does not open what the first one wrapped.
    with.relay.cut();
    with.server.make_key_anew();
    with.relay.mend();
    with.two.until_served(false).await;
    with.two.others_read().await;
}
