//! One table of the report, for a terminal and for BENCHMARKS.md.

use super::measure::Middle;
use crate::cli::output::table;

/// A table with a title above and a word below.
pub struct Sheet {
    /// What it shows.
    pub title: &'static str,
    /// The columns; the first holds names, the others figures.
    pub header: Vec<&'static str>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
    /// What to know of it; may be empty.
    pub below: String,
}

impl Sheet {
    /// For a terminal.
    pub fn text(&self) -> String {
        let below = if self.below.is_empty() { String::new() } else { format!("\n\n{}", self.below) };
        format!("{}\n\n{}{below}", self.title, table(&self.header, self.rows.iter().cloned()))
    }

    /// For a file of Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
        let mut text = format!("## {}\n\n", self.title);
        text.push_str(&line(&self.header));
        let rule: Vec<&str> = (0..self.header.len()).map(|column| if column == 0 { "---" } else { "---:" }).collect();
        text.push_str(&line(&rule));
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
            text.push_str(&line(&cells.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        if !self.below.is_empty() {
            text.push_str(&format!("\n{}\n", wrapped(&self.below, 120)));
        }
        text
    }
}

/// A figure in so many digits behind the point, with commas between thousands; empty if it is no number.
pub fn figure(number: f64, digits: usize) -> String {
    if !number.is_finite() {
        return String::new();
    }
    let plain = format!("{number:.digits$}");
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::with_capacity(whole.len() + whole.len() / 3);
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

/// A figure in about three digits.
pub fn short(number: f64) -> String {
    let digits = match number.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    figure(number, digits)
}

/// The middle of several runs, written as its figures are, and in parentheses the least and the most of them.
pub fn spread(middle: Middle, written: impl Fn(f64) -> String) -> String {
    let Some(told) = middle.told() else { return String::new() };
    match told.runs {
        1 => written(told.median),
        _ => format!("{} ({} to {})", written(told.median), written(told.least), written(told.most)),
    }
}

/// The same in a JSON document: the least and the most.
pub fn ends(middle: Middle) -> serde_json::Value {
    serde_json::json!([rounded(middle.least), rounded(middle.most)])
}

/// What a table with [`spread`]s says of them.
pub const SPREAD: &str = "Medians over the runs, and in parentheses the least and the most of them.";

/// A number in a JSON document, to three digits behind the point; null if it is none.
pub fn rounded(number: f64) -> serde_json::Value {
    serde_json::json!((number * 1_000.0).round() / 1_000.0)
}

/// Paragraphs in lines of at most so many characters.
pub fn wrapped(text: &str, width: usize) -> String {
    let wrap = |line: &str| {
        let (mut lines, mut current) = (Vec::new(), String::new());
        for word in line.split_whitespace() {
            if !current.is_empty() && current.len() + 1 + word.len() > width {
                lines.push(std::mem::take(&mut current));
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        lines.push(current);
        lines.join("\n")
    };
    text.lines().map(wrap).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(figure(1_234_567.891, 1), "1,234,567.9");
        assert_eq!(
            (figure(-1_000.0, 0), figure(999.0, 0), figure(f64::NAN, 2)),
            ("-1,000".into(), "999".into(), "".into())
        );
        assert_eq!((short(0.128), short(12.34), short(1_234.5)), ("0.13".into(), "12.3".into(), "1,234".into()));
        assert_eq!(rounded(f64::NAN), serde_json::Value::Null);
        assert_eq!(wrapped("one two three\n\nfour", 7), "one two\nthree\n\nfour");
    }

    #[test]
    fn a_median_of_several_runs_stands_beside_their_spread() {
        assert_eq!(spread(Middle::of([1_200.0, 900.0, 1_100.0]), short), "1,100 (900 to 1,200)");
        assert_eq!((spread(3.5.into(), short), spread(f64::NAN.into(), short)), ("3.50".into(), "".into()));
        assert_eq!(ends(Middle::of([2.0, 1.0])), serde_json::json!([1.0, 2.0]));
    }

    #[test]
    fn a_table_of_markdown_has_as_many_cells_in_every_line() {
        let rows = vec![vec!["a|b".to_owned(), "1".to_owned()]];
        let sheet = Sheet { title: "T", header: vec!["x", "y"], rows, below: "Below.".to_owned() };
        assert_eq!(sheet.markdown(), "## T\n\n| x | y |\n| --- | ---: |\n| a\\|b | 1 |\n\nBelow.\n");
    }
}
