//! What `dev` prints: the state of servers to stdout, everything else to stderr.

use std::collections::BTreeSet;

use clap::ValueEnum;
use serde_json::json;

use super::rows::Row;
use crate::exit::{Failure, note, print};
use crate::table;

/// How the state of servers is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table, again when something changed.
    Table,
    /// One JSON object a line for each server that changed.
    Json,
}

/// Prints what is new.
#[derive(Debug)]
pub(super) struct Printer {
    format: Format,
    printed: Option<Vec<Row>>,
    noted: BTreeSet<String>,
    /// The client configuration, as it was printed last.
    configured: String,
}

impl Printer {
    /// Nothing is printed yet.
    pub(super) fn new(format: Format) -> Self {
        Self { format, printed: None, noted: BTreeSet::new(), configured: String::new() }
    }

    /// Prints `rows` when they are not what was printed last.
    pub(super) fn rows(&mut self, rows: &[Row]) -> Result<(), Failure> {
        let first = self.printed.is_none();
        let last = self.printed.replace(rows.to_vec()).unwrap_or_default();
        if !first && last == rows {
            return Ok(());
        }
        match self.format {
            Format::Json => print(&json_lines(&last, rows)),
            Format::Table if rows.is_empty() => {
                note("No MCPServer yet: it is served as soon as one of the files has it.");
                Ok(())
            }
            Format::Table => {
                let separator = if first { "" } else { "\n" };
                print(&format!("{separator}{}", as_table(rows)))?;
                let changed = rows.iter().filter(|row| !row.message.is_empty() && !last.contains(row));
                changed
                    .for_each(|row| note(&format!("{}/{}: {}: {}", row.namespace, row.name, row.reason, row.message)));
                Ok(())
            }
        }
    }

    /// Prints what a client needs to know of `rows`, when it is not what was printed last. `anonymous`: without a
    /// credential.
    pub(super) fn client_configuration(&mut self, rows: &[Row], anonymous: bool) -> Result<(), Failure> {
        if self.format == Format::Json || rows.is_empty() {
            return Ok(());
        }
        let repeated = |row: &Row| rows.iter().filter(|other| other.name == row.name).count() > 1;
        let entry = |row: &Row| {
            let name = if repeated(row) { format!("{}-{}", row.namespace, row.name) } else { row.name.clone() };
            let mut client = json!({"type": "http", "url": row.url});
            if !anonymous {
                client["headers"] = json!({"Authorization": "Bearer <API key>"});
            }
            (name, client)
        };
        let servers: serde_json::Map<_, _> = rows.iter().map(entry).collect();
        let configuration = format!("\n{:#}\n", json!({ "mcpServers": servers }));
        if configuration == self.configured {
            return Ok(());
        }
        print(&configuration)?;
        self.configured = configuration;
        Ok(())
    }

    /// Prints those `lines` to stderr that were not among the last ones, in their order.
    pub(super) fn notes(&mut self, lines: &[String]) {
        lines.iter().filter(|line| !self.noted.contains(*line)).for_each(|line| note(line));
        self.noted = lines.iter().cloned().collect();
    }
}

fn as_table(rows: &[Row]) -> String {
    let cells = rows.iter().map(|row| {
        let ready = if row.ready { "True" } else { "False" };
        let tools = row.tools.map(|tools| tools.to_string()).unwrap_or_default();
        [format!("{}/{}", row.namespace, row.name), ready.into(), row.reason.clone(), tools, row.url.clone()]
    });
    table::render(["NAMESPACE/NAME", "READY", "REASON", "TOOLS", "URL"], cells)
}

fn json_lines(last: &[Row], rows: &[Row]) -> String {
    let is = |row: &Row, other: &Row| (&row.namespace, &row.name) == (&other.namespace, &other.name);
    let changed = rows.iter().filter(|row| !last.contains(row)).cloned();
    let gone = last.iter().filter(|old| !rows.iter().any(|row| is(row, old))).map(|old| Row {
        ready: false,
        reason: "Deleted".into(),
        message: String::new(),
        tools: None,
        ..old.clone()
    });
    changed.chain(gone).filter_map(|row| serde_json::to_string(&row).ok()).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, ready: bool) -> Row {
        Row {
            name: name.into(),
            namespace: "default".into(),
            ready,
            reason: if ready { "Ready" } else { "Pending" }.into(),
            message: String::new(),
            tools: ready.then_some(4),
            url: format!("http://127.0.0.1:8080/default/{name}/mcp"),
        }
    }

    #[test]
    fn a_json_line_tells_each_change_and_each_end() {
        let before = [row("a", false), row("b", true), row("c", true)];
        let after = [row("a", true), row("b", true)];
        let text = json_lines(&before, &after);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["name"], "a");
        assert_eq!(lines[0]["tools"], 4);
        assert_eq!((&lines[1]["name"], &lines[1]["reason"]), (&json!("c"), &json!("Deleted")));
    }
}
