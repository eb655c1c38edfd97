//! `strongroom second-factor`: enrol an authenticator app, and turn its codes into what requests show; and what asks for a
//! code when the vault does.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args as ClapArgs, Parser, Subcommand};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::json;
use strongroom_access::Assertion;
use strongroom_proto::v1::{
    ConfirmSecondFactorRequest, EnrolSecondFactorRequest, ListSecondFactorsRequest, ResetSecondFactorRequest,
    StepUpRequest, StepUpResponse,
};
use zeroize::{Zeroize, Zeroizing};

use super::client::{Connect, Context, Shown};
use super::output::{CliError, Exit, facts, instant, say, table};
use super::{Cli, files};

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "officer-1";

/// How a question for a code ends that nobody can be asked.
const OTHERWISE: &str = "the code as the last word of the command";

/// Enrol an authenticator app as your second factor, and show it.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Show the QR code for your authenticator app, and recovery codes: once.
    #[command(after_help = "Example:
  strongroom second-factor enrol --as officer-1

Scan the QR code, keep the recovery codes apart from the phone, and confirm with
the first code that the app shows. To enrol anew, show the old one.
Next: strongroom second-factor confirm CODE")]
    Enrol,
    /// Confirm your app by the first code that it shows: from then on it counts.
    #[command(after_help = "Example:
  strongroom second-factor confirm 123456")]
    Confirm {
        /// Six digits; asked for where it is left out.
        code: Option<String>,
    },
    /// Turn a code into what the next five minutes' commands show.
    #[command(after_help = "Examples:
  strongroom second-factor step-up 123456
  strongroom second-factor step-up ABCD-EFGH-IJKL-MNOP        a recovery code
  strongroom second-factor step-up 123456 --request HASH      for that request alone

It is kept beside your certificate, for you alone to read; with it and the
certificate's key what needs a second factor goes through. Commands do this by
themselves: they ask for a code when the vault asks for one.")]
    StepUp {
        /// Six digits, or a recovery code; asked for where it is left out.
        code: Option<String>,

        /// The hash that the refusal named.
        #[arg(long, value_name = "HASH")]
        request: Option<String>,

        /// Print it, and keep nothing.
        #[arg(long)]
        print: bool,
    },
    /// Take somebody's second factor away, as another officer: its holder lost it.
    #[command(after_help = "Example:
  strongroom second-factor reset officer/officer-2

Be sure who asks you for this: whoever has the certificate can enrol anew then.")]
    Reset {
        /// Role and name: officer/officer-2.
        name: String,
    },
    /// Show who has a second factor.
    List,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.command {
        Command::Enrol => enrol(context).await,
        Command::Confirm { code } => {
            let code = given(code)?;
            context.access().await?.confirm_second_factor(ConfirmSecondFactorRequest { code }).await?;
            context.output.show(
                || json!({ "confirmed": true }),
                || "your second factor counts from now on\nNext: strongroom second-factor step-up".to_owned(),
            )?;
            Ok(Exit::Done)
        }
        Command::StepUp { code, request, print } => {
            let asked = step_up(context, given(code)?, request.unwrap_or_default()).await?;
            match print {
                true => say(asked.assertion.as_bytes())?,
                false => keep(context, &asked)?,
            }
            Ok(Exit::Done)
        }
        Command::Reset { name } => {
            let request = ResetSecondFactorRequest { principal: name.clone() };
            context.access().await?.reset_second_factor(request).await?;
            context.output.show(
                || json!({ "principal": name, "reset": true }),
                || {
                    format!(
                        "{name} has no second factor any more, and enrols another: `strongroom second-factor enrol`"
                    )
                },
            )?;
            Ok(Exit::Done)
        }
        Command::List => list(context).await,
    }
}

async fn enrol(context: &Context) -> Result<Exit, CliError> {
    let mut enrolled = context.access().await?.enrol_second_factor(EnrolSecondFactorRequest {}).await?.into_inner();
    let uri = Zeroizing::new(std::mem::take(&mut enrolled.uri));
    let drawn = drawn(&uri)?;
    let shown = context.output.show(
        || json!({ "uri": *uri, "recovery_codes": enrolled.recovery_codes }),
        || {
            let codes: Vec<&str> = enrolled.recovery_codes.iter().map(String::as_str).collect();
            format!(
                "{}\n{}\n\nRecovery codes, each good once. They are not shown again:\n  {}\n\n\
                 Next: strongroom second-factor confirm CODE, with the code that the app shows",
                *drawn,
                *uri,
                codes.join("\n  ")
            )
        },
    );
    enrolled.recovery_codes.zeroize();
    shown.map(|()| Exit::Done)
}

/// The QR code of a text, for a terminal: two modules a character, light on dark.
fn drawn(uri: &str) -> Result<Zeroizing<String>, CliError> {
    let code = QrCode::new(uri).map_err(|error| CliError::unfit(format!("no QR code: {error}")))?;
    let drawn = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    Ok(Zeroizing::new(drawn))
}

fn keep(context: &Context, stepped_up: &StepUpResponse) -> Result<(), CliError> {
    let path = kept_at(&context.connect);
    let mut file = files::create(&path).map_err(|error| CliError::file(&path, error))?;
    file.write_all(stepped_up.assertion.as_bytes()).map_err(|error| CliError::file(&path, error))?;
    let until = instant(stepped_up.expire_time.as_ref());
    context.output.show(
        || json!({ "expire_time": until, "file": path, "recovery_codes": stepped_up.recovery_codes }),
        || {
            facts([
                ("good until", until.clone()),
                ("kept in", path.display().to_string()),
                ("recovery codes left", stepped_up.recovery_codes.to_string()),
            ])
        },
    )
}

async fn list(context: &Context) -> Result<Exit, CliError> {
    let answer = context.access().await?.list_second_factors(ListSecondFactorsRequest {}).await?.into_inner();
    context.output.show(
        || {
            let listed = answer.second_factors.iter().map(|one| {
                json!({
                    "principal": one.principal,
                    "kind": one.kind,
                    "enrol_time": instant(one.enrol_time.as_ref()),
                    "confirmed": one.confirmed,
                    "recovery_codes": one.recovery_codes,
                    "lock_end_time": one.lock_end_time.as_ref().map(|time| instant(Some(time))),
                })
            });
            json!({ "second_factors": listed.collect::<Vec<_>>() })
        },
        || {
            let rows = answer.second_factors.iter().map(|one| {
                vec![
                    one.principal.clone(),
                    one.kind.clone(),
                    if one.confirmed { "confirmed" } else { "pending" }.to_owned(),
                    instant(one.enrol_time.as_ref()),
                    one.recovery_codes.to_string(),
                    instant(one.lock_end_time.as_ref()),
                ]
            });
            table(&["PRINCIPAL", "KIND", "STATE", "ENROLLED", "RECOVERY CODES", "LOCKED UNTIL"], rows)
        },
    )?;
    Ok(Exit::Done)
}

/// Where the assertion of a principal is kept: beside its certificate.
fn kept_at(connect: &Connect) -> PathBuf {
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

async fn step_up(context: &Context, code: String, request: String) -> Result<StepUpResponse, CliError> {
    // What is kept may have ended meanwhile, and would be refused.
    let bare = Context { shown: Shown::default(), ..context.clone() };
    Ok(bare.access().await?.step_up(StepUpRequest { code, request }).await?.into_inner())
}

fn given(code: Option<String>) -> Result<String, CliError> {
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
    if refusal.reason != "SECOND_FACTOR_REQUIRED" || (global.second_factor.is_none() && !io::stdin().is_terminal()) {
        return Err(error);
    }
    let request = refusal.metadata.iter().find(|(name, _)| name == "request").map(|(_, hash)| hash.clone());
    if global.second_factor.is_none() {
        let _ = writeln!(io::stderr(), "{}", refusal.message);
    }
    let context = Context { output: global.output, connect, shown: Shown::default(), actor_token: None };
    let stepped_up = step_up(&context, given(global.second_factor.clone())?, request.unwrap_or_default()).await?;
    // The same words once more: what they hold was used up.
    let mut again = Cli::parse();
    again.global.assertion = Some(stepped_up.assertion);
    super::run(again).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qr_code_is_drawn_as_high_as_it_is_wide() {
        let uri = "otpauth://totp/Strongroom%20demo:officer%2Falice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=x";
        let drawn = drawn(uri).unwrap();
        let widths: Vec<usize> = drawn.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{widths:?}");
        assert_eq!(widths.len(), widths[0].div_ceil(2), "two modules a character");
        assert!(drawn.chars().all(|c| " \u{2580}\u{2584}\u{2588}\n".contains(c)), "{}", *drawn);
    }

    #[test]
    fn nothing_is_shown_of_what_is_no_assertion_or_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let connect = Connect {
            endpoint: String::new(),
            ca: PathBuf::new(),
            cert: folder.path().join("officer-1.pem"),
            key: PathBuf::new(),
            domain: String::new(),
        };
        let shows = || format!("{:?}", kept(&connect)) != format!("{:?}", Shown::default());
        assert!(!shows());
        let assertion = |expires| Assertion { expires, enrolment: [1; 16], request: None, mac: [2; 32] }.to_text();
        for (text, is_shown) in [("garbage".to_owned(), false), (assertion(1), false), (assertion(u64::MAX), true)] {
            std::fs::write(folder.path().join("officer-1.factor"), &text).unwrap();
            assert_eq!(shows(), is_shown, "{text}");
        }
    }
}
