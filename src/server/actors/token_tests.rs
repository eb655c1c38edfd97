//! Tokens of every kind that must not pass, and the few that must. They are made here, by other means than the vault's.

use std::sync::{Arc, Mutex};

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair,
};
use serde_json::{Value, json};

use super::super::{Actors, IssuerRules, ReadKeys};
use super::*;
use crate::testing::rules;

const NOW: u64 = 1_800_000_000;

/// A key that an issuer signs with.
enum Signer {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair, &'static str),
}

impl Signer {
    fn ed(seed: u8) -> Self {
        Self::Ed(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn ec(algorithm: &'static EcdsaSigningAlgorithm, name: &'static str) -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap(), name)
    }

    fn public(&self) -> &[u8] {
        match self {
            Self::Ed(key) => key.public_key().as_ref(),
            Self::Ec(key, _) => key.public_key().as_ref(),
        }
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed(_) => "EdDSA",
            Self::Ec(_, name) => name,
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        match self {
            Self::Ed(_) => json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(self.public())}),
            Self::Ec(..) => {
                let (x, y) = self.public()[1..].split_at((self.public().len() - 1) / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": curve, "kid": kid, "x": text(x), "y": text(y)})
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
            Self::Ec(key, _) => key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
        }
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "typ": "JWT", "kid": kid});
        token_of(&header, claims, |message| self.sign(message))
    }
}

fn token_of(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = BASE64URL_NOPAD.encode(&sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn set(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

fn of(keys: Vec<u8>) -> ReadKeys {
    Arc::new(move || Ok(keys.clone()))
}

/// Two issuers: `hr` with an Ed25519 and a P-256 key, `it` with another Ed25519 key under the same `kid`.
struct Bench {
    hr: Signer,
    ec: Signer,
    it: Signer,
    actors: Actors,
}

impl Bench {
    fn new() -> Self {
        let (hr, it) = (Signer::ed(1), Signer::ed(2));
        let ec = Signer::ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256");
        let (tenants, tenant_claim) = (vec!["*".to_owned()], Some("tenant".to_owned()));
        let everybody = IssuerRules { tenants, tenant_claim, ..rules("it") };
        let actors = Actors::new([
            (rules("hr"), of(set(&[hr.jwk("one"), ec.jwk("two")]))),
            (everybody, of(set(&[it.jwk("one")]))),
        ]);
        let actors = actors.unwrap();
        actors.look(0);
        Self { hr, ec, it, actors }
    }

    fn check(&self, token: &str) -> Result<Actor, &'static str> {
        self.check_for(token, "retail", NOW)
    }

    fn check_for(&self, token: &str, tenant: &str, now: u64) -> Result<Actor, &'static str> {
        check(token.as_bytes(), tenant, &self.actors.issuers, now).map_err(|error| match error {
            Error::ActorTokenRefused { check } => {
                let message = Error::ActorTokenRefused { check }.to_string();
                assert!(!message.contains("SECURITY.md"), "{check} has words of its own");
                assert!(!message.contains(token) || token.is_empty());
                check
            }
            other => panic!("{other}"),
        })
    }

    /// What is wrong with a token that is good but for one claim.
    fn with(&self, name: &str, value: Value) -> Result<Actor, &'static str> {
        let mut claims = claims();
        claims[name] = value;
        self.check(&self.hr.token("one", &claims))
    }

    fn without(&self, name: &str) -> Result<Actor, &'static str> {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        self.check(&self.hr.token("one", &claims))
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://hr.bank.example", "aud": "strongroom", "sub": "li.na", "role": "clerk",
        "labels": ["branch-12"], "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 600,
    })
}

#[test]
fn a_good_token_names_a_person_until_it_ends() {
    let bench = Bench::new();
    for token in [bench.hr.token("one", &claims()), bench.ec.token("two", &claims())] {
        let actor = bench.check(&token).unwrap();
        assert_eq!((actor.name(), actor.role()), ("hr/li.na", "clerk"));
        assert_eq!(actor.expires(), (NOW + 600) * 1_000_000);
        assert_eq!(actor.case_load(&["branch-12".to_owned()]).as_str(), "own");
    }
    assert!(bench.with("aud", json!(["other", "strongroom"])).is_ok());
    assert!(bench.with("exp", json!(NOW as f64 + 600.5)).is_ok(), "a time may have parts of a second");
    assert!(bench.without("labels").is_ok());
    assert!(bench.without("nbf").is_ok());
}

#[test]
fn no_time_but_its_own_makes_a_token_good() {
    let bench = Bench::new();
    for (name, value, check) in [
        ("exp", json!(NOW), "exp"),
        ("exp", json!("never"), "exp"),
        ("exp", json!(-1), "exp"),
        ("exp", json!(1e300), "exp"),
        ("exp", Value::Null, "exp"),
        ("nbf", json!(NOW + 6), "nbf"),
        ("nbf", json!("now"), "nbf"),
        ("iat", json!(NOW + 6), "nbf"),
        ("iat", json!("now"), "iat"),
        ("iat", json!(NOW - 3_001), "lifetime"),
        ("exp", json!(NOW + 3_541), "lifetime"),
        ("exp", json!(u64::MAX), "lifetime"),
    ] {
        assert_eq!(bench.with(name, value.clone()), Err(check), "{name} {value}");
    }
    assert_eq!(bench.without("exp"), Err("exp"));
    assert_eq!(bench.without("iat"), Err("iat"), "nobody could tell how long it lives");
    // There is leeway for the beginning, and none for the end.
    assert!(bench.with("exp", json!(NOW + 1)).is_ok() && bench.with("nbf", json!(NOW + 5)).is_ok());
    assert!(bench.with("iat", json!(NOW + 5)).is_ok());
    assert!(bench.with("exp", json!(NOW + 3_540)).is_ok());
    // The clock goes on, and back.
    let token = bench.hr.token("one", &claims());
    assert!(bench.check_for(&token, "retail", NOW + 599).is_ok());
    assert_eq!(bench.check_for(&token, "retail", NOW + 600), Err("exp"));
    assert_eq!(bench.check_for(&token, "retail", NOW - 66), Err("nbf"));
}

#[test]
fn a_token_is_for_this_vault_and_for_people_of_its_issuers_tenants() {
    let bench = Bench::new();
    for aud in [json!("other"), json!(["other"]), json!([]), json!(""), json!(1), Value::Null, json!({"strongroom": 1})]
    {
        assert_eq!(bench.with("aud", aud.clone()), Err("audience"), "{aud}");
    }
    assert_eq!(bench.without("aud"), Err("audience"));
    let token = bench.hr.token("one", &claims());
    for tenant in ["corporate", "", "*", "Retail"] {
        assert_eq!(bench.check_for(&token, tenant, NOW), Err("tenant"), "{tenant}");
    }
}

#[test]
fn who_is_of_one_tenant_acts_at_no_other_where_an_issuer_speaks_for_several() {
    let bench = Bench::new();
    let mut theirs = claims();
    theirs["iss"] = json!("https://it.bank.example");
    let check = |claims: &Value, tenant| bench.check_for(&bench.it.token("one", claims), tenant, NOW).map(drop);
    assert_eq!(check(&theirs, "retail"), Err("tenant"), "nothing is said of whose it is");
    theirs["tenant"] = json!("retail");
    assert_eq!((check(&theirs, "retail"), check(&theirs, "corporate")), (Ok(()), Err("tenant")));
    for wrong in [json!(["retail"]), json!("*"), json!("Retail"), Value::Null] {
        theirs["tenant"] = wrong;
        assert_eq!(check(&theirs, "retail"), Err("tenant"));
    }
}

#[test]
fn no_issuer_signs_for_another_and_no_stranger_for_any() {
    let bench = Bench::new();
    // The key of `it`, under a `kid` that `hr` has too, and one that only `it` has.
    assert_eq!(bench.check(&bench.it.token("one", &claims())), Err("signature"));
    let mut theirs = claims();
    theirs["iss"] = json!("https://it.bank.example");
    theirs["tenant"] = json!("corporate");
    assert_eq!(bench.check(&bench.hr.token("one", &theirs)), Err("signature"));
    assert_eq!(bench.check(&bench.ec.token("two", &theirs)), Err("key"));
    let actor = bench.check_for(&bench.it.token("one", &theirs), "corporate", NOW).unwrap();
    assert_eq!(actor.name(), "it/li.na", "the same person by another issuer is another");
    assert_eq!(bench.check(&Signer::ed(9).token("one", &claims())), Err("signature"));
    assert_eq!(bench.check(&bench.hr.token("three", &claims())), Err("key"));
    for iss in [json!("https://hr.bank.example/"), json!(["https://hr.bank.example"]), Value::Null, json!("")] {
        assert_eq!(bench.with("iss", iss.clone()), Err("issuer"), "{iss}");
    }
    assert_eq!(bench.without("iss"), Err("issuer"));
}

#[test]
fn the_algorithm_is_the_keys_and_the_configurations() {
    let bench = Bench::new();
    let signed = |header: Value| token_of(&header, &claims(), |message| bench.hr.sign(message));
    for alg in ["none", "None", "", "HS1", "ES256K"] {
        let unsigned = token_of(&json!({"alg": alg, "kid": "one"}), &claims(), |_| vec![]);
        assert_eq!(bench.check(&unsigned), Err("form"), "{alg}");
        assert_eq!(bench.check(&signed(json!({"alg": alg, "kid": "one"}))), Err("form"), "{alg}");
    }
    // The public key, which everybody has, taken for a secret.
    for (secret, kid) in [(bench.hr.public(), "one"), (bench.ec.public(), "two")] {
        for alg in ["HS256", "HS384", "HS512"] {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            let forged = token_of(&json!({"alg": alg, "kid": kid}), &claims(), |message| {
                hmac::sign(&key, message).as_ref().to_vec()
            });
            assert_eq!(bench.check(&forged), Err("algorithm"), "{alg}");
        }
    }
    for alg in ["ES256", "ES384", "RS256", "PS512"] {
        assert_eq!(bench.check(&signed(json!({"alg": alg, "kid": "one"}))), Err("algorithm"), "{alg}");
    }
    assert_eq!(bench.check(&signed(json!({"alg": "EdDSA"}))), Err("key"));
    // What a reader must understand and does not.
    for header in [
        json!({"alg": "EdDSA", "kid": "one", "crit": ["exp"], "exp": 1}),
        json!({"alg": "EdDSA", "kid": "one", "crit": ["b64"], "b64": false}),
        json!({"alg": "EdDSA", "kid": "one", "b64": false}),
    ] {
        assert_eq!(bench.check(&signed(header.clone())), Err("signature"), "{header}");
    }
    // A key that the token brings along is nobody's.
    let stranger = Signer::ed(9);
    let header = json!({"alg": "EdDSA", "kid": "nine", "jwk": stranger.jwk("nine")});
    assert_eq!(bench.check(&token_of(&header, &claims(), |message| stranger.sign(message))), Err("key"));
    let wider = Signer::ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384");
    let keys = set(&[wider.jwk("w")]);
    let narrow = Actors::new([(rules("hr"), of(keys.clone()))]).unwrap();
    narrow.look(0);
    let bench = Bench { actors: narrow, ..bench };
    assert_eq!(bench.check(&wider.token("w", &claims())), Err("key"), "it is not used at all");
    let allowed = IssuerRules { algorithms: vec!["ES384".to_owned()], ..rules("hr") };
    let actors = Actors::new([(allowed, of(keys))]).unwrap();
    actors.look(0);
    assert!(Bench { actors, ..bench }.check(&wider.token("w", &claims())).is_ok());
}

#[test]
fn who_a_token_names_can_stand_in_a_leaf() {
    let bench = Bench::new();
    let long = "x".repeat(65);
    for sub in [
        json!(""),
        json!("li na"),
        json!("a/b"),
        json!(".."),
        json!("李娜"),
        json!("a\nb"),
        json!(long),
        json!(7),
        Value::Null,
    ] {
        assert_eq!(bench.with("sub", sub.clone()), Err("sub"), "{sub}");
    }
    assert_eq!(bench.without("sub"), Err("sub"));
    for role in [json!(""), json!("none"), json!("a b"), json!(["clerk"]), json!(long), Value::Null] {
        assert_eq!(bench.with("role", role.clone()), Err("role"), "{role}");
    }
    assert_eq!(bench.without("role"), Err("role"));
    let many: Vec<String> = (0..17).map(|number| format!("l{number}")).collect();
    for labels in [json!("branch-12"), json!([1]), json!(["A"]), json!([""]), json!(many), json!({"a": 1}), Value::Null]
    {
        assert_eq!(bench.with("labels", labels.clone()), Err("labels"), "{labels}");
    }
    assert!(bench.with("labels", json!(many[..16])).is_ok());
}

#[test]
fn what_is_no_token_is_refused_before_it_is_read() {
    let bench = Bench::new();
    let good = bench.hr.token("one", &claims());
    let parts: Vec<&str> = good.split('.').collect();
    for text in [
        "",
        ".",
        "..",
        "...",
        "rubbish",
        parts[0],
        &format!("{}.{}", parts[0], parts[1]),
        &format!("{good}.x"),
        &format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        &good.replace('.', " "),
        "e30.e30.",
    ] {
        assert_eq!(bench.check(text), Err("form"), "{text}");
    }
    assert_eq!(bench.check(&format!("{}.{}.", parts[0], parts[1])), Err("signature"));
    assert_eq!(bench.check(&format!("{good}A")), Err("signature"));
    let mut huge = claims();
    huge["note"] = json!("x".repeat(TOKEN_BYTES));
    assert_eq!(bench.check(&bench.hr.token("one", &huge)), Err("size"));
    // Not a bit of it may be another.
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(bench.check(&changed).is_err(), "{at}");
    }
}

#[test]
fn keys_are_replaced_while_tokens_come_and_a_broken_file_changes_nothing() {
    let (old, new) = (Signer::ed(1), Signer::ed(2));
    let file = Arc::new(Mutex::new(Ok(set(&[old.jwk("old")]))));
    let read: ReadKeys = {
        let file = Arc::clone(&file);
        Arc::new(move || file.lock().unwrap().clone())
    };
    let actors = Actors::new([(rules("hr"), read)]).unwrap();
    let bench = Bench { actors, ..Bench::new() };
    let (by_old, by_new) = (old.token("old", &claims()), new.token("new", &claims()));
    assert_eq!(bench.check(&by_old), Err("key"), "nobody has looked yet");
    bench.actors.look(7);
    assert!(bench.check(&by_old).is_ok());
    for broken in [Err("it is gone".to_owned()), Ok(b"{".to_vec()), Ok(vec![])] {
        *file.lock().unwrap() = broken;
        bench.actors.look(8);
        assert!(bench.check(&by_old).is_ok());
        let status = &bench.actors.status(true)[0];
        assert_eq!((status.keys, status.reload_time.unwrap().seconds), (1, 7));
        assert!(!status.problem.is_empty() && bench.actors.status(false)[0].problem.is_empty());
    }
    *file.lock().unwrap() = Ok(set(&[old.jwk("old"), new.jwk("new")]));
    bench.actors.look(9);
    assert!(bench.check(&by_old).is_ok() && bench.check(&by_new).is_ok());
    assert_eq!(bench.actors.status(true)[0].problem, "");
    *file.lock().unwrap() = Ok(set(&[new.jwk("new")]));
    bench.actors.look(10);
    assert_eq!(bench.check(&by_old), Err("key"));
    assert!(bench.check(&by_new).is_ok());
}

#[test]
fn a_refused_token_is_told_once_a_second_for_each_service() {
    let actors = Actors::default();
    let tell = |principal: &str, now| actors.tell(1, principal, now);
    assert_eq!((tell("app/a", 1), tell("app/a", 1), tell("app/a", 1)), (Some(0), None, None));
    assert_eq!(tell("app/b", 1), Some(0), "nobody hides it");
    assert_eq!(tell("app/a", 2), Some(2));
    for number in 0..2 * super::super::REFUSED {
        tell(&format!("app/{number}"), 3);
    }
    assert_eq!(tell("app/one-more", 3), None, "there is a bound");
    assert!(actors.refused.lock().unwrap().len() <= super::super::REFUSED + 1);
}

#[test]
fn an_issuers_keys_are_taken_back_by_a_file_without_any_or_by_none_for_ten_looks() {
    let signer = Signer::ed(1);
    let file = Arc::new(Mutex::new(Ok(set(&[signer.jwk("one")]))));
    let read: ReadKeys = {
        let file = Arc::clone(&file);
        Arc::new(move || file.lock().unwrap().clone())
    };
    let bench = Bench { actors: Actors::new([(rules("hr"), read)]).unwrap(), ..Bench::new() };
    let token = signer.token("one", &claims());
    let put = |new: Result<Vec<u8>, String>| *file.lock().unwrap() = new;
    let status = || {
        let status = bench.actors.status(true).remove(0);
        (status.keys, status.problem)
    };
    bench.actors.look(1);
    assert!(bench.check(&token).is_ok());
    // Keys that can't be used for what is allowed are none.
    let wider = Signer::ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384");
    for none in [set(&[]), set(&[wider.jwk("one")])] {
        put(Ok(none));
        for now in 2..4 {
            bench.actors.look(now);
            assert_eq!(bench.check(&token), Err("key"));
            let (keys, problem) = status();
            assert!(keys == 0 && problem.contains("nobody is vouched for"), "{problem}");
        }
        put(Ok(set(&[signer.jwk("one")])));
        bench.actors.look(4);
        assert!(bench.check(&token).is_ok() && status() == (1, String::new()));
    }
    // A look that finds it begins the count anew.
    for looks in [9, 10] {
        put(Err("it is gone".to_owned()));
        (0..looks).for_each(|_| bench.actors.look(5));
        assert_eq!(bench.check(&token).is_ok(), looks < 10, "{looks}");
        assert_eq!(status().1, "it is gone");
        // The same file as before is taken again.
        put(Ok(set(&[signer.jwk("one")])));
        bench.actors.look(6);
        assert!(bench.check(&token).is_ok() && status() == (1, String::new()));
    }
}

#[tokio::test]
async fn a_file_that_does_not_answer_holds_nobody_up_and_is_a_failed_look() {
    let signer = Signer::ed(1);
    let (answer, answers) = std::sync::mpsc::channel::<Vec<u8>>();
    let answers = Mutex::new(answers);
    let read: ReadKeys = Arc::new(move || answers.lock().unwrap().recv().map_err(|error| error.to_string()));
    let bench = Bench { actors: Actors::new([(rules("hr"), read)]).unwrap(), ..Bench::new() };
    let token = signer.token("one", &claims());
    let looks = bench.actors.look_apart(1);
    assert_eq!((looks.len(), bench.actors.look_apart(2).len()), (1, 0));
    assert!(bench.actors.status(true)[0].problem.contains("has not ended"));
    assert_eq!(bench.check(&token), Err("key"));
    answer.send(set(&[signer.jwk("one")])).unwrap();
    for look in looks {
        look.await.unwrap();
    }
    assert!(bench.check(&token).is_ok() && bench.actors.status(true)[0].problem.is_empty());
    // In force they are dropped when it does not answer for ten looks.
    let looks = bench.actors.look_apart(3);
    for now in 4..14 {
        assert!(bench.check(&token).is_ok(), "{now}");
        bench.actors.look_apart(now);
    }
    assert_eq!(bench.check(&token), Err("key"));
    answer.send(set(&[signer.jwk("one")])).unwrap();
    for look in looks {
        look.await.unwrap();
    }
    assert!(bench.check(&token).is_ok());
}
