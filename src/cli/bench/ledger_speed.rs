//! The ledger at work: leaves appended, an export verified, an export made for auditors.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::append::Append;
use super::bars::Bars;
use super::convert::Converted;
use super::goals::{self, Bound, Goal, Other};
use super::leaves::Log;
use super::prove::Prove;
use super::sheet::Sheet;
use super::work::blocking;
use crate::cli::output::CliError;

/// Leaves that are appended in a run, at most: more only take longer, and memory for those that wait.
const APPENDED: u64 = 200_000;

/// How fast the ledger is.
pub struct LedgerSpeed {
    append: Append,
    prove: Prove,
    converted: Converted,
}

impl LedgerSpeed {
    /// Bars' steps that it takes.
    pub fn steps(runs: u16) -> u64 {
        1 + u64::from(runs) * (Append::STEPS + Prove::STEPS + Converted::STEPS)
    }

    /// Measures in a folder, with so many leaves in the export.
    pub async fn measure(folder: &Path, leaves: u64, runs: u16, bars: &Bars) -> Result<Self, CliError> {
        let folder = folder.join("ledger");
        std::fs::create_dir(&folder).map_err(|error| CliError::file(&folder, error))?;
        let append = Append::measure(&folder, leaves.min(APPENDED), runs, bars).await?;
        let bar = bars.begin("make an export");
        let lines = folder.join("lines");
        let log = Arc::new(blocking(move || Log::make(&lines, leaves)).await?);
        bars.end(&bar);
        let prove = Prove::measure(&log, runs, bars).await?;
        let converted = Converted::measure(&log, runs, bars).await?;
        std::fs::remove_dir_all(&folder).map_err(|error| CliError::file(&folder, error))?;
        Ok(Self { append, prove, converted })
    }

    /// As a JSON document.
    pub fn document(&self) -> Value {
        json!({
            "append": self.append.document(),
            "verify": self.prove.document(),
            "export": self.converted.document(),
        })
    }

    /// As tables.
    pub fn sheets(&self) -> [Sheet; 3] {
        [self.append.sheet(), self.prove.sheet(), self.converted.sheet()]
    }
}

/// What the ledger shall reach; without figures if it was not measured.
pub fn goals(speed: Option<&LedgerSpeed>) -> [Goal; 3] {
    use Bound::{AtLeast, AtMost};
    let append = speed.map(|speed| (speed.append.speeds(), speed.append.by_processor()));
    let by_processor = append.and_then(|(_, (committer, raw))| goals::ratio(Some(committer), Some(raw)));
    [
        Goal {
            other: append.map(|_| Other { unit: "leaves/CPU s", ratio: by_processor }),
            ..Goal::against(
                "Leaves through the committer, against the same bytes in the same batches written raw",
                "leaves/s",
                AtLeast(0.5),
                append.map(|((committer, _), _)| committer),
                append.map(|((_, raw), _)| raw),
            )
        },
        Goal::number(
            "Verification of an export, offline, on one processor",
            "leaves/s",
            AtLeast(1_000_000.0),
            speed.map(|speed| speed.prove.speed()),
        ),
        Goal::number(
            "Memory at most while leaves are exported as Parquet, however many",
            "MiB",
            AtMost(256.0),
            speed.map(|speed| speed.converted.peak()),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::goals::Verdict;

    #[test]
    fn what_was_not_measured_has_its_goals_all_the_same() {
        let goals = goals(None);
        assert!(goals.iter().all(|goal| goal.verdict() == Verdict::NotMeasured && goal.other.is_none()));
    }
}
