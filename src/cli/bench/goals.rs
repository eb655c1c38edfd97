//! What the vault shall reach, and whether it does: each goal with its figure and its yardstick's in the same run.

use serde_json::{Value, json};

use super::latency::percent;
use super::measure::Middle;
use super::sheet::{SPREAD, Sheet, ends, figure, rounded, short, spread};

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
    Yardstick(Option<Middle>),
}

/// The same two held against each other by another measure, on which the goal is not.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Other {
    /// What it counts.
    pub unit: &'static str,
    /// The vault's figure in units of the yardstick's, if both were measured.
    pub ratio: Option<f64>,
}

/// One goal.
pub struct Goal {
    /// What shall be reached.
    pub what: &'static str,
    /// What the figures count: what the goal is on.
    pub unit: &'static str,
    /// The vault's figure.
    pub figure: Option<Middle>,
    /// What it is held against.
    pub against: Against,
    /// How the two are held against each other.
    pub bound: Bound,
    /// What is to be known beside it, if anything.
    pub other: Option<Other>,
    /// The share of the requests that the figure leaves out, since they were turned away.
    pub shed: Option<f64>,
}

impl Goal {
    /// A goal against a yardstick.
    pub fn against(
        what: &'static str,
        unit: &'static str,
        bound: Bound,
        figure: Option<Middle>,
        yardstick: Option<Middle>,
    ) -> Self {
        Self { what, unit, figure, against: Against::Yardstick(yardstick), bound, other: None, shed: None }
    }

    /// A goal that names a number.
    pub fn number(what: &'static str, unit: &'static str, bound: Bound, figure: Option<Middle>) -> Self {
        Self { what, unit, figure, against: Against::Number, bound, other: None, shed: None }
    }

    /// The figure in units of the yardstick's; the figure itself if the goal names a number. Both are medians.
    pub fn ratio(&self) -> Option<f64> {
        match self.against {
            Against::Number => Some(self.figure?.told()?.median),
            Against::Yardstick(yardstick) => ratio(self.figure, yardstick),
        }
    }

    /// The yardstick's figure.
    fn yardstick(&self) -> Option<Middle> {
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
        let written = |bound: f64| if bound < 1_000.0 { bound.to_string() } else { figure(bound, 0) };
        match self.bound {
            Bound::AtMost(most) => format!("at most {}{times}", written(most)),
            Bound::AtLeast(least) => format!("at least {}{times}", written(least)),
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
            "figure": self.figure.map(|figure| rounded(figure.median)),
            "figure_ends": self.figure.map(ends),
            "yardstick": self.yardstick().map(|yardstick| rounded(yardstick.median)),
            "yardstick_ends": self.yardstick().map(ends),
            "ratio": self.ratio().map(rounded),
            "other_unit": self.other.map(|other| other.unit),
            "other_ratio": self.other.and_then(|other| other.ratio).map(rounded),
            "shed_share": self.shed.map(rounded),
            "verdict": self.verdict().word(),
        })
    }

    fn row(&self) -> Vec<String> {
        let shown = |figure: Option<Middle>| figure.map_or_else(String::new, |figure| spread(figure, short));
        let ratio = self.ratio().filter(|_| self.against != Against::Number);
        let other = self.other.and_then(|other| Some(format!("{} in {}", short(other.ratio?), other.unit)));
        let shed = self.shed.filter(|shed| *shed > 0.0);
        let shed = shed.map(|shed| format!("; {} of the requests were turned away and are not in it", percent(shed)));
        vec![
            format!("{}{}", self.what, shed.unwrap_or_default()),
            self.unit.to_owned(),
            self.bound_text(),
            shown(self.figure),
            shown(self.yardstick()),
            ratio.map(short).unwrap_or_default(),
            other.unwrap_or_default(),
            self.verdict().word().to_owned(),
        ]
    }
}

/// One median in units of another.
pub fn ratio(figure: Option<Middle>, yardstick: Option<Middle>) -> Option<f64> {
    let yardstick = yardstick?.told().filter(|yardstick| yardstick.median != 0.0)?;
    Some(figure?.told()?.median / yardstick.median)
}

/// As a JSON document.
pub fn document(goals: &[Goal]) -> Value {
    goals.iter().map(Goal::document).collect()
}

/// As a table.
pub fn sheet(goals: &[Goal]) -> Sheet {
    Sheet {
        title: "Goals",
        header: vec!["goal", "it is on", "wanted", "vault", "yardstick", "ratio", "other ratio", "verdict"],
        rows: goals.iter().map(Goal::row).collect(),
        below: format!(
            "{SPREAD} Ratio is the vault's median in units of the yardstick's, and the verdict is on it. For other products \
             it is shown by both measures: for a second of the server's processor time, and for a second of the clock; the \
             goal is on the one that its second column names, and the other ratio says what the other measure gives."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(bound: Bound, figure: Option<f64>, yardstick: Option<f64>) -> Goal {
        Goal::against("g", "u", bound, figure.map(Middle::from), yardstick.map(Middle::from))
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
        assert_eq!(Goal::number("g", "s", AtMost(3.0), Some(2.9.into())).verdict(), Verdict::Met);
        assert_eq!(Goal::number("g", "s", AtMost(3.0), None).verdict(), Verdict::NotMeasured);
    }

    #[test]
    fn what_was_not_measured_says_so_and_shows_no_ratio() {
        let missing = goal(Bound::AtLeast(5.0), Some(7.0), None);
        assert_eq!(missing.row()[3..], ["7.00", "", "", "", "not measured"]);
        assert_eq!(missing.document()["ratio"], Value::Null);
        let number = Goal::number("g", "bytes", Bound::AtMost(220.0), Some(200.4.into()));
        assert_eq!(number.row()[2..], ["at most 220", "200", "", "", "", "met"]);
        let large = Goal::number("g", "leaves/s", Bound::AtLeast(1_000_000.0), Some(999_999.0.into()));
        assert_eq!(large.row()[2..], ["at least 1,000,000", "999,999", "", "", "", "not met"]);
    }

    #[test]
    fn a_goal_shows_its_spread_the_other_measure_and_what_it_leaves_out() {
        let figure = Some(Middle::of([2.0, 3.0, 7.0]));
        let mut goal = Goal::against("g", "values/s", Bound::AtLeast(1.0), figure, Some(1.5.into()));
        goal.other = Some(Other { unit: "values/CPU s", ratio: ratio(Some(4.0.into()), Some(1.0.into())) });
        goal.shed = Some(0.02);
        assert_eq!(goal.row()[3..], ["3.00 (2.00 to 7.00)", "1.50", "2.00", "4.00 in values/CPU s", "met"]);
        assert!(goal.row()[0].contains("2.00 % of the requests were turned away"));
        assert_eq!((&goal.document()["other_ratio"], &goal.document()["ratio"]), (&json!(4.0), &json!(2.0)));
        goal.shed = Some(0.0);
        assert_eq!(goal.row()[0], "g");
    }
}
