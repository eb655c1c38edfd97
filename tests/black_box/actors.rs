//! The people behind services, over the wire: real tokens, keys that rotate, cases that are one's own, and what the
//! ledger says of them. Tokens are made here, by other means than the vault's.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use strongroom_proto::v1;
use strongroom_proto::v1::subjects_client::SubjectsClient;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::approvals::with_approval;
use crate::harness::{TestVault, Told, detokenize, item, one_token, refused, tokenize, value};
use crate::house::House;
use crate::patience::until;

const POLICIES: [&str; 2] =
    [include_str!("../../deploy/policies/default.cedar"), include_str!("../../deploy/policies/case-load.cedar")];
const ID_CARD: &str = "11010519491231002X";
/// Until when a change on disk must have been seen: it takes about a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who vouches for people.
enum Issuer {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
}

impl Issuer {
    fn ed() -> Self {
        let random = SystemRandom::new();
        let key = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    fn ec() -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap())
    }

    fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        match self {
            Self::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig", "x": text(key.public_key().as_ref())})
            }
            Self::Ec(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256", "x": text(x), "y": text(y)})
            }
        }
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let alg = if matches!(self, Self::Ed(_)) { "EdDSA" } else { "ES256" };
        let message = format!("{}.{}", part(&json!({"alg": alg, "kid": kid})), part(claims));
        let signature = match self {
            Self::Ed(key) => key.sign(message.as_bytes()).as_ref().to_vec(),
            Self::Ec(key) => key.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What a token of the issuer `hr` says of a clerk.
fn claims(name: &str, labels: &[&str]) -> Value {
    json!({
        "iss": "https://hr.bank.example", "aud": ["strongroom"], "sub": name, "role": "clerk", "labels": labels,
        "iat": now(), "exp": now() + 600,
    })
}

/// Puts an issuer's keys in place as a whole.
fn place(folder: &Path, file: &str, keys: &[Value]) {
    let (new, old) = (folder.join(format!("pki/{file}.new")), folder.join("pki").join(file));
    std::fs::write(&new, json!({ "keys": keys }).to_string()).unwrap();
    std::fs::rename(&new, &old).unwrap();
}

fn section(name: &str, tenants: &str) -> String {
    format!(
        "[[actors.issuers]]\nname = \"{name}\"\nissuer = \"https://{name}.bank.example\"\naudience = \"strongroom\"\n\
         jwks = \"pki/{name}.jwks\"\ntenants = {tenants}\nleeway_seconds = 0\n"
    )
}

/// A vault that trusts the issuer `hr` by one key, `one`.
fn trusting(hr: &Issuer) -> TestVault {
    // Its log says all that there is to say.
    let mut vault = TestVault::start_with(&[("STRONGROOM_LOG", "trace")]);
    assert!(vault.stop().success());
    place(&vault.dir(), "hr.jwks", &[hr.jwk("one")]);
    vault.configure(&section("hr", "[\"demo\"]"));
    vault.up();
    vault
}

async fn want_actors(vault: &TestVault) {
    let request = v1::ApplyPolicyRequest { source: POLICIES.join("\n"), ..Default::default() };
    let officer = vault.access().await;
    with_approval(vault, async || officer.clone().apply_policy(request.clone()).await).await.unwrap();
}

/// A request on somebody's behalf.
fn behalf<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("strongroom-actor", token.parse().unwrap());
    request
}

async fn read_for(vault: &TestVault, token: &str, actor: &str, view: &str) -> Result<String, Told> {
    let request = behalf(detokenize(&[token], "loan_servicing", view), actor);
    let results = vault.vault().await.detokenize(request).await.map_err(Told::from)?;
    value(results.into_inner().results.remove(0)).map(|bytes| String::from_utf8(bytes).unwrap())
}

/// Which check a refused token failed.
fn check(status: Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((status.code(), info.reason.as_str()), (Code::Unauthenticated, "ACTOR_TOKEN_REFUSED"));
    info.metadata["check"].clone()
}

async fn failed(vault: &TestVault, principal: &str, actor: &str) -> String {
    let request = behalf(detokenize(&["srt1_0000000000000000000000"], "loan_servicing", "masked"), actor);
    check(vault.vault_as(principal).await.detokenize(request).await.err().unwrap())
}

async fn label(vault: &TestVault, subject: &str, labels: &[&str]) {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    let mut subjects = SubjectsClient::new(vault.channel("privacy").await);
    subjects.set_labels(v1::SetLabelsRequest { subject: subject.to_owned(), labels }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clerk_reads_the_own_cases_and_the_ledger_says_who_it_was() {
    let hr = Issuer::ed();
    let mut vault = trusting(&hr);
    want_actors(&vault).await;
    let [own, other, free] = ["c-own", "c-other", "c-free"];
    let own_token = one_token(&vault, "borrower.id_card", ID_CARD, own).await;
    let other_token = one_token(&vault, "borrower.id_card", ID_CARD, other).await;
    let free_token = one_token(&vault, "borrower.id_card", ID_CARD, free).await;
    label(&vault, own, &["branch-12"]).await;
    label(&vault, other, &["branch-13"]).await;
    let li_na = hr.token("one", &claims("li.na", &["branch-12"]));
    // Nobody behind the service.
    let results = vault.vault().await.detokenize(detokenize(&[&own_token], "loan_servicing", "masked")).await.unwrap();
    assert_eq!(value(results.into_inner().results.remove(0)).unwrap_err().code, Code::NotFound);
    assert_eq!(read_for(&vault, &own_token, &li_na, "plain").await.unwrap(), ID_CARD);
    assert_eq!(read_for(&vault, &other_token, &li_na, "masked").await.unwrap_err().code, Code::NotFound);
    assert_eq!(read_for(&vault, &free_token, &li_na, "plain").await.unwrap_err().reason, "VIEW_NOT_ALLOWED");
    assert!(read_for(&vault, &free_token, &li_na, "masked").await.is_ok());
    // The other one's cases are the other way round.
    let wang_wei = hr.token("one", &claims("wang.wei", &["branch-13"]));
    assert!(read_for(&vault, &other_token, &wang_wei, "plain").await.is_ok());
    assert!(read_for(&vault, &own_token, &wang_wei, "plain").await.is_err());
    // The case changes hands.
    label(&vault, own, &["branch-13"]).await;
    assert!(read_for(&vault, &own_token, &li_na, "masked").await.is_err());
    assert!(read_for(&vault, &own_token, &wang_wei, "plain").await.is_ok());
    // A stream is as good as its token.
    let (sender, messages) = tokio::sync::mpsc::channel(2);
    sender.send(detokenize(&[&own_token, &free_token], "loan_servicing", "masked")).await.unwrap();
    drop(sender);
    let request = behalf(ReceiverStream::new(messages), &wang_wei);
    let mut answers = vault.vault().await.detokenize_stream(request).await.unwrap().into_inner();
    let Some(v1::detokenize_stream_response::Result::Response(answer)) =
        answers.message().await.unwrap().unwrap().result
    else {
        panic!("an answer")
    };
    assert!(answer.results.into_iter().all(|result| value(result).is_ok()));
    let leaves = vault.leaves().await;
    let named = |name: &str| leaves.iter().filter(|leaf| leaf["actor"] == name).count();
    assert_eq!((named("hr/li.na"), named("hr/wang.wei")), (5, 4));
    assert!(leaves.iter().all(|leaf| leaf.get("actor").is_none() || leaf["principal"] == "app/app"));
    // Whoever has the files sees neither token, nor any part of one that could be used.
    vault.verify_ledger();
    assert!(vault.stop().success());
    let secrets = [&li_na, &wang_wei].map(|token| token.rsplit('.').next().unwrap().to_owned());
    let text = serde_json::to_string(&leaves).unwrap();
    assert!(secrets.iter().all(|secret| !text.contains(secret)));
    vault.hides(secrets);
    vault.cli_ok(&["verify"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_good_token_is_refused_by_name_and_never_repeated() {
    let hr = Issuer::ed();
    let vault = trusting(&hr);
    let with = |name: &str, value: Value| {
        let mut claims = claims("li.na", &[]);
        claims[name] = value;
        hr.token("one", &claims)
    };
    let good = hr.token("one", &claims("li.na", &[]));
    for (token, expected) in [
        (with("exp", json!(now() - 1)), "exp"),
        (with("nbf", json!(now() + 60)), "nbf"),
        (with("exp", json!(now() + 7_200)), "lifetime"),
        (with("iat", Value::Null), "iat"),
        (with("aud", json!("another")), "audience"),
        (with("iss", json!("https://it.bank.example")), "issuer"),
        (with("sub", json!("li na")), "sub"),
        (with("role", json!("none")), "role"),
        (with("labels", json!(["Branch"])), "labels"),
        (with("note", json!("x".repeat(8_000))), "size"),
        (hr.token("two", &claims("li.na", &[])), "key"),
        (Issuer::ed().token("one", &claims("li.na", &[])), "signature"),
        (Issuer::ec().token("one", &claims("li.na", &[])), "algorithm"),
        (good.replacen("ey", "eX", 1), "form"),
        ("rubbish".to_owned(), "form"),
    ] {
        assert_eq!(failed(&vault, "app", &token).await, expected);
    }
    // People and jobs come for themselves.
    for principal in ["privacy", "officer-1", "auditor", "rotator"] {
        assert_eq!(failed(&vault, principal, &good).await, "caller", "{principal}");
    }
    // Nor does anybody read the ledger for somebody else.
    let mut audit = vault.audit_as("app").await;
    let asked = behalf(v1::GetCheckpointRequest::default(), &good);
    assert_eq!(check(audit.get_checkpoint(asked).await.err().unwrap()), "audit");
    assert_eq!(check(audit.tail(behalf(v1::TailRequest::default(), &good)).await.err().unwrap()), "audit");
    assert_eq!(check(audit.export(behalf(v1::ExportRequest::default(), &good)).await.err().unwrap()), "audit");
    let mut two = behalf(detokenize(&["srt1_0000000000000000000000"], "loan_servicing", "masked"), &good);
    two.metadata_mut().append("strongroom-actor", good.parse().unwrap());
    assert_eq!(check(vault.vault().await.detokenize(two).await.err().unwrap()), "size");
    let (_sender, messages) = tokio::sync::mpsc::channel::<v1::DetokenizeRequest>(1);
    let request = behalf(ReceiverStream::new(messages), &with("exp", json!(now() - 1)));
    assert_eq!(check(vault.vault().await.detokenize_stream(request).await.err().unwrap()), "exp");
    // One that ends ends also for requests that come later on the same connection.
    let short = with("exp", json!(now() + 2));
    let mut client = vault.vault().await;
    let request = || behalf(tokenize(vec![item("borrower.name", "Ann", "c-1")]), &short);
    client.tokenize(request()).await.unwrap();
    let ended = until(PATIENCE, "the token's end", async || match client.tokenize(request()).await {
        Ok(_) => Err("it is taken"),
        Err(status) => Ok(check(status)),
    });
    assert_eq!(ended.await, "exp");
    let log = vault.read_log();
    assert!(log.contains("a token of an actor is refused") && !log.contains(&good[good.len() - 40..]));
    vault.hides([&good[good.len() - 40..], &short[short.len() - 40..]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_gets_other_keys_while_the_vault_runs() {
    let (old, new) = (Issuer::ed(), Issuer::ec());
    let vault = trusting(&old);
    let token = one_token(&vault, "borrower.id_card", ID_CARD, "c-1").await;
    let by_old = old.token("one", &claims("li.na", &[]));
    let by_new = new.token("two", &claims("li.na", &[]));
    let issuer = async || {
        let status = vault.system().await.status(v1::StatusRequest {}).await.unwrap().into_inner();
        status.actor_issuers.into_iter().next().unwrap()
    };
    let until = async |what: &str, expected: &dyn Fn(&v1::ActorIssuerStatus) -> bool| {
        until(PATIENCE, what, async || {
            let now = issuer().await;
            if expected(&now) { Ok(()) } else { Err(format!("{} keys, {}", now.keys, now.problem)) }
        })
        .await;
    };
    let ed = old.jwk("one");
    until("the first", &|now| now.keys == 1 && now.problem.is_empty() && now.name == "hr").await;
    assert!(read_for(&vault, &token, &by_old, "masked").await.is_ok());
    assert_eq!(failed(&vault, "app", &by_new).await, "key");
    place(&vault.dir(), "hr.jwks", &[ed.clone(), new.jwk("two")]);
    until("both", &|now| now.keys == 2).await;
    assert!(read_for(&vault, &token, &by_old, "masked").await.is_ok());
    assert!(read_for(&vault, &token, &by_new, "masked").await.is_ok());
    // A broken file changes nothing for a while, and is told to who can do something.
    std::fs::write(vault.dir().join("pki/hr.jwks"), "{\"keys\": [").unwrap();
    until("broken", &|now| now.keys == 2 && now.problem.contains("JSON Web Key Set")).await;
    assert!(read_for(&vault, &token, &by_new, "masked").await.is_ok());
    // One that stays away takes its keys along.
    std::fs::remove_file(vault.dir().join("pki/hr.jwks")).unwrap();
    until("gone", &|now| now.keys == 0 && now.problem.contains("hr.jwks")).await;
    assert_eq!(failed(&vault, "app", &by_new).await, "key");
    assert!(vault.cli_ok(&["status"]).contains("hr: 0 keys; not taken"));
    place(&vault.dir(), "hr.jwks", &[ed.clone(), new.jwk("two")]);
    until("both again", &|now| now.keys == 2 && now.problem.is_empty()).await;
    // And one without keys does so at once.
    place(&vault.dir(), "hr.jwks", &[]);
    until("none", &|now| now.keys == 0 && now.problem.contains("nobody is vouched for")).await;
    assert_eq!(failed(&vault, "app", &by_old).await, "key");
    place(&vault.dir(), "hr.jwks", &[new.jwk("two")]);
    until("the second", &|now| now.keys == 1 && now.problem.is_empty()).await;
    assert_eq!(failed(&vault, "app", &by_old).await, "key");
    assert!(read_for(&vault, &token, &by_new, "masked").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_speaks_for_its_tenants_and_signs_for_no_other_issuer() {
    let (hr, it) = (Issuer::ed(), Issuer::ed());
    let mut house = House::new(&["lending", "corporate"]);
    place(&house.dir(), "hr.jwks", &[hr.jwk("one")]);
    place(&house.dir(), "it.jwks", &[it.jwk("one")]);
    let path = house.dir().join("strongroom.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let everybody = section("it", "[\"*\"]\ntenant_claim = \"tenant\"");
    let issuers = format!("{}{everybody}", section("hr", "[\"lending\"]"));
    std::fs::write(&path, format!("{text}\n{issuers}")).unwrap();
    house.up();
    house.apply_lending().await;
    let store = async |tenant: &str, token: &str| {
        let request = behalf(tokenize(vec![item("borrower.name", "Ann", "c-1")]), token);
        house.vault(tenant, "core").await.tokenize(request).await.map(drop)
    };
    let of_tenant = |issuer: &str, tenant: &str| {
        let mut claims = claims("li.na", &[]);
        claims["iss"] = json!(format!("https://{issuer}.bank.example"));
        claims["tenant"] = json!(tenant);
        claims
    };
    let of = |issuer: &str| of_tenant(issuer, "lending");
    store("lending", &hr.token("one", &of("hr"))).await.unwrap();
    assert_eq!(check(store("corporate", &hr.token("one", &of("hr"))).await.err().unwrap()), "tenant");
    for (tenant, other) in [("lending", "corporate"), ("corporate", "lending")] {
        store(tenant, &it.token("one", &of_tenant("it", tenant))).await.unwrap();
        // Who is of one tenant acts at no other.
        assert_eq!(check(store(tenant, &it.token("one", &of_tenant("it", other))).await.err().unwrap()), "tenant");
        assert_eq!(check(store(tenant, &hr.token("one", &of_tenant("it", tenant))).await.err().unwrap()), "signature");
    }
    assert_eq!(check(store("lending", &it.token("one", &of("hr"))).await.err().unwrap()), "signature");
    let actors = |ledger: Vec<String>| -> Vec<String> {
        let leaves = ledger.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        leaves.filter_map(|leaf| leaf.get("actor").map(|actor| actor.as_str().unwrap().to_owned())).collect()
    };
    assert_eq!(actors(house.ledger("lending").await), ["hr/li.na", "it/li.na"]);
    assert_eq!(actors(house.ledger("corporate").await), ["it/li.na"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_lets_anybody_be_anybody_does_not_start() {
    let mut vault = TestVault::start();
    assert!(vault.stop().success());
    let path = vault.dir().join("strongroom.toml");
    let good = std::fs::read_to_string(&path).unwrap();
    for (more, named) in [
        ("algorithms = [\"HS256\"]", "can't make"),
        ("algorithms = [\"none\"]", "can't make"),
        ("max_lifetime_seconds = 1000000", "max_lifetime_seconds"),
    ] {
        std::fs::write(&path, format!("{good}\n{}{more}\n", section("hr", "[\"demo\"]"))).unwrap();
        let said = vault.refuses_to_start();
        assert!(said.contains(named) && said.contains("actors.issuers"), "{said}");
    }
    // Without its file it starts, and takes no token until there is one.
    std::fs::write(&path, format!("{good}\n{}", section("hr", "[\"demo\"]"))).unwrap();
    vault.up();
    assert_eq!(failed(&vault, "app", &Issuer::ed().token("one", &claims("li.na", &[]))).await, "key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_labels_subjects_and_asks_on_somebodys_behalf() {
    let hr = Issuer::ed();
    let vault = trusting(&hr);
    want_actors(&vault).await;
    let file = vault.scratch().join("li-na.jwt");
    std::fs::write(&file, hr.token("one", &claims("li.na", &["branch-12"])) + "\n").unwrap();
    let file = file.to_str().unwrap();
    let stored = ["tokenize", "borrower.id_card", ID_CARD, "--subject", "c-1", "--actor-token", file];
    let token = vault.cli_ok(&stored).trim().to_owned();
    let shown = vault.cli_ok(&["subject", "labels", "c-1"]);
    assert!(shown.contains("no labels"), "{shown}");
    vault.cli_ok(&["subject", "label", "c-1", "mortgages", "branch-12"]);
    assert_eq!(vault.cli_ok(&["subject", "labels", "c-1", "--as", "auditor"]).trim(), "branch-12\nmortgages");
    let read = ["detokenize", &token, "--purpose", "loan_servicing", "--view", "plain"];
    assert_eq!(vault.cli(&read).status.code(), Some(1));
    let read = [&read[..], &["--actor-token", file]].concat();
    assert_eq!(vault.cli_ok(&read).trim(), ID_CARD);
    let on_behalf =
        |words: &[&str]| vault.cli_ok(&[words, &["--purpose", "loan_servicing", "--actor-token", file]].concat());
    on_behalf(&["match", &token, ID_CARD]);
    assert!(on_behalf(&["lookup", "borrower.id_card", ID_CARD]).contains(&token));
    vault.cli_ok(&["subject", "label", "c-1", "--none", "--as", "officer-1"]);
    assert_eq!(vault.cli(&read).status.code(), Some(1));
    for (words, code) in [
        (&["subject", "label", "c-1"][..], 2),
        (&["subject", "label", "c-1", "Li Na"], 1),
        (&["subject", "label", "c-2", "a"], 1),
        (&["subject", "label", "c-1", "a", "--as", "app"], 1),
    ] {
        assert_eq!(vault.cli(words).status.code(), Some(code), "{words:?}");
    }
    let missing = vault.cli(&["detokenize", &token, "--purpose", "loan_servicing", "--actor-token", "/nowhere"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_are_refused_where_they_are_wrong_and_of_whom_nobody_knows() {
    let vault = TestVault::start();
    one_token(&vault, "borrower.name", "Ann", "c-1").await;
    let mut subjects = SubjectsClient::new(vault.channel("privacy").await);
    let request = |subject: &str, labels: &[&str]| v1::SetLabelsRequest {
        subject: subject.to_owned(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
    };
    let told = refused(subjects.set_labels(request("c-1", &["ok", "Not Ok"])).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "LABEL_INVALID"));
    assert_eq!(told.violations, [("labels[1]".to_owned(), "label_malformed".to_owned())]);
    let nine = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
    assert_eq!(refused(subjects.set_labels(request("c-1", &nine)).await).reason, "LABEL_INVALID");
    assert_eq!(refused(subjects.set_labels(request("", &[])).await).reason, "SUBJECT_INVALID");
    let told = refused(subjects.set_labels(request("c-2", &["a"])).await);
    assert_eq!((told.code, told.violations[0].1.as_str()), (Code::NotFound, "subject_unknown"));
    assert!(subjects.set_labels(request("c-1", &["a"])).await.unwrap().into_inner().changed);
    assert!(!subjects.set_labels(request("c-1", &["a"])).await.unwrap().into_inner().changed);
    let mut service = SubjectsClient::new(vault.channel("app").await);
    assert_eq!(refused(service.set_labels(request("c-1", &["b"])).await).code, Code::PermissionDenied);
    vault.hides(["Not Ok"]);
}
