//! YAML documents together with the line of every field.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

/// One document of a file.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// What it says.
    pub(super) value: Value,
    /// Where it says it.
    pub(super) lines: Lines,
}

/// Lines by field path, such as `spec.container.env[0].name`; the document itself is the empty path.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(HashMap<String, u64>);

impl Lines {
    /// Whether the field at `path` is written.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The line of the field at `path`, or of the nearest field around it.
    pub(super) fn of(&self, path: &str) -> u64 {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None if path.is_empty() => return 1,
                None => path = "",
            }
        }
    }
}

/// A text that is no YAML.
#[derive(Debug)]
pub(super) struct SyntaxError {
    /// Where, from 1.
    pub(super) line: u64,
    /// What is wrong.
    pub(super) message: String,
}

/// Reads every document of `text`; empty ones are left out.
pub(super) fn parse(text: &str) -> Result<Vec<Document>, SyntaxError> {
    let nodes: Vec<Spanned<Node>> = serde_saphyr::from_multiple(text).map_err(|error| SyntaxError {
        line: error.location().map_or(1, |location| location.line()),
        message: plain(error.without_snippet()),
    })?;
    Ok(nodes.into_iter().map(document).filter(|document| !document.value.is_null()).collect())
}

/// The parser's message on one line, without the position that stands before it anyway.
fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.to_string().replace('\n', " ");
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn document(node: Spanned<Node>) -> Document {
    let mut lines = Lines::default();
    lines.0.insert(String::new(), node.referenced.line());
    let value = flatten(node.value, "", &mut lines);
    Document { value, lines }
}

fn flatten(node: Node, path: &str, lines: &mut Lines) -> Value {
    match node {
        Node::Scalar(value) => value,
        Node::Sequence(items) => {
            let item = |(index, item): (usize, Spanned<Node>)| {
                let path = format!("{path}[{index}]");
                lines.0.insert(path.clone(), item.referenced.line());
                flatten(item.value, &path, lines)
            };
            items.into_iter().enumerate().map(item).collect()
        }
        Node::Mapping(entries) => {
            let mut object = Map::new();
            for (key, node) in entries {
                let path = child(path, &key.value);
                lines.0.insert(path.clone(), key.referenced.line());
                let value = flatten(node.value, &path, lines);
                object.insert(key.value, value);
            }
            object.into()
        }
    }
}

/// The path of the field `name` of the object at `path`.
pub(super) fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

enum Node {
    Scalar(Value),
    Sequence(Vec<Spanned<Node>>),
    Mapping(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value that JSON can hold")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        serde_json::Number::from_f64(value)
            .map(|number| Node::Scalar(number.into()))
            .ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Mapping(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TEXT: &str = "\
# a comment
kind: A
spec:
  env:
  - name: X
    value: \"1\"
  - {name: Z, value: '2'}
---
---
kind: B
n: 3
";

    #[test]
    fn every_field_of_every_document_knows_its_line() {
        let documents = parse(TEXT).expect("YAML");
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].value["spec"]["env"][1], json!({"name": "Z", "value": "2"}));
        for (path, line) in
            [("", 2), ("kind", 2), ("spec", 3), ("spec.env", 4), ("spec.env[0].value", 6), ("spec.env[1].name", 7)]
        {
            assert_eq!(documents[0].lines.of(path), line, "{path}");
        }
        assert_eq!(documents[1].value, json!({"kind": "B", "n": 3}));
        assert_eq!(documents[1].lines.of("n"), 11);
    }

    #[test]
    fn a_field_that_is_not_there_has_the_line_of_what_is_around_it() {
        let documents = parse(TEXT).expect("YAML");
        assert_eq!(documents[0].lines.of("spec.env[0].absent.deeper"), 5);
        assert_eq!(documents[0].lines.of("status"), 2);
    }

    #[test]
    fn a_text_that_is_no_yaml_says_where_it_breaks() {
        let error = parse("kind: A\nspec: [1,\n").expect_err("no YAML");
        assert!(error.line >= 2, "{error:?}");
        let error = parse("a: 1\nb: 2\na: 3\n").expect_err("twice the same key");
        assert_eq!(error.line, 3, "{error:?}");
    }
}
