//! What the vault shall reach, and whether it does: each goal with its figure and its yardstick's in the same run.

use serde_json::{Value, json};

use super::sheet::{Sheet, rounded, short};

/// How a figure is held against its yardstick.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bound {
    /// At most so many times the yardstick, or so many of the unit.
    AtMost(f64),
    /// At least so many times the yardstick, or so many of the unit.
    AtLeast(f64),
}

/// Whether a goal is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    NotMet,
    /// The figure or the yardstick's is missing.
    NotMeasured,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "not met",
            Self::NotMeasured => "not measured",
        }
    }
}

/// What a figure is held against.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Against {
    /// A number of the goal's own unit, which the bound names.
    Number,
    /// The figure of a yardstick, if there is one.
    Yardstick(Option<f64>),
}

/// One goal.
pub struct Goal {
    /// What shall be reached.
    pub what: &'static str,
    /// What the figures count.
    pub unit: &'static str,
    /// The vault's figure.
    pub figure: Option<f64>,
    /// What it is held against.
    pub against: Against,
    /// How the two are held against each other.
    pub bound: Bound,
}

impl Goal {
    /// A goal against a yardstick.
    pub fn against(
        what: &'static str,
        unit: &'static str,
        bound: Bound,
        figure: Option<f64>,
        yardstick: Option<f64>,
    ) -> Self {
        Self { what, unit, figure, against: Against::Yardstick(yardstick), bound }
    }

    /// A goal that names a number.
    pub fn number(what: &'static str, unit: &'static str, bound: Bound, figure: Option<f64>) -> Self {
        Self { what, unit, figure, against: Against::Number, bound }
    }

    /// The figure in units of the yardstick's; the figure itself if the goal names a number.
    pub fn ratio(&self) -> Option<f64> {
        let figure = self.figure.filter(|figure| figure.is_finite())?;
        match self.against {
            Against::Number => Some(figure),
            Against::Yardstick(yardstick) => {
                let yardstick = yardstick.filter(|yardstick| yardstick.is_finite() && *yardstick != 0.0)?;
                Some(figure / yardstick)
            }
        }
    }

    /// The yardstick's figure.
    fn yardstick(&self) -> Option<f64> {
        match self.against {
            Against::Number => None,
            Against::Yardstick(yardstick) => yardstick,
        }
    }

    /// Whether it is reached.
    pub fn verdict(&self) -> Verdict {
        let met = match (self.ratio(), self.bound) {
            (None, _) => return Verdict::NotMeasured,
            (Some(ratio), Bound::AtMost(most)) => ratio <= most,
            (Some(ratio), Bound::AtLeast(least)) => ratio >= least,
        };
        if met { Verdict::Met } else { Verdict::NotMet }
    }

    fn bound_text(&self) -> String {
        let times = if self.against == Against::Number { "" } else { " x" };
        match self.bound {
            Bound::AtMost(most) => format!("at most {most}{times}"),
            Bound::AtLeast(least) => format!("at least {least}{times}"),
        }
    }

    fn document(&self) -> Value {
        let (kind, bound) = match self.bound {
            Bound::AtMost(most) => ("at_most", most),
            Bound::AtLeast(least) => ("at_least", least),
        };
        json!({
            "goal": self.what,
            "unit": self.unit,
            kind: bound,
            "figure": self.figure.map(rounded),
            "yardstick": self.yardstick().map(rounded),
            "ratio": self.ratio().map(rounded),
            "verdict": self.verdict().word(),
        })
    }

    fn row(&self) -> Vec<String> {
        let shown = |figure: Option<f64>| figure.map(short).unwrap_or_default();
        vec![
            self.what.to_owned(),
            self.unit.to_owned(),
            self.bound_text(),
            shown(self.figure),
            shown(self.yardstick()),
            shown(self.ratio().filter(|_| self.against != Against::Number)),
            self.verdict().word().to_owned(),
        ]
    }
}

/// As a JSON document.
pub fn document(goals: &[Goal]) -> Value {
    goals.iter().map(Goal::document).collect()
}

/// As a table.
pub fn sheet(goals: &[Goal]) -> Sheet {
    Sheet {
        title: "Goals",
        header: vec!["goal", "unit", "wanted", "vault", "yardstick", "ratio", "verdict"],
        rows: goals.iter().map(Goal::row).collect(),
        below: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(bound: Bound, figure: Option<f64>, yardstick: Option<f64>) -> Goal {
        Goal::against("g", "u", bound, figure, yardstick)
    }

    #[test]
    fn a_goal_is_met_at_its_bound_and_not_beyond() {
        use Bound::{AtLeast, AtMost};
        for (bound, figure, yardstick, verdict) in [
            (AtMost(2.0), Some(24.0), Some(12.0), Verdict::Met),
            (AtMost(2.0), Some(24.1), Some(12.0), Verdict::NotMet),
            (AtLeast(0.5), Some(1.0), Some(2.0), Verdict::Met),
            (AtLeast(0.5), Some(0.9), Some(2.0), Verdict::NotMet),
            (AtLeast(10.0), None, Some(2.0), Verdict::NotMeasured),
            (AtLeast(10.0), Some(2.0), None, Verdict::NotMeasured),
            (AtMost(10.0), Some(2.0), Some(0.0), Verdict::NotMeasured),
            (AtMost(10.0), Some(f64::NAN), Some(1.0), Verdict::NotMeasured),
        ] {
            assert_eq!(goal(bound, figure, yardstick).verdict(), verdict, "{bound:?} {figure:?} {yardstick:?}");
        }
        assert_eq!(Goal::number("g", "s", AtMost(3.0), Some(2.9)).verdict(), Verdict::Met);
        assert_eq!(Goal::number("g", "s", AtMost(3.0), None).verdict(), Verdict::NotMeasured);
    }

    #[test]
    fn what_was_not_measured_says_so_and_shows_no_ratio() {
        let missing = goal(Bound::AtLeast(5.0), Some(7.0), None);
        assert_eq!(missing.row()[3..], ["7.00", "", "", "not measured"]);
        assert_eq!(missing.document()["ratio"], Value::Null);
        let number = Goal::number("g", "bytes", Bound::AtMost(220.0), Some(200.4));
        assert_eq!(number.row()[2..], ["at most 220", "200", "", "", "met"]);
    }
}
