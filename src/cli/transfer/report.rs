//! What people see of a transfer: a bar while it runs, and what it did.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde_json::json;

use super::super::files::Files;
use super::super::output::{CliError, Exit, Output, facts, printable};
use super::super::progress::Progress;
use super::Transfer;

impl Transfer {
    pub(super) fn show_progress(&self) {
        self.bar.set_position(self.progress.input_offset);
        let values = self.progress.values - self.begun_with;
        let rate = values as f64 / self.bar.elapsed().as_secs_f64().max(0.001);
        let rejected = match self.progress.rejected {
            0 => String::new(),
            count => format!(", {} rejected", HumanCount(count)),
        };
        self.bar.set_message(format!(
            "{} values, {}/s{rejected}",
            HumanCount(self.progress.values),
            HumanCount(rate as u64)
        ));
    }
}

/// Prints what a run did.
pub fn report(progress: &Progress, out: &Path, output: Output) -> Result<Exit, CliError> {
    let rejects = Files::of(out).rejects;
    output.show(
        || {
            json!({
                "out": out.display().to_string(),
                "records": progress.records,
                "values": progress.values,
                "rejected": progress.rejected,
                "rejects": (progress.rejected > 0).then(|| rejects.display().to_string()),
            })
        },
        || {
            let mut pairs = vec![
                ("written", out.display().to_string()),
                ("records", HumanCount(progress.records).to_string()),
                ("values", HumanCount(progress.values).to_string()),
            ];
            if progress.rejected > 0 {
                pairs.push((
                    "rejected",
                    format!("{} records: see {}", HumanCount(progress.rejected), rejects.display()),
                ));
            }
            facts(pairs)
        },
    )?;
    Ok(if progress.rejected == 0 { Exit::Done } else { Exit::Partly })
}

/// Says that limits are waited for: in the bar, or in a line where there is none.
pub(super) fn show_wait(bar: &ProgressBar, pause: Duration, why: &str) {
    let told = printable(&format!("waiting {} s: {why}", pause.as_secs_f64().ceil()));
    match bar.is_hidden() {
        // Nobody is left to hear that standard error is closed.
        true => drop(writeln!(io::stderr(), "{told}")),
        false => bar.set_message(told),
    }
}

/// A bar over the bytes of the input, on standard error; hidden unless that is a terminal.
pub(super) fn bar(length: u64, done: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32} {percent:>3}%  {msg}  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(length).with_style(style).with_position(done);
    bar.reset_eta();
    bar
}
