//! A second factor when the vault asks for one: a command that is refused for want of it is run again with one.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use strongroom_access::Assertion;
use strongroom_proto::v1::{StepUpRequest, StepUpResponse};

use super::Cli;
use super::client::{Connect, Context, Shown};
use super::output::{CliError, Exit, Output, Refusal};

/// How a question for a code ends that nobody can be asked.
const OTHERWISE: &str = "the code as the last word of the command";

/// Where the assertion of a principal is kept: beside its certificate.
pub fn kept_at(connect: &Connect) -> PathBuf {
    connect.cert.with_extension("factor")
}

/// What is kept, if its time is not over.
pub fn kept(connect: &Connect) -> Shown {
    let text = std::fs::read_to_string(kept_at(connect)).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    match Assertion::parse(text.as_bytes()) {
        Some(assertion) if u128::from(assertion.expires) > now => Shown::of(&text),
        _ => Shown::default(),
    }
}

/// Turns a code into an assertion, for one request or for whatever comes.
pub async fn step_up(connect: &Connect, code: String, request: String) -> Result<StepUpResponse, CliError> {
    // What is kept may have ended meanwhile, and would be refused.
    let bare = Context::bare(Output::default(), connect.clone());
    Ok(bare.access().await?.step_up(StepUpRequest { code, request }).await?.into_inner())
}

/// The code that was given; without one it is asked for.
pub fn given(code: Option<String>) -> Result<String, CliError> {
    match code {
        Some(code) => Ok(code),
        None => ask(),
    }
}

/// Asks for a code at the terminal. It is good once, so it may be seen.
fn ask() -> Result<String, CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::Unfit {
            message: "there is no terminal to ask for a code at".into(),
            next: OTHERWISE.into(),
        });
    }
    let unread = |error| CliError::unfit(format!("the terminal can't be read: {error}"));
    write!(io::stderr(), "Code of your authenticator app: ").map_err(unread)?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(unread)?;
    Ok(line.trim().to_owned())
}

/// Runs a command, and if the vault asks for a second factor, and there is a code or somebody to ask for one, runs it
/// again with that.
pub async fn shown_if_asked(cli: Cli) -> Result<Exit, CliError> {
    let global = cli.global.clone();
    let error = match super::run(cli).await {
        Err(error) => error,
        done => return done,
    };
    let Some(refusal) = error.refusal() else { return Err(error) };
    let connect = global.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(connect) = connect else { return Err(error) };
    if refusal.reason == "SECOND_FACTOR_NOT_ACCEPTED" {
        // It will not be shown again.
        let _ = std::fs::remove_file(kept_at(&connect));
        return Err(error);
    }
    if !is_required(&refusal.reason) || (global.second_factor.is_none() && !io::stdin().is_terminal()) {
        return Err(error);
    }
    let request = refusal.metadata.iter().find(|(name, _)| name == "request").map(|(_, hash)| hash.clone());
    if global.second_factor.is_none() {
        let _ = writeln!(io::stderr(), "{}", refusal.message);
    }
    let stepped_up = step_up(&connect, given(global.second_factor.clone())?, request.unwrap_or_default()).await?;
    // The same words once more, and what stood on standard input: the command used both up.
    let mut again = Cli::parse();
    again.global.assertion = Some(stepped_up.assertion);
    again.global.input = global.input;
    super::run(again).await
}

/// Whether this is the reason of what goes through with a second factor.
pub fn is_required(reason: &str) -> bool {
    reason == "SECOND_FACTOR_REQUIRED"
}

/// Refuses as a whole, before anything of it is printed, what was refused in part for want of a second factor: so the
/// command is run again with one. What is wanting even then is told item by item.
pub fn whole<'r>(context: &Context, refusals: impl IntoIterator<Item = &'r Refusal>) -> Result<(), CliError> {
    match refusals.into_iter().find(|refusal| is_required(&refusal.reason)) {
        Some(refusal) if !context.stepped_up => Err(CliError::Refused(Box::new(refusal.clone()))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tonic::Code;

    use super::*;

    fn connect(folder: &Path) -> Connect {
        Connect {
            endpoint: String::new(),
            ca: PathBuf::new(),
            cert: folder.join("officer-1.pem"),
            key: PathBuf::new(),
            domain: String::new(),
        }
    }

    #[test]
    fn nothing_is_shown_of_what_is_no_assertion_or_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let connect = connect(folder.path());
        let shows = || format!("{:?}", kept(&connect)) != format!("{:?}", Shown::default());
        assert!(!shows());
        let assertion = |expires| Assertion { expires, enrolment: [1; 16], request: None, mac: [2; 32] }.to_text();
        for (text, is_shown) in [("garbage".to_owned(), false), (assertion(1), false), (assertion(u64::MAX), true)] {
            std::fs::write(folder.path().join("officer-1.factor"), &text).unwrap();
            assert_eq!(shows(), is_shown, "{text}");
        }
    }

    #[test]
    fn one_item_that_wants_a_second_factor_has_the_whole_asked_again_and_only_once() {
        let refusal = |reason: &str| Refusal {
            code: Code::PermissionDenied,
            reason: reason.to_owned(),
            message: String::new(),
            violations: vec![],
            metadata: vec![],
            retry_after: None,
        };
        let (denied, required) = (refusal("DENIED"), refusal("SECOND_FACTOR_REQUIRED"));
        let mut context = Context::bare(Output::Table, connect(Path::new("")));
        assert!(whole(&context, [&denied]).is_ok());
        let error = whole(&context, [&denied, &required]).unwrap_err();
        assert_eq!(error.refusal().unwrap().reason, "SECOND_FACTOR_REQUIRED");
        context.stepped_up = true;
        assert!(whole(&context, [&denied, &required]).is_ok());
    }
}
