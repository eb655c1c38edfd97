//! The provider against moto's KMS; and against the answers of KMS's reference that moto never gives.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../../tests/provider/mod.rs"]
mod provider;
mod servers;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use strongroom_ids::VaultId;
use strongroom_keys::{Envelope, KeystoreKey, RootKind, RootProvider};
use strongroom_root_aws_kms::{AwsKmsRoot, Settings};

use crate::provider::{VAULT, is, keeps_what_all_keep, kind, not_opened, not_wrapped, opens, shows_nothing, wrapped};
use crate::servers::{Moto, Stranger, settings, silence};

const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

#[test]
fn it_keeps_what_all_keep() {
    let moto = Moto::shared();
    let settings = moto.settings(&moto.key());
    keeps_what_all_keep(&AwsKmsRoot::new(settings.clone()).unwrap(), &AwsKmsRoot::new(settings).unwrap());
}

#[test]
fn what_does_not_open_with_the_key_is_anothers() {
    let moto = Moto::shared();
    let arn = moto.key();
    let root = AwsKmsRoot::new(moto.settings(&arn)).unwrap();
    let (key, envelope) = wrapped(&root);
    assert_eq!(envelope.parameters, [&[1], arn.as_bytes()].concat());
    // The first 36 bytes name moto's key; after them stand nonce, tag and ciphertext.
    for at in [36, 48, 64, envelope.wrapped.len() - 1] {
        let mut changed = envelope.clone();
        changed.wrapped[at] ^= 1;
        is(&not_opened(&root, &changed), "other key");
    }
    for parameters in [b"\x01rubbish".to_vec(), b"\x01\xff".to_vec(), [b"\x02", arn.as_bytes()].concat()] {
        is(&not_opened(&root, &Envelope { parameters, ..envelope.clone() }), "other key");
    }
    assert!(opens(&root, &envelope, &key));
}

#[test]
fn a_key_that_the_settings_do_not_name_opens_nothing() {
    let moto = Moto::shared();
    let (one, other) = (moto.key(), moto.key());
    let root = AwsKmsRoot::new(moto.settings(&one)).unwrap();
    let (_, envelope) = wrapped(&AwsKmsRoot::new(moto.settings(&other)).unwrap());
    is(&not_opened(&root, &envelope), "other key");
    // It names the key that the settings do, and another sealed it: moto says AccessDenied where KMS says IncorrectKey.
    let disguised = Envelope { parameters: [&[1], one.as_bytes()].concat(), ..envelope };
    assert!(["other key", "denied"].contains(&kind(&not_opened(&root, &disguised))));
}

#[test]
fn an_alias_that_is_moved_still_opens_what_it_sealed() {
    let moto = Moto::shared();
    let (one, other) = (moto.key(), moto.key());
    moto.alias("alias/moved", &one);
    let root = AwsKmsRoot::new(moto.settings("alias/moved")).unwrap();
    let (key, older) = wrapped(&root);
    assert_eq!(older.parameters[1..], *one.as_bytes());
    moto.alias("alias/moved", &other);
    let newer = root.wrap(VAULT, &key).unwrap();
    assert_eq!(newer.parameters[1..], *other.as_bytes());
    assert!(opens(&root, &older, &key) && opens(&root, &newer, &key));
}

#[test]
fn a_missing_key_is_a_matter_of_settings_to_wrap_and_a_denial_to_unwrap() {
    let moto = Moto::shared();
    let missing = "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-0000-0000-000000000000";
    for key in [missing, "alias/nowhere"] {
        let root = AwsKmsRoot::new(moto.settings(key)).unwrap();
        is(&not_wrapped(&root), "settings");
    }
    let (_, envelope) = wrapped(&AwsKmsRoot::new(moto.settings(&moto.key())).unwrap());
    let gone = Envelope { parameters: [b"\x01", missing.as_bytes()].concat(), ..envelope };
    is(&AwsKmsRoot::new(moto.settings(missing)).unwrap().unwrap(VAULT, &gone).unwrap_err(), "denied");
}

#[test]
fn requests_are_signed_with_the_secret_that_the_file_holds_now() {
    let mut moto = Moto::start();
    let arn = moto.key();
    let user = moto.tell("user");
    let (id, secret) = user.split_once(' ').unwrap();
    let secret_access_key_file = Some(moto.write(id, secret));
    let settings = Settings { access_key_id: Some(id.to_owned()), secret_access_key_file, ..moto.settings(&arn) };
    let root = AwsKmsRoot::new(settings).unwrap();
    let key = KeystoreKey::random().unwrap();
    let policy = |actions: &str| {
        format!(
            r#"policy {{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":{actions},"Resource":"*"}}]}}"#
        )
    };
    // moto refuses in XML, which KMS never does: that it refuses is all that can be seen here.
    assert!(root.wrap(VAULT, &key).is_err(), "no rights yet");
    assert_eq!(moto.tell(&policy(r#"["kms:Encrypt","kms:Decrypt"]"#)), "done");
    let envelope = root.wrap(VAULT, &key).unwrap();
    assert!(opens(&root, &envelope, &key));
    moto.write(id, "another-secret");
    assert!(root.unwrap(VAULT, &envelope).is_err(), "the signature does not match");
    let file = moto.write(id, secret);
    assert!(opens(&root, &envelope, &key));
    assert_eq!(moto.tell(&policy(r#"["kms:Encrypt"]"#)), "done");
    assert!(root.unwrap(VAULT, &envelope).is_err(), "the right was withdrawn");
    std::fs::remove_file(file).unwrap();
    is(&root.wrap(VAULT, &key).unwrap_err(), "credential");
}

/// Runs a test of this file again, in a process with these variables and none of AWS's beside them.
fn alone_with(name: &str, variables: &[(&str, &str)]) {
    let home = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--test-threads=1"]);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("AWS_") {
            command.env_remove(variable);
        }
    }
    command.env("HOME", home.path()).env("AWS_EC2_METADATA_DISABLED", "true").env(ALONE, "yes");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

const ALONE: &str = "STRONGROOM_TEST_ALONE";

fn without_access_key(moto: &Moto) -> AwsKmsRoot {
    let settings = moto.settings(&moto.key());
    AwsKmsRoot::new(Settings { access_key_id: None, secret_access_key_file: None, ..settings }).unwrap()
}

#[test]
fn without_an_access_key_the_credentials_are_where_awss_programs_find_theirs() {
    if std::env::var_os(ALONE).is_none() {
        let variables = [("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "secret")];
        return alone_with("without_an_access_key_the_credentials_are_where_awss_programs_find_theirs", &variables);
    }
    let root = without_access_key(Moto::shared());
    let (key, envelope) = wrapped(&root);
    assert!(opens(&root, &envelope, &key));
}

#[test]
fn no_credentials_anywhere_are_a_wrong_credential() {
    if std::env::var_os(ALONE).is_none() {
        return alone_with("no_credentials_anywhere_are_a_wrong_credential", &[]);
    }
    is(&not_wrapped(&without_access_key(Moto::shared())), "credential");
}

/// A provider whose KMS answers so, an envelope that it may be asked about, and the secret's file.
fn answered(stranger: &Stranger) -> (AwsKmsRoot, Envelope, tempfile::NamedTempFile) {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "a-secret-access-key").unwrap();
    let root = AwsKmsRoot::new(settings(&stranger.address, ARN, secret.path().to_owned())).unwrap();
    let parameters = [&[1], ARN.as_bytes()].concat();
    (root, Envelope { kind: RootKind::AwsKms, parameters, wrapped: vec![7; 100] }, secret)
}

#[test]
fn each_answer_of_kms_is_of_the_kind_that_the_vault_acts_on() {
    // Code, status, and what it is to wrap and to unwrap. From the API reference, "Common Errors" included.
    let answers = [
        ("DisabledException", 400, "denied", "denied"),
        ("KMSInvalidStateException", 400, "denied", "denied"),
        ("AccessDeniedException", 400, "denied", "denied"),
        ("NotAuthorized", 400, "denied", "denied"),
        ("NotFoundException", 400, "settings", "denied"),
        ("IncorrectKeyException", 400, "other key", "other key"),
        ("InvalidCiphertextException", 400, "other key", "other key"),
        ("UnrecognizedClientException", 403, "credential", "credential"),
        ("InvalidClientTokenId", 403, "credential", "credential"),
        ("ExpiredTokenException", 403, "credential", "credential"),
        ("InvalidSignatureException", 400, "credential", "credential"),
        ("IncompleteSignature", 400, "credential", "credential"),
        ("RequestExpired", 400, "credential", "credential"),
        ("InvalidKeyUsageException", 400, "settings", "settings"),
        ("ValidationException", 400, "settings", "settings"),
        ("KeyUnavailableException", 500, "unreachable", "unreachable"),
        ("KMSInternalException", 500, "unreachable", "unreachable"),
        ("DependencyTimeoutException", 503, "unreachable", "unreachable"),
        ("ThrottlingException", 400, "unreachable", "unreachable"),
        ("LimitExceededException", 400, "unreachable", "unreachable"),
        ("InternalFailure", 500, "unreachable", "unreachable"),
        ("ServiceUnavailable", 503, "unreachable", "unreachable"),
    ];
    // Side by side, since what may pass is tried again after a while.
    std::thread::scope(|scope| {
        for (code, status, wrapping, unwrapping) in answers {
            // As KMS puts it: a name space before the code, or none.
            for name in [code.to_owned(), format!("com.amazonaws.kms#{code}")] {
                scope.spawn(move || {
                    let stranger =
                        Stranger::failing(status, &name, "arn:aws:kms:eu-central-1:111122223333:key/1 is so");
                    let (root, envelope, _secret) = answered(&stranger);
                    let error = not_wrapped(&root);
                    assert_eq!(kind(&error), wrapping, "{error}");
                    let error = not_opened(&root, &envelope);
                    assert_eq!(kind(&error), unwrapping, "{error}");
                    assert!(error.to_string().contains(code), "{error}");
                });
            }
        }
    });
}

#[test]
fn what_may_pass_is_tried_three_times_and_a_refusal_once() {
    for (code, status, times) in
        [("ThrottlingException", 400, 3), ("KMSInternalException", 500, 3), ("DisabledException", 400, 1)]
    {
        let stranger = Stranger::failing(status, code, "");
        let (root, envelope, _secret) = answered(&stranger);
        not_opened(&root, &envelope);
        assert_eq!(stranger.asked(), times, "{code}");
    }
}

#[test]
fn what_is_no_answer_of_kms_is_unreachable_and_denies_nothing() {
    for (status, body) in
        [(200, ""), (200, "{}"), (403, "<html>go away</html>"), (404, ""), (502, "bad gateway"), (301, "")]
    {
        let (root, envelope, _secret) = answered(&Stranger::answering(status, body));
        is(&not_wrapped(&root), "unreachable");
        is(&not_opened(&root, &envelope), "unreachable");
    }
    let (root, envelope, _secret) = answered(&Stranger::saying(b"rubbish\r\n\r\n".to_vec()));
    is(&not_opened(&root, &envelope), "unreachable");
}

#[test]
fn an_answer_of_another_key_or_of_no_key_is_not_taken() {
    let answer = |arn: &str, key: &[u8]| format!(r#"{{"KeyId":"{arn}","Plaintext":"{}"}}"#, BASE64.encode(key));
    let other = ARN.replace("1234abcd", "4321dcba");
    for body in [answer(&other, &[1; 32]), answer(ARN, &[1; 31]), answer(ARN, &[]), answer("", &[1; 32])] {
        let (root, envelope, _secret) = answered(&Stranger::answering(200, &body));
        is(&not_opened(&root, &envelope), "other key");
    }
    let (root, envelope, _secret) = answered(&Stranger::answering(200, &answer(ARN, &[1; 32])));
    assert_eq!(root.unwrap(VAULT, &envelope).unwrap().expose(), &[1; 32]);
    let sealed = format!(r#"{{"KeyId":"{other}","CiphertextBlob":"AAAA"}}"#);
    let (root, _, _secret) = answered(&Stranger::answering(200, &sealed));
    is(&not_wrapped(&root), "other key");
}

#[test]
fn a_kms_that_is_away_or_never_answers_is_unreachable_in_time() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "a-secret-access-key").unwrap();
    let (address, listener) = silence();
    let root = AwsKmsRoot::new(settings(&address, ARN, secret.path().to_owned())).unwrap();
    let before = Instant::now();
    is(&not_wrapped(&root), "unreachable");
    assert!(before.elapsed() < Duration::from_secs(15));
    drop(listener);
    is(&not_wrapped(&root), "unreachable");
}

#[test]
fn it_may_be_called_inside_of_any_runtime_and_outside() {
    let moto = Moto::shared();
    let root = AwsKmsRoot::new(moto.settings(&moto.key())).unwrap();
    let (key, envelope) = wrapped(&root);
    let inside = async || assert!(opens(&root, &envelope, &key));
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(inside());
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap().block_on(inside());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(opens(&root, &envelope, &key)));
        }
    });
}

/// Where a log goes that is read afterwards.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn neither_an_error_nor_the_finest_log_shows_key_or_secret() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let moto = Moto::shared();
    let root = AwsKmsRoot::new(moto.settings(&moto.key())).unwrap();
    tracing::trace!("the log is on");
    let (key, envelope) = wrapped(&root);
    assert!(opens(&root, &envelope, &key));
    let mut errors = vec![root.unwrap(VaultId([8; 16]), &envelope).unwrap_err()];
    for (code, status) in [("DisabledException", 400), ("ExpiredTokenException", 403), ("KMSInternalException", 500)] {
        let (root, _, _secret) = answered(&Stranger::failing(status, code, "no"));
        errors.push(root.wrap(VAULT, &key).unwrap_err());
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("the log is on"));
    // Only the provider calls these; their traces would hold session tokens, and whatever else a release puts into them.
    assert!(!log.contains("TrentService.Encrypt") && !log.contains("TrentService.Decrypt"));
    let told = format!("{log} {errors:?} {} {root:?}", errors.iter().map(ToString::to_string).collect::<String>());
    shows_nothing(&told, &key, &["a-secret-access-key"]);
}

#[test]
fn settings_are_those_of_the_manual_and_no_others() {
    let read = |text: &str| toml::from_str::<Settings>(text);
    let settings = read(&format!("key = {ARN:?}")).unwrap();
    assert!(AwsKmsRoot::new(settings).is_ok());
    is(&AwsKmsRoot::new(read("key = \"alias/strongroom\"").unwrap()).unwrap_err(), "settings");
    assert!(read(&format!("key = {ARN:?}\nsecret_access_key = \"x\"")).is_err());
    assert!(read("region = \"eu-central-1\"").is_err());
}
