//! What was measured, as Markdown: printed, and written between markers of a document.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::machine::Machine;

/// What one suite measured.
#[derive(Debug, Serialize)]
pub(crate) struct Section {
    /// Name of the suite, of its markers and of its file.
    pub(crate) id: &'static str,
    /// Where and when.
    pub(crate) machine: Machine,
    /// Figures that have a bound.
    pub(crate) figures: Vec<Figure>,
    /// Everything else, in tables.
    pub(crate) tables: Vec<Table>,
    /// What a reader must know to read the numbers.
    pub(crate) notes: Vec<String>,
}

/// A number and the most it should be.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) what: String,
    /// What came out; `None` when it could not be measured, and a note says why.
    pub(crate) value: Option<f64>,
    /// The most it should be.
    pub(crate) target: f64,
    /// Unit of both.
    pub(crate) unit: &'static str,
}

/// A table.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    /// What it shows.
    pub(crate) caption: String,
    /// Heads of the columns.
    pub(crate) columns: Vec<&'static str>,
    /// The cells, row by row.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Figure {
    /// The most it should be, for people.
    fn bound(&self) -> String {
        let places = if self.target.fract() == 0.0 { 0 } else { 2 };
        format!("{} {}", decimal(self.target, places), self.unit)
    }

    fn verdict(&self) -> &'static str {
        match self.value {
            None => "NOT MEASURED",
            Some(value) if value <= self.target => "met",
            Some(_) => "MISSED",
        }
    }
}

impl Section {
    /// The section as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{}\n", self.machine.sentence());
        if !self.figures.is_empty() {
            let rows = self.figures.iter().map(|figure| {
                let places = if figure.target < 10.0 { 2 } else { 1 };
                let value = figure.value.map_or_else(|| "–".to_owned(), |value| decimal(value, places));
                let unit = figure.unit;
                let target = format!("≤ {}", figure.bound());
                vec![figure.what.clone(), format!("{value} {unit}"), target, figure.verdict().to_owned()]
            });
            let table = Table {
                caption: String::new(),
                columns: vec!["figure", "measured", "target", ""],
                rows: rows.collect(),
            };
            table.write(&mut text);
        }
        for table in &self.tables {
            table.write(&mut text);
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str("- ");
            text.push_str(note);
            text.push('\n');
        }
        text
    }

    /// Prints the section, keeps it as JSON in `folder`, and puts it into `document` where there is one.
    ///
    /// # Errors
    /// A file cannot be written, or the document has no place for it.
    pub(crate) fn publish(&self, folder: &Path, document: Option<&Path>) -> anyhow::Result<()> {
        let markdown = self.markdown();
        println!("\n## {}\n\n{markdown}", self.id);
        for figure in self.figures.iter().filter(|figure| figure.verdict() != "met") {
            println!("{}: {} (target: at most {})", figure.verdict(), figure.what, figure.bound());
        }
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join(format!("{}.json", self.id));
        std::fs::write(&file, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let Some(document) = document else { return Ok(()) };
        let before =
            std::fs::read_to_string(document).with_context(|| format!("cannot read {}", document.display()))?;
        let after = put(&before, self.id, &markdown).with_context(|| format!("in {}", document.display()))?;
        std::fs::write(document, after).with_context(|| format!("cannot write {}", document.display()))
    }
}

/// `document` with `text` between the markers of `id`.
fn put(document: &str, id: &str, text: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- figures: {id} -->"), "<!-- end -->");
    let missing = || format!("a line {begin} and after it a line {end} must say where the figures go");
    let (before, rest) = document.split_once(&begin).with_context(missing)?;
    let (old, after) = rest.split_once(end).with_context(missing)?;
    ensure!(!old.contains("<!-- figures:"), missing());
    Ok(format!("{before}{begin}\n{text}{end}{after}"))
}

impl Table {
    fn write(&self, text: &mut String) {
        // Writing to a string cannot fail.
        let _ = if self.caption.is_empty() { writeln!(text) } else { writeln!(text, "\n{}:\n", self.caption) };
        row(text, self.columns.iter().copied());
        row(text, self.columns.iter().map(|_| "---"));
        for cells in &self.rows {
            row(text, cells.iter().map(String::as_str));
        }
    }
}

fn row<'a>(text: &mut String, cells: impl Iterator<Item = &'a str>) {
    text.push('|');
    for cell in cells {
        text.push(' ');
        text.push_str(cell);
        text.push_str(" |");
    }
    text.push('\n');
}

/// A number with so many places, and its thousands apart.
pub(crate) fn decimal(value: f64, places: usize) -> String {
    let text = format!("{value:.places$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(whole, part)| (whole, Some(part)));
    let digits = whole.trim_start_matches('-').len();
    let mut grouped = String::new();
    for (index, digit) in whole.trim_start_matches('-').chars().enumerate() {
        if index > 0 && (digits - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if whole.starts_with('-') { "-" } else { "" };
    fraction.map_or_else(|| format!("{sign}{grouped}"), |part| format!("{sign}{grouped}.{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_replace_what_was_between_their_markers_and_nothing_else() {
        let document = "a\n<!-- figures: one -->\nold\n<!-- end -->\nb\n<!-- figures: two -->\nkept\n<!-- end -->\n";
        let once = put(document, "one", "new\n").expect("a place");
        assert_eq!(once, document.replace("old", "new"));
        assert_eq!(put(&once, "one", "new\n").expect("a place"), once);
        assert!(put(document, "three", "new\n").is_err());
        assert!(put("<!-- figures: one -->\n<!-- figures: two -->\n<!-- end -->\n", "one", "x").is_err());
    }

    #[test]
    fn a_figure_over_its_target_is_called_missed() {
        let figure = |value| Figure { what: "w".into(), value, target: 30.0, unit: "MiB" };
        assert_eq!(figure(Some(30.0)).verdict(), "met");
        assert_eq!(figure(Some(30.1)).verdict(), "MISSED");
        assert_eq!(figure(None).verdict(), "NOT MEASURED");
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(decimal(1_234_567.26, 1), "1,234,567.3");
        assert_eq!(decimal(-100.0, 0), "-100");
        assert_eq!(decimal(-1234.0, 0), "-1,234");
        assert_eq!(decimal(0.5, 2), "0.50");
    }
}
