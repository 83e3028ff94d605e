//! What is wrong with a file, and where: `file:line: field.path: message`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::yaml::Lines;

/// Where an object was written.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The file, as it was named on the command line.
    pub(super) file: Arc<Path>,
    /// Lines of the object's fields.
    pub(super) lines: Lines,
}

impl Origin {
    /// `message` about the field at `path`.
    pub(super) fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        Problem { file: self.file.clone(), line: self.lines.of(path), path: path.to_owned(), message: message.into() }
    }
}

/// Something about a file that its author should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    /// The file, as it was named on the command line.
    pub(super) file: Arc<Path>,
    /// The line, from 1; 0 for the file as a whole.
    pub(super) line: u64,
    /// The field; empty for an object as a whole.
    pub(super) path: String,
    /// What is wrong, or what to write instead.
    pub(super) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(f, " {}", self.message)
    }
}
