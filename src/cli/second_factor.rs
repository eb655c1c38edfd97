//! `strongroom second-factor`: enrol an authenticator app, and turn its codes into what requests show.

use std::io::Write;

use clap::{Args as ClapArgs, Subcommand};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::json;
use strongroom_proto::v1::{
    ConfirmSecondFactorRequest, EnrolSecondFactorRequest, ListSecondFactorsRequest, ResetSecondFactorRequest,
    StepUpResponse,
};
use zeroize::{Zeroize, Zeroizing};

use super::client::Context;
use super::files;
use super::output::{CliError, Exit, facts, instant, say, table};
use super::step_up::{given, kept_at, step_up};

/// Who asks unless the caller says otherwise.
pub const PRINCIPAL: &str = "officer-1";

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
the first code that the app shows. To enrol anew, show the old one with
--second-factor CODE.
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
            let asked = step_up(&context.connect, given(code)?, request.unwrap_or_default()).await?;
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
}
