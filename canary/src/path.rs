//! The place of one value in a JSON document: an RFC 9535 singular query.
//!
//! Nothing else is taken: a check knows the value it expects, and what descends or filters costs more than a spec may spend of
//! its operator's time.

use jsonpath_rust::parser::{
    model::{Segment, Selector},
    parse_json_path,
};
use serde_json::Value;

/// A path that names one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    /// From the end where it is negative.
    Index(i64),
}

impl Path {
    /// Reads `$.rows[0].price` and its like.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let query = parse_json_path(text)
            .map_err(|error| format!("not a JSON path ({}): write one such as $.rows[0].price", brief(&error)))?;
        query.segments.into_iter().map(step).collect::<Option<_>>().map(Self).ok_or_else(|| {
            "a path that may lead to many values: name the one that is expected, as in $.rows[0].price".to_owned()
        })
    }

    /// The value there, if there is one.
    pub(crate) fn find<'a>(&self, mut value: &'a Value) -> Option<&'a Value> {
        for step in &self.0 {
            value = match step {
                Step::Name(name) => value.as_object()?.get(name)?,
                Step::Index(index) => at(value.as_array()?, *index)?,
            };
        }
        Some(value)
    }
}

fn step(segment: Segment) -> Option<Step> {
    match segment {
        Segment::Selector(Selector::Name(name)) => Some(Step::Name(unquoted(&name))),
        Segment::Selector(Selector::Index(index)) => Some(Step::Index(index)),
        Segment::Selector(Selector::Wildcard | Selector::Slice(..) | Selector::Filter(_))
        | Segment::Descendant(_)
        | Segment::Selectors(_) => None,
    }
}

/// The parser keeps the quotes of `$['name']`.
fn unquoted(name: &str) -> String {
    let inner = |quote: char| name.strip_prefix(quote)?.strip_suffix(quote);
    inner('\'').or_else(|| inner('"')).unwrap_or(name).to_owned()
}

fn at(items: &[Value], index: i64) -> Option<&Value> {
    let from_end = index < 0;
    let distance = usize::try_from(index.unsigned_abs()).ok()?;
    items.get(if from_end { items.len().checked_sub(distance)? } else { distance })
}

/// The parser draws the place on several lines.
fn brief(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    last.trim_start_matches("= ").to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_names_one_value_or_none() {
        let document = json!({"rows": [{"price": 1}, {"a b": [1, 2, 3]}], "x": null});
        for (path, found) in [
            ("$", Some(document.clone())),
            ("$.rows[0].price", Some(json!(1))),
            ("$['rows'][1]['a b'][-1]", Some(json!(3))),
            ("$[\"x\"]", Some(json!(null))),
            ("$.rows[2]", None),
            ("$.rows[-3]", None),
            ("$.rows.price", None),
            ("$.nothing", None),
        ] {
            let path = Path::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(path.find(&document), found.as_ref(), "{path:?}");
        }
    }

    #[test]
    fn one_that_may_lead_to_many_or_is_none_is_refused_with_what_to_write() {
        for path in ["$..price", "$.rows[*]", "$.rows[0,1]", "$.rows[0:2]", "$.rows[?@.price > 1]", "$.*"] {
            let error = Path::parse(path).expect_err(path);
            assert!(error.contains("many values: name the one that is expected"), "{path}: {error}");
        }
        for path in ["rows", "$.", "$[", "", "$.rows[0"] {
            let error = Path::parse(path).expect_err(path);
            assert!(error.contains("write one such as $.rows[0].price") && !error.contains('\n'), "{path}: {error}");
        }
    }
}
