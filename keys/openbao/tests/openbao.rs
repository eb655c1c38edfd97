//! The provider against OpenBao itself.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../../tests/provider/mod.rs"]
mod provider;
mod server;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strongroom_ids::VaultId;
use strongroom_keys::{Envelope, RootError, RootProvider};
use strongroom_root_openbao::{AppRole, OpenBaoRoot, Settings};

use crate::provider::{VAULT, is, keeps_what_all_keep, not_opened, not_wrapped, opens, shows_nothing, wrapped};
use crate::server::{KEY, Server, silence, stranger};

#[test]
fn it_keeps_what_all_keep() {
    let server = Server::start();
    let settings = server.settings();
    keeps_what_all_keep(&OpenBaoRoot::new(&settings).unwrap(), &OpenBaoRoot::new(&settings).unwrap());
}

#[test]
fn a_rotated_key_opens_what_its_older_version_sealed() {
    let server = Server::start();
    let root = OpenBaoRoot::new(&server.settings()).unwrap();
    let (key, envelope) = wrapped(&root);
    assert!(envelope.wrapped.starts_with(b"vault:v1:"));
    server.api("POST", &format!("transit/keys/{KEY}/rotate"), &json!({}));
    assert!(opens(&root, &envelope, &key));
    let newer = root.wrap(VAULT, &key).unwrap();
    assert!(newer.wrapped.starts_with(b"vault:v2:") && opens(&root, &newer, &key));
}

#[test]
fn what_does_not_open_with_the_key_is_anothers() {
    let server = Server::start();
    let root = OpenBaoRoot::new(&server.settings()).unwrap();
    let (key, envelope) = wrapped(&root);
    for wrapped in ["", "vault:v1:", "vault:v1:AAAA", "vault:v9:AAAA", "vault:v0:AAAA", "vault:v1:\u{fffd}", "rubbish"]
    {
        let wrapped = wrapped.as_bytes().to_vec();
        is(&not_opened(&root, &Envelope { wrapped, ..envelope.clone() }), "other key");
    }
    for version in ["v0", "v01", "v+1", "v2"] {
        let wrapped = String::from_utf8(envelope.wrapped.clone()).unwrap().replacen("v1", version, 1).into_bytes();
        is(&not_opened(&root, &Envelope { wrapped, ..envelope.clone() }), "other key");
    }
    let parameters = b"\x01another".to_vec();
    is(&not_opened(&root, &Envelope { parameters, ..envelope.clone() }), "other key");
    assert!(opens(&root, &envelope, &key));
}

#[test]
fn a_token_that_never_worked_is_a_wrong_credential_and_a_revoked_one_is_a_denial() {
    let server = Server::start();
    let settings = server.settings();
    let file = server.token_file();
    let root = OpenBaoRoot::new(&settings).unwrap();
    let (key, envelope) = wrapped(&root);
    let token = std::fs::read_to_string(&file).unwrap();
    server.write("token", "s.neverknownneverknownnever");
    is(&not_opened(&root, &envelope), "credential");
    server.write("token", token.trim());
    assert!(opens(&root, &envelope, &key), "the file is read anew");
    server.api("POST", "auth/token/revoke", &json!({"token": token.trim()}));
    is(&not_opened(&root, &envelope), "denied");
    is(&root.wrap(VAULT, &key).unwrap_err(), "denied");
    is(&OpenBaoRoot::new(&settings).unwrap().unwrap(VAULT, &envelope).unwrap_err(), "credential");
    server.write("token", &server.token());
    assert!(opens(&root, &envelope, &key));
    std::fs::remove_file(file).unwrap();
    is(&not_opened(&root, &envelope), "credential");
}

#[test]
fn a_withdrawn_policy_is_a_denial_until_it_is_given_back() {
    let server = Server::start();
    let settings = server.settings();
    let root = OpenBaoRoot::new(&settings).unwrap();
    let (key, envelope) = wrapped(&root);
    server.set_policy(r#"path "transit/encrypt/strongroom" { capabilities = ["update"] }"#);
    is(&not_opened(&root, &envelope), "denied");
    is(&OpenBaoRoot::new(&settings).unwrap().unwrap(VAULT, &envelope).unwrap_err(), "denied");
    assert!(root.wrap(VAULT, &key).is_ok());
    server.set_policy(r#"path "transit/*" { capabilities = ["deny"] }"#);
    is(&root.wrap(VAULT, &key).unwrap_err(), "denied");
    server.set_policy(r#"path "transit/*" { capabilities = ["update"] }"#);
    assert!(opens(&root, &envelope, &key));
}

#[test]
fn a_deleted_key_or_engine_or_a_forbidden_version_is_a_denial_and_a_new_key_is_another() {
    let server = Server::start();
    let root = OpenBaoRoot::new(&server.settings()).unwrap();
    let (key, envelope) = wrapped(&root);
    let path = format!("transit/keys/{KEY}");
    let config = format!("{path}/config");
    server.api("POST", &format!("{path}/rotate"), &json!({}));
    server.api("POST", &config, &json!({"min_decryption_version": 2}));
    is(&not_opened(&root, &envelope), "denied");
    server.api("POST", &config, &json!({"min_decryption_version": 1, "deletion_allowed": true}));
    assert!(opens(&root, &envelope, &key));
    server.api("DELETE", &path, &Value::Null);
    is(&not_opened(&root, &envelope), "denied");
    is(&not_wrapped(&root), "denied");
    server.api("POST", &path, &json!({"type": "aes256-gcm96"}));
    is(&not_opened(&root, &envelope), "other key");
    let (key, newer) = wrapped(&root);
    assert!(opens(&root, &newer, &key));
    server.api("DELETE", "sys/mounts/transit", &Value::Null);
    is(&not_opened(&root, &newer), "denied");
}

#[test]
fn a_key_without_associated_data_is_refused() {
    let server = Server::start();
    server.set_policy(r#"path "transit/*" { capabilities = ["update"] }"#);
    let settings = server.settings();
    for (name, body) in [("rsa", json!({"type": "rsa-2048"})), ("derived", json!({"derived": true}))] {
        server.api("POST", &format!("transit/keys/{name}"), &body);
        is(
            &not_wrapped(&OpenBaoRoot::new(&Settings { key: name.to_owned(), ..settings.clone() }).unwrap()),
            "settings",
        );
    }
}

#[test]
fn a_sealed_or_stopped_server_is_unreachable() {
    let mut server = Server::start();
    let root = OpenBaoRoot::new(&server.settings()).unwrap();
    let (_, envelope) = wrapped(&root);
    server.api("POST", "sys/seal", &json!({}));
    let error = not_opened(&root, &envelope);
    is(&error, "unreachable");
    assert!(error.to_string().contains("sealed"), "{error}");
    server.stop();
    is(&not_opened(&root, &envelope), "unreachable");
    is(&not_wrapped(&root), "unreachable");
}

#[test]
fn a_role_logs_in_for_each_call_and_leaves_no_token_behind() {
    let server = Server::start();
    server.api("POST", "sys/auth/approle", &json!({"type": "approle"}));
    server.api("POST", "auth/approle/role/vault", &json!({"token_policies": ["vault"], "token_ttl": "1h"}));
    let role_id = server.api("GET", "auth/approle/role/vault/role-id", &Value::Null)["data"]["role_id"].clone();
    let new_secret = || {
        let made = server.api("POST", "auth/approle/role/vault/secret-id", &json!({}));
        made["data"]["secret_id"].as_str().unwrap().to_owned()
    };
    let approle = AppRole {
        role_id: role_id.as_str().unwrap().to_owned(),
        secret_id_file: server.write("secret-id", "never-known"),
        mount: "approle".to_owned(),
    };
    let root = OpenBaoRoot::new(&Settings { approle: Some(approle.clone()), ..server.bare_settings() }).unwrap();
    is(&not_wrapped(&root), "credential");
    let secret = new_secret();
    server.write("secret-id", &secret);
    let tokens = || server.api("LIST", "auth/token/accessors", &Value::Null)["data"]["keys"].as_array().unwrap().len();
    let before = tokens();
    let (key, envelope) = wrapped(&root);
    assert!(opens(&root, &envelope, &key));
    assert_eq!(tokens(), before);
    server.set_policy(r#"path "transit/*" { capabilities = ["deny"] }"#);
    is(&not_opened(&root, &envelope), "denied");
    server.set_policy(r#"path "transit/*" { capabilities = ["update"] }"#);
    server.api("POST", "auth/approle/role/vault/secret-id/destroy", &json!({"secret_id": secret}));
    is(&not_opened(&root, &envelope), "denied");
    server.write("secret-id", &new_secret());
    assert!(opens(&root, &envelope, &key));
    let elsewhere = AppRole { mount: "nowhere".to_owned(), ..approle };
    let root = OpenBaoRoot::new(&Settings { approle: Some(elsewhere), ..server.bare_settings() }).unwrap();
    assert!(matches!(not_wrapped(&root), RootError::Settings { .. } | RootError::Credential { .. }));
}

#[test]
fn a_namespace_has_keys_of_its_own() {
    let server = Server::start();
    server.api("POST", "sys/namespaces/bank", &json!({}));
    server.api_in("bank", "POST", "sys/mounts/transit", &json!({"type": "transit"}));
    server.api_in("bank", "POST", &format!("transit/keys/{KEY}"), &json!({}));
    let policy = r#"path "transit/*" { capabilities = ["update"] }"#;
    server.api_in("bank", "PUT", "sys/policies/acl/vault", &json!({"policy": policy}));
    let made = server.api_in("bank", "POST", "auth/token/create", &json!({"policies": ["vault"]}));
    let token_file = Some(server.write("bank-token", made["auth"]["client_token"].as_str().unwrap()));
    let namespace = Some("bank".to_owned());
    let bank = OpenBaoRoot::new(&Settings { token_file, namespace, ..server.bare_settings() }).unwrap();
    let (key, envelope) = wrapped(&bank);
    assert!(opens(&bank, &envelope, &key));
    is(&OpenBaoRoot::new(&server.settings()).unwrap().unwrap(VAULT, &envelope).unwrap_err(), "other key");
}

#[test]
fn only_a_certificate_of_the_given_authority_is_spoken_to() {
    let (server, other) = (Server::start_with_tls(), Server::start_with_tls());
    let settings = server.settings();
    let root = OpenBaoRoot::new(&settings).unwrap();
    let (key, envelope) = wrapped(&root);
    assert!(opens(&root, &envelope, &key));
    let ca_file = Some(other.authority());
    is(&not_wrapped(&OpenBaoRoot::new(&Settings { ca_file, ..settings.clone() }).unwrap()), "unreachable");
    let ca_file = Some(server.write("empty.pem", "no certificate"));
    is(&OpenBaoRoot::new(&Settings { ca_file, ..settings.clone() }).unwrap_err(), "settings");
    let ca_file = Some("/nowhere/ca.pem".into());
    is(&OpenBaoRoot::new(&Settings { ca_file, ..settings }).unwrap_err(), "settings");
}

/// Settings for what is no OpenBao.
fn strange(address: String) -> (tempfile::NamedTempFile, Settings) {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "s.atokenatokenatoken").unwrap();
    let text = format!("address = {address:?}\nkey = \"strongroom\"\ntoken_file = {:?}", token.path());
    (token, toml::from_str(&text).unwrap())
}

#[test]
fn a_redirect_is_not_followed() {
    let (sender, asked) = mpsc::channel();
    let elsewhere = stranger(move |request| {
        sender.send(request.to_owned()).unwrap();
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec()
    });
    for status in [301, 302, 307, 308] {
        let to = elsewhere.clone();
        let address =
            stranger(move |_| format!("HTTP/1.1 {status} There\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into());
        let (_token, settings) = strange(address);
        is(&not_wrapped(&OpenBaoRoot::new(&settings).unwrap()), "unreachable");
    }
    assert!(asked.try_recv().is_err(), "nobody asked there");
}

#[test]
fn a_server_that_never_answers_or_never_ends_is_given_up_in_time() {
    let (address, _listener) = silence();
    let (_token, settings) = strange(address);
    let before = Instant::now();
    is(&not_wrapped(&OpenBaoRoot::new(&settings).unwrap()), "unreachable");
    assert!(before.elapsed() < Duration::from_secs(15));
    let endless = stranger(|_| {
        let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
        [head, vec![b' '; 4 * 1024 * 1024]].concat()
    });
    let (_token, settings) = strange(endless);
    is(&not_wrapped(&OpenBaoRoot::new(&settings).unwrap()), "unreachable");
    let headers = stranger(|_| [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 1024 * 1024]].concat());
    let (_token, settings) = strange(headers);
    is(&not_wrapped(&OpenBaoRoot::new(&settings).unwrap()), "unreachable");
    for body in ["", "{}", "<html>", r#"{"data":{"ciphertext":7}}"#, r#"{"data":{"ciphertext":"plain"}}"#] {
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (_token, settings) = strange(stranger(move |_| text.clone().into()));
        assert!(matches!(
            not_wrapped(&OpenBaoRoot::new(&settings).unwrap()),
            RootError::Unreachable { .. } | RootError::Settings { .. }
        ));
    }
}

#[test]
fn no_error_shows_key_or_token_even_if_the_server_repeats_them() {
    let server = Server::start();
    let settings = server.settings();
    let token = std::fs::read_to_string(settings.token_file.clone().unwrap()).unwrap();
    let root = OpenBaoRoot::new(&settings).unwrap();
    let (key, envelope) = wrapped(&root);
    let mut errors = vec![root.unwrap(VaultId([8; 16]), &envelope).unwrap_err()];
    server.set_policy(r#"path "transit/*" { capabilities = ["deny"] }"#);
    errors.push(root.wrap(VAULT, &key).unwrap_err());
    server.api("POST", "auth/token/revoke", &json!({"token": token.trim()}));
    errors.push(root.wrap(VAULT, &key).unwrap_err());
    for status in [400, 403, 404, 500] {
        let parrot = stranger(move |request| {
            let body = json!({"errors": [request]}).to_string();
            format!("HTTP/1.1 {status} No\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into()
        });
        let parrot = OpenBaoRoot::new(&Settings { address: parrot, ..settings.clone() }).unwrap();
        errors.push(parrot.wrap(VAULT, &key).unwrap_err());
        errors.push(parrot.unwrap(VAULT, &envelope).unwrap_err());
    }
    let told = format!("{errors:?} {} {root:?}", errors.iter().map(ToString::to_string).collect::<String>());
    shows_nothing(&told, &key, &[token.trim()]);
    assert!(told.contains("repeats a secret"), "{told}");
}

#[test]
fn settings_are_those_of_the_manual_and_no_others() {
    let text = "address = \"http://127.0.0.1:8100\"\nkey = \"strongroom\"\n";
    let read = |more: &str| toml::from_str::<Settings>(&format!("{text}{more}"));
    let settings = read("token_file = \"/token\"").unwrap();
    assert_eq!((settings.mount.as_str(), settings.namespace.as_ref()), ("transit", None));
    assert!(OpenBaoRoot::new(&settings).is_ok());
    let role = "[approle]\nrole_id = \"r\"\nsecret_id_file = \"/s\"";
    assert_eq!(read(role).unwrap().approle.unwrap().mount, "approle");
    is(&OpenBaoRoot::new(&read("").unwrap()).unwrap_err(), "settings");
    is(&OpenBaoRoot::new(&read(&format!("token_file = \"/token\"\n{role}")).unwrap()).unwrap_err(), "settings");
    assert!(read("token = \"s.secret\"").is_err());
    assert!(read(&format!("{role}\nsecret_id = \"x\"")).is_err());
}
