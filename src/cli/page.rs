//! Pages that people read and print: one file of HTML, without scripts and without anything that lies elsewhere.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::files;
use super::output::{CliError, is_reordering};

/// What a browser may load of a page, should anything get into it that does not belong there: nothing but its own style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

const STYLE: &str = "
body { font: 11pt/1.45 system-ui, 'Noto Sans', 'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif;
  color: #111; background: #fff; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #bbb; padding: .3rem .5rem; text-align: start; vertical-align: top;
  white-space: pre-wrap; overflow-wrap: anywhere; }
th { border-bottom-width: 2px; font-weight: 600; }
p.note { color: #444; }
@media print {
  body { max-width: none; margin: 0; padding: 0; font-size: 9.5pt; }
  thead { display: table-header-group; } tr { break-inside: avoid; } h2 { break-after: avoid; }
}
@page { margin: 15mm; }
";

/// Whether a page is written, and where.
#[derive(Clone, Debug, ClapArgs)]
pub struct PageArgs {
    /// Write a page that people can read and print. Only you can read the file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Write over files that are there.
    #[arg(long)]
    pub force: bool,
}

impl PageArgs {
    /// Refuses a file that is there, before anything is asked for.
    pub fn check(&self) -> Result<(), CliError> {
        self.html.as_ref().map_or(Ok(()), |path| files::may_write(path, self.force))
    }

    /// Writes the page, if one is wanted, and says where.
    pub fn write(&self, page: impl FnOnce() -> String) -> Result<Option<String>, CliError> {
        let Some(path) = &self.html else { return Ok(None) };
        files::write(path, page().as_bytes(), self.force)?;
        Ok(Some(format!("the page is in {}", path.display())))
    }
}

/// A page with a title.
pub fn page(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="referrer" content="no-referrer";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (shown(title)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 dir="auto" { (shown(title)) }
                (body)
            }
        }
    };
    page.into_string()
}

/// A part of a page: what it is called, a sentence on it, and a table, or what is said where that would be empty.
pub fn section<R: AsRef<str>>(
    name: &str,
    note: &str,
    header: &[&str],
    rows: impl IntoIterator<Item = Vec<R>>,
    empty: &str,
) -> Markup {
    let rows: Vec<Vec<R>> = rows.into_iter().collect();
    html! {
        h2 { (name) }
        @if !note.is_empty() { p.note { (note) } }
        @if rows.is_empty() {
            p { (empty) }
        } @else {
            table {
                thead { tr { @for name in header { th scope="col" { (name) } } } }
                tbody {
                    @for row in &rows {
                        // Each cell is written in the direction of its own text, and turns no other.
                        tr { @for cell in row { td dir="auto" { (shown(cell.as_ref())) } } }
                    }
                }
            }
        }
    }
}

/// Text as a page may hold it: HTML has no control characters, and nothing is shown in another order than it is in.
fn shown(text: &str) -> String {
    let is_hidden = |c: char| is_reordering(c) || (c.is_control() && !matches!(c, '\n' | '\t'));
    text.chars().map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_a_page_is_text() {
        let tricks = ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "&lt;", "a\u{0}\u{1b}[2Jb"];
        let turned = page("a\u{202e}b", &section("Values", "", &["value"], [vec!["\u{2066}c\u{200f}"]], "none"));
        assert!(turned.contains("a\u{fffd}b") && turned.contains("\u{fffd}c\u{fffd}"));
        assert!(!turned.contains(is_reordering));
        let others = ["שלום", "مرحبا", "😀", "张三", "two\nlines"];
        let rows = tricks.iter().chain(&others).map(|text| vec![*text]);
        let page = page(tricks[0], &section("Values", "", &["value"], rows, "none"));
        assert!(
            !page.contains("<script") && !page.contains("<img") && !page.contains('\u{0}') && !page.contains('\u{1b}')
        );
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("&amp;lt;"));
        assert!(page.contains("a\u{fffd}\u{fffd}[2Jb"));
        for text in others {
            assert!(page.contains(&format!("<td dir=\"auto\">{text}</td>")), "{text}");
        }
    }

    #[test]
    fn a_page_asks_for_nothing_that_lies_elsewhere() {
        let page = page("Title", &section::<&str>("Empty", "a note", &["a"], [], "there is none"));
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains("charset=\"utf-8\""));
        assert!(page.contains(&format!("content=\"{POLICY}\"")) && page.contains("there is none"));
        for outside in ["http:", "https:", "src=", "href=", "url(", "@import", "<link", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("@media print"));
    }
}
