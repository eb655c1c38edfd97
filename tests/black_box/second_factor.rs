//! Second factors over the wire and on the command line: enrolled, stepped up to, bound to a request, lost and reset.

use std::io::Write;
use std::process::Stdio;

use data_encoding::BASE32_NOPAD;
use ring::hmac;
use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::approvals::{named, waiting, with_approval};
use crate::harness::{TestVault, Told, detokenize, one_token, refused, value, vault_client};

pub const POLICIES: [&str; 2] =
    [include_str!("../../deploy/policies/default.cedar"), include_str!("../../deploy/policies/second-factor.cedar")];

/// The authenticator app: RFC 6238 by other means than the vault's.
pub struct App {
    secret: Vec<u8>,
    /// The recovery codes.
    pub recovery: Vec<String>,
}

impl App {
    fn new(uri: &str, recovery: Vec<String>) -> Self {
        let (_, rest) = uri.split_once("secret=").unwrap();
        let secret = BASE32_NOPAD.decode(rest.split('&').next().unwrap().as_bytes()).unwrap();
        Self { secret, recovery }
    }

    /// The code of a step of time.
    fn code_of(&self, step: u64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.secret);
        let mac = hmac::sign(&key, &step.to_be_bytes());
        let mac = mac.as_ref();
        let at = usize::from(mac[19] & 15);
        let number = u32::from_be_bytes(mac[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
        format!("{:06}", number % 1_000_000)
    }

    /// The code of now, and the one after it: both are taken, whenever the step ends.
    fn codes(&self) -> [String; 2] {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 30;
        [self.code_of(now), self.code_of(now + 1)]
    }

    fn wrong(&self) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 30;
        let right: Vec<String> = (now - 2..now + 4).map(|step| self.code_of(step)).collect();
        (0..).map(|number| format!("{number:06}")).find(|code| !right.contains(code)).unwrap()
    }
}

/// Enrols and confirms; returns the app, and its next code that is not used yet.
async fn enrol(client: &mut AccessClient<Channel>) -> (App, String) {
    let enrolled = client.enrol_second_factor(v1::EnrolSecondFactorRequest {}).await.unwrap().into_inner();
    assert!(enrolled.uri.starts_with("otpauth://totp/Strongroom%20") && enrolled.recovery_codes.len() == 10);
    let app = App::new(&enrolled.uri, enrolled.recovery_codes);
    let [code, next] = app.codes();
    client.confirm_second_factor(v1::ConfirmSecondFactorRequest { code }).await.unwrap();
    (app, next)
}

pub async fn step_up(client: &mut AccessClient<Channel>, code: &str, request: &str) -> Result<String, Status> {
    let request = v1::StepUpRequest { code: code.to_owned(), request: request.to_owned() };
    Ok(client.step_up(request).await?.into_inner().assertion)
}

/// A request that shows an assertion.
pub fn showing<T>(message: T, assertion: &str) -> Request<T> {
    let mut request = Request::new(message);
    let shown: MetadataValue<Ascii> = assertion.parse().unwrap();
    request.metadata_mut().insert("strongroom-second-factor", shown);
    request
}

/// Enrols and steps up; returns the app, and what does for any request.
pub async fn stepped_up(client: &mut AccessClient<Channel>) -> (App, String) {
    let (app, next) = enrol(client).await;
    let assertion = step_up(client, &next, "").await.unwrap();
    (app, assertion)
}

fn policies(more: &str) -> v1::ApplyPolicyRequest {
    v1::ApplyPolicyRequest { source: format!("{}\n{more}", POLICIES.join("\n")), ..Default::default() }
}

/// Puts the policies in force that want second factors, by an officer who shows its own.
async fn want_second_factors(vault: &TestVault, client: &AccessClient<Channel>, assertion: &str) {
    let applied = with_approval(vault, async || client.clone().apply_policy(showing(policies(""), assertion)).await);
    applied.await.unwrap();
}

/// The words of a command of `strongroom second-factor`.
fn factor<'w>(words: &[&'w str]) -> Vec<&'w str> {
    [&["second-factor"], words].concat()
}

fn unfreeze() -> v1::UnfreezeRequest {
    v1::UnfreezeRequest { field: String::new(), reads: true, writes: true, all_tenants: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_taken_once_and_what_it_gave_is_its_holders_alone() {
    let mut vault = TestVault::start();
    let mut officer = vault.access().await;
    let (app, next) = enrol(&mut officer).await;
    let assertion = step_up(&mut officer, &next, "").await.unwrap();
    // Again, on another connection, and at the same time as before.
    let told = refused(step_up(&mut vault.access().await, &next, "").await);
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "SECOND_FACTOR_WRONG"));
    want_second_factors(&vault, &officer, &assertion).await;
    let told = refused(officer.unfreeze(unfreeze()).await);
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "SECOND_FACTOR_REQUIRED"));
    officer.unfreeze(showing(unfreeze(), &assertion)).await.unwrap();
    // Somebody else's certificate, a changed text, and rubbish.
    let mut other = vault.access_as("officer-2").await;
    let mut privacy = vault.access_as("privacy").await;
    let forged = format!("{}A", &assertion[..assertion.len() - 1]);
    let long = "A".repeat(4_000);
    let not_accepted = |told: Told| {
        assert_eq!(
            (told.code, told.reason.as_str()),
            (Code::Unauthenticated, "SECOND_FACTOR_NOT_ACCEPTED"),
            "{told:?}"
        );
    };
    not_accepted(refused(other.unfreeze(showing(unfreeze(), &assertion)).await));
    not_accepted(refused(privacy.get_policy(showing(v1::GetPolicyRequest::default(), &assertion)).await));
    for wrong in [forged.as_str(), "rubbish", "", " ", "====", &long, &assertion[1..], &assertion.to_lowercase()] {
        if wrong == assertion {
            continue;
        }
        not_accepted(refused(officer.unfreeze(showing(unfreeze(), wrong)).await));
        not_accepted(refused(officer.get_policy(showing(v1::GetPolicyRequest::default(), wrong)).await));
    }
    let mut two = showing(unfreeze(), &assertion);
    two.metadata_mut().append("strongroom-second-factor", assertion.parse().unwrap());
    not_accepted(refused(officer.unfreeze(two).await));
    // It outlives the process, as the factor does, and no restart makes a used code good.
    vault.kill();
    vault.up();
    let mut officer = vault.access().await;
    officer.unfreeze(showing(unfreeze(), &assertion)).await.unwrap();
    assert_eq!(refused(step_up(&mut officer, &next, "").await).reason, "SECOND_FACTOR_WRONG");
    step_up(&mut officer, &app.recovery[0], "").await.unwrap();
    assert_eq!(refused(step_up(&mut officer, &app.recovery[0], "").await).reason, "SECOND_FACTOR_WRONG");
    vault.verify_ledger();
    vault.kill();
    vault.cli_ok(&["verify"]);
    vault.hides(app.recovery.iter().chain([&BASE32_NOPAD.encode(&app.secret)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_for_a_request_does_for_no_other() {
    let vault = TestVault::start();
    let mut officer = vault.access().await;
    let (app, fresh) = stepped_up(&mut officer).await;
    want_second_factors(&vault, &officer, &fresh).await;
    let asked = officer.apply_policy(showing(policies("// one"), &fresh)).await.err().unwrap();
    let metadata = asked.get_details_error_info().unwrap().metadata;
    assert_eq!((metadata["kind"].as_str(), metadata["request"].len()), ("bound", 64));
    let bound = step_up(&mut officer, &app.recovery[0], &metadata["request"]).await.unwrap();
    let told = refused(officer.apply_policy(showing(policies("// other"), &bound)).await);
    assert_eq!(told.reason, "SECOND_FACTOR_REQUIRED");
    let told = refused(officer.unfreeze(showing(unfreeze(), &bound)).await);
    assert_eq!(told.reason, "SECOND_FACTOR_REQUIRED");
    let name = waiting(&refused(officer.apply_policy(showing(policies("// one"), &bound)).await));
    // The other one approves with a factor of its own, or not at all.
    let (others, _) = enrol(&mut vault.access_as("officer-2").await).await;
    let without = vault.cli(&["approve", &name, "--as", "officer-2"]);
    assert!(String::from_utf8_lossy(&without.stderr).contains("second-factor step-up"), "{without:?}");
    vault.cli_ok(&["approve", &name, "--as", "officer-2", "--second-factor", &others.recovery[0]]);
    officer.apply_policy(showing(policies("// one"), &bound)).await.unwrap();
    let mut client = vault.access().await;
    for wrong in ["ab", &"g".repeat(64)] {
        let told = refused(step_up(&mut client, &app.recovery[1], wrong).await);
        assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "SECOND_FACTOR_INVALID"));
    }
    vault.verify_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_lock_it_and_another_officer_resets_it() {
    let mut vault = TestVault::start();
    let mut officer = vault.access().await;
    let (app, next) = enrol(&mut officer).await;
    for _ in 0..5 {
        assert_eq!(refused(step_up(&mut officer, &app.wrong(), "").await).reason, "SECOND_FACTOR_WRONG");
    }
    vault.kill();
    vault.up();
    let mut officer = vault.access().await;
    let locked = step_up(&mut officer, &next, "").await.unwrap_err();
    let delay = locked.get_details_retry_info().unwrap().retry_delay.unwrap().as_secs();
    assert_eq!(locked.code(), Code::ResourceExhausted);
    assert!((600..=900).contains(&delay), "{delay} s");
    assert_eq!(Told::from(locked).reason, "SECOND_FACTOR_LOCKED");
    let mut other = vault.access_as("officer-2").await;
    let listed = other.list_second_factors(v1::ListSecondFactorsRequest {}).await.unwrap().into_inner();
    assert!(listed.second_factors[0].lock_end_time.is_some() && listed.second_factors[0].confirmed);
    let reset = |name: &str| v1::ResetSecondFactorRequest { principal: name.to_owned() };
    let own = refused(officer.reset_second_factor(reset("officer/officer-1")).await);
    assert_eq!((own.code, own.reason.as_str()), (Code::FailedPrecondition, "SECOND_FACTOR_REFUSED"));
    other.reset_second_factor(reset("officer/officer-1")).await.unwrap();
    assert_eq!(refused(step_up(&mut officer, &next, "").await).reason, "SECOND_FACTOR_REFUSED");
    let (_, next) = enrol(&mut officer).await;
    step_up(&mut officer, &next, "").await.unwrap();
    for service in ["app", "rotator", "auditor"] {
        let mut service = vault.access_as(service).await;
        let told = refused(service.enrol_second_factor(v1::EnrolSecondFactorRequest {}).await);
        assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "DENIED"));
        assert_eq!(refused(step_up(&mut service, "123456", "").await).reason, "DENIED");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_privacy_desk_reads_with_one() {
    let vault = TestVault::start();
    let mut officer = vault.access().await;
    let (_, assertion) = stepped_up(&mut officer).await;
    want_second_factors(&vault, &officer, &assertion).await;
    let token = one_token(&vault, "borrower.id_card", "11010519491231002X", "cust-1").await;
    let mut desk = vault.access_as("privacy").await;
    let mut reader = vault_client(vault.channel("privacy").await);
    let read = || detokenize(&[&token], "kyc_review", "masked");
    let told = value(reader.detokenize(read()).await.unwrap().into_inner().results.remove(0)).unwrap_err();
    assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "SECOND_FACTOR_REQUIRED"));
    let (_, assertion) = stepped_up(&mut desk).await;
    let mut answer = reader.detokenize(showing(read(), &assertion)).await.unwrap().into_inner();
    assert!(value(answer.results.remove(0)).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_items_want_one_is_done_whole_with_a_code_and_not_begun_without() {
    let vault = TestVault::start();
    let mut officer = vault.access().await;
    let (_, assertion) = stepped_up(&mut officer).await;
    want_second_factors(&vault, &officer, &assertion).await;
    let (desk, _) = enrol(&mut vault.access_as("privacy").await).await;
    let mut codes = desk.recovery.iter().map(String::as_str);
    let first = one_token(&vault, "borrower.id_card", "11010519491231002X", "cust-1").await;
    let second = one_token(&vault, "borrower.id_card", "110105194912310038", "cust-1").await;
    let asking = ["--as", "privacy", "--purpose", "kyc_review"];
    let reads = |said: &str| said.contains("110105********002X") && said.contains("110105********0038");
    for form in ["table", "json"] {
        let read = [&["detokenize", &first, &second, "--output", form], &asking[..]].concat();
        let without = vault.cli(&read);
        let said = String::from_utf8_lossy(&without.stderr).into_owned();
        assert_eq!((without.status.code(), without.stdout.len()), (Some(1), 0), "{said}");
        assert!(said.contains("strongroom second-factor step-up"), "{said}");
        let said = vault.cli_ok(&[&read[..], &["--second-factor", codes.next().unwrap()]].concat());
        assert!(reads(&said), "{said}");
    }
    // What stood on standard input is there when it is asked again.
    let words = [&["detokenize", "-", "--second-factor", codes.next().unwrap()], &asking[..]].concat();
    let mut child = vault.cli_command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{first}\n{second}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && reads(&String::from_utf8_lossy(&output.stdout)), "{output:?}");
    // A file: not one record of it is taken for one that may not be read.
    let file = |name: &str| vault.scratch().join(name);
    std::fs::write(file("tokens.csv"), format!("id,card\n1,{first}\n2,{second}\n")).unwrap();
    let (tokens, out) = (file("tokens.csv"), file("cards.csv"));
    let export = ["export", tokens.to_str().unwrap(), "--map", "card=borrower.id_card", "--view", "masked", "-o"];
    let export = [&export[..], &[out.to_str().unwrap()], &asking[..]].concat();
    let without = vault.cli(&export);
    assert_eq!(without.status.code(), Some(1), "{without:?}");
    assert!(String::from_utf8_lossy(&without.stderr).contains("strongroom second-factor step-up"), "{without:?}");
    for name in ["cards.csv", "cards.csv.part", "cards.csv.progress", "cards.csv.rejects.csv"] {
        assert!(!file(name).exists(), "{name}");
    }
    vault.cli_ok(&[&export[..], &["--second-factor", codes.next().unwrap()]].concat());
    let cards = std::fs::read_to_string(&out).unwrap();
    assert_eq!(cards, "id,card\n1,110105********002X\n2,110105********0038\n");
    vault.verify_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_enrols_steps_up_and_asks_again_by_itself() {
    let vault = TestVault::start();
    let drawn = vault.cli_ok(&factor(&["enrol"]));
    assert!(drawn.contains('\u{2580}') && drawn.contains("otpauth://totp/") && drawn.contains("Recovery codes"));
    // The one before was never confirmed: it is replaced.
    let enrolled = vault.json(&factor(&["enrol"]));
    let recovery = enrolled["recovery_codes"].as_array().unwrap();
    let recovery: Vec<String> = recovery.iter().map(|code| code.as_str().unwrap().to_owned()).collect();
    let app = App::new(enrolled["uri"].as_str().unwrap(), recovery);
    let [code, next] = app.codes();
    let wrong = vault.cli(&factor(&["confirm", &app.wrong()]));
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(said.contains("the code is wrong") && said.contains("try: the same with the next code"), "{said}");
    vault.cli_ok(&factor(&["confirm", &code]));
    // Nobody can be asked for a code here.
    let asked = vault.cli(&factor(&["step-up"]));
    assert!(String::from_utf8_lossy(&asked.stderr).contains("no terminal"), "{asked:?}");
    let shown = vault.cli_ok(&factor(&["step-up", &next]));
    assert!(shown.contains("good until"), "{shown}");
    let kept = vault.dir().join("pki/officer-1.factor");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kept).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // Shown with what comes next: so the officer may put policies in force that want one.
    let file = vault.scratch().join("ours.cedar");
    std::fs::write(&file, POLICIES.join("\n")).unwrap();
    let apply = ["policy", "apply", file.to_str().unwrap()];
    let waits = vault.cli(&apply);
    assert_eq!(waits.status.code(), Some(3), "{}", String::from_utf8_lossy(&waits.stderr));
    vault.cli_ok(&["approve", &named(&String::from_utf8_lossy(&waits.stderr))]);
    vault.cli_ok(&apply);
    vault.cli_ok(&["unfreeze"]);
    let why = vault.cli(&["policy", "explain", "--action", "unfreeze", "--role", "officer"]);
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(why.contains("allowed with a fresh second factor"), "{why}");
    std::fs::remove_file(&kept).unwrap();
    let without = vault.cli(&["unfreeze"]);
    let said = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(without.status.code() == Some(1) && said.contains("strongroom second-factor step-up"), "{said}");
    vault.cli_ok(&["unfreeze", "--second-factor", &app.recovery[0]]);
    // For just this request, too.
    std::fs::write(&file, format!("{}\n// again\n", POLICIES.join("\n"))).unwrap();
    let waits = vault.cli(&[&apply[..], &["--second-factor", &app.recovery[1]]].concat());
    let said = String::from_utf8_lossy(&waits.stderr).into_owned();
    assert_eq!(waits.status.code(), Some(3), "{said}");
    let (others, _) = enrol(&mut vault.access_as("officer-2").await).await;
    vault.cli_ok(&["approve", &named(&said), "--as", "officer-2", "--second-factor", &others.recovery[0]]);
    vault.cli_ok(&[&apply[..], &["--second-factor", &app.recovery[2]]].concat());
    // Another factor takes the old one, shown for just that.
    let without = vault.cli(&factor(&["enrol"]));
    assert!(String::from_utf8_lossy(&without.stderr).contains("second-factor step-up"), "{without:?}");
    assert!(vault.json(&factor(&["enrol", "--second-factor", &app.recovery[4]]))["uri"].is_string());
    // What is none is told as such, and not shown again.
    let good = vault.cli_ok(&factor(&["step-up", &app.recovery[3], "--print"])).trim().to_owned();
    std::fs::write(&kept, &good).unwrap();
    vault.cli_ok(&["unfreeze"]);
    let forged: String =
        good.chars().enumerate().map(|(at, c)| if at == 20 { if c == 'A' { 'B' } else { 'A' } } else { c }).collect();
    std::fs::write(&kept, forged).unwrap();
    let refused = vault.cli(&["freezes"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not accepted"), "{refused:?}");
    assert!(!kept.exists());
    vault.cli_ok(&["freezes"]);
    assert!(vault.cli_ok(&factor(&["list", "--as", "auditor"])).contains("officer/officer-1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_is_followed_with_one_for_longer_than_a_page() {
    let vault = TestVault::start();
    let mut officer = vault.access().await;
    let (_, assertion) = stepped_up(&mut officer).await;
    let follows = r#"@id("officer-follows") @why("Officers read the ledger with a second factor.")
        permit (principal in Role::"officer", action == Action::"export_ledger", resource)
        when { context.second_factor != SecondFactor::"absent" };"#;
    with_approval(&vault, async || officer.clone().apply_policy(showing(policies(follows), &assertion)).await)
        .await
        .unwrap();
    let mut reader = vault.audit_as("officer-1").await;
    let all = || v1::TailRequest { first: 0, log: String::new() };
    assert_eq!(refused(reader.tail(all()).await).reason, "SECOND_FACTOR_REQUIRED");
    let mut stream = reader.tail(showing(all(), &assertion)).await.unwrap().into_inner();
    for number in 0..3 {
        let page = stream.message().await.unwrap().unwrap();
        assert!(!page.leaves.is_empty(), "{number}");
        one_token(&vault, "borrower.name", &format!("Ann {number}"), "").await;
    }
}
