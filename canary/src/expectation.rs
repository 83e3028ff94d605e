//! What an answer must be, ready to be compared.

use portolan_crds::server::{CanaryExpectation, CanaryValue};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::{
    answer::{Answer, quoted, short},
    check::BadCheck,
    expression::Expression,
    nonce::Nonce,
    path::Path,
};

/// Largest program of a regular expression, in bytes: what it costs is that times the text.
const MAX_PROGRAM: usize = 64 * 1024;

/// What was expected of an answer, and what came instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// As the spec has it, so that it says the same each time.
    pub(crate) expected: String,
    /// What came.
    pub(crate) got: String,
}

/// One thing that must be so.
#[derive(Debug)]
struct Demand {
    /// In words, as the spec has it.
    expected: String,
    is_met: Test,
}

#[derive(Debug)]
enum Test {
    Contains(String),
    Equals(String),
    Matches(Regex),
    At(Path, Value),
    Holds(Expression),
}

/// Everything that must be so.
#[derive(Debug)]
pub(crate) struct Expectation(Vec<Demand>);

impl Expectation {
    /// Reads what `spec` says for one `nonce`; `field` is where it stands.
    pub(crate) fn compile(spec: &CanaryExpectation, nonce: &Nonce, field: &str) -> Result<Self, BadCheck> {
        let bad = |member: &str| {
            let field = format!("{field}.{member}");
            move |message| BadCheck { field, message }
        };
        let mut demands = Vec::new();
        for text in &spec.contains {
            let expected = format!("a text with {}", quoted(text));
            demands.push(Demand { expected, is_met: Test::Contains(nonce.fill(text)) });
        }
        if let Some(text) = &spec.equals {
            demands.push(Demand {
                expected: format!("the text {}", quoted(text)),
                is_met: Test::Equals(nonce.fill(text)),
            });
        }
        if let Some(pattern) = &spec.regex {
            let regex =
                RegexBuilder::new(&nonce.fill(pattern)).size_limit(MAX_PROGRAM).dfa_size_limit(MAX_PROGRAM).build();
            let regex = regex.map_err(|error| of_regex(&error)).map_err(bad("regex"))?;
            demands.push(Demand { expected: format!("a text that matches {pattern}"), is_met: Test::Matches(regex) });
        }
        for (index, CanaryValue { path, equals }) in spec.json_path.iter().enumerate() {
            let place = Path::parse(&nonce.fill(path)).map_err(bad(&format!("jsonPath[{index}].path")))?;
            let expected = format!("{} at {path}", short(&equals.to_string()));
            demands.push(Demand { expected, is_met: Test::At(place, nonce.fill_value(equals)) });
        }
        if let Some(source) = &spec.cel {
            let expression = Expression::compile(&nonce.fill(source)).map_err(bad("cel"))?;
            demands.push(Demand { expected: format!("{source} to be true"), is_met: Test::Holds(expression) });
        }
        Ok(Self(demands))
    }

    /// Whether `answer` is what it must be; the first thing that it is not.
    pub(crate) fn judge(&self, answer: &Answer, nonce: &Nonce) -> Result<(), Mismatch> {
        let unmet = self.0.iter().find_map(|demand| Some((demand, demand.is_met.fails(answer, nonce)?)));
        match unmet {
            Some((demand, got)) => Err(Mismatch { expected: demand.expected.clone(), got }),
            None => Ok(()),
        }
    }
}

impl Test {
    /// What came instead; `None` where nothing is wrong.
    fn fails(&self, answer: &Answer, nonce: &Nonce) -> Option<String> {
        let is_met = match self {
            Self::Contains(text) => answer.text.contains(text),
            Self::Equals(text) => answer.text == *text,
            Self::Matches(regex) => regex.is_match(&answer.text),
            Self::At(path, value) => return at(path, value, answer),
            Self::Holds(expression) => match expression.holds(answer, nonce) {
                Ok(holds) => holds,
                Err(why) => return Some(format!("{}; {why}", answer.shown())),
            },
        };
        (!is_met).then(|| answer.shown())
    }
}

fn at(path: &Path, value: &Value, answer: &Answer) -> Option<String> {
    let read;
    let document = match &answer.structured {
        Some(structured) => structured,
        None => match serde_json::from_str(&answer.text) {
            Ok(value) => {
                read = value;
                &read
            }
            Err(_) => return Some(format!("no structured content, and a text that is no JSON: {}", answer.shown())),
        },
    };
    match path.find(document) {
        Some(found) if is_same(found, value) => None,
        Some(found) => Some(short(&found.to_string())),
        None => Some(format!("nothing there: {}", short(&document.to_string()))),
    }
}

/// Whether two values are the same; 42 and 42.0 are.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_same(a, b)))
        }
        _ => one == other,
    }
}

/// The last line says what is wrong; those before draw where.
fn of_regex(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
    format!("not a regular expression in RE2 syntax: {last}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(value: Value) -> CanaryExpectation {
        serde_json::from_value(value).expect("an expectation")
    }

    fn judge(expect: Value, text: &str, structured: Option<Value>) -> Result<(), Mismatch> {
        let nonce = Nonce::sample();
        let expectation = Expectation::compile(&spec(expect), &nonce, "expect").expect("it compiles");
        expectation.judge(&Answer { text: text.into(), structured, result: json!({}) }, &nonce)
    }

    #[test]
    fn an_answer_that_is_as_expected_passes() {
        let structured = Some(json!({"rows": [{"price": 42.0}]}));
        for (expect, text) in [
            (json!({"contains": ["milking", "0123456789abcdef"]}), "milking 0123456789abcdef"),
            (json!({"contains": ["{{nonce}}"]}), "0123456789abcdef"),
            (json!({"equals": "a\nb"}), "a\nb"),
            (json!({"regex": "^cow [0-9]+$"}), "cow 7"),
            (json!({"regex": "{{nonce}}$"}), "it is 0123456789abcdef"),
            (json!({"jsonPath": [{"path": "$.rows[0].price", "equals": 42}]}), "not read"),
            (json!({"cel": "text.endsWith('{{nonce}}') && text.endsWith(nonce)"}), "x0123456789abcdef"),
        ] {
            assert_eq!(judge(expect.clone(), text, structured.clone()), Ok(()), "{expect}");
        }
        let large = Some(json!({"n": 9_007_199_254_740_993_u64}));
        let other = json!({"jsonPath": [{"path": "$.n", "equals": 9_007_199_254_740_992_u64}]});
        assert!(judge(other, "", large).is_err(), "a whole number is compared to its last digit");
        let in_text = json!({"jsonPath": [{"path": "$[1]", "equals": {"a": "0123456789abcdef"}}]});
        assert_eq!(judge(in_text, r#"[0, {"a": "0123456789abcdef"}]"#, None), Ok(()));
    }

    #[test]
    fn one_that_is_not_says_what_was_expected_as_it_was_written_and_what_came() {
        for (expect, text, expected, got) in [
            (json!({"contains": ["a", "{{nonce}}"]}), "a cow", r#"a text with "{{nonce}}""#, r#""a cow""#),
            (json!({"equals": "42"}), "42 ", r#"the text "42""#, r#""42 ""#),
            (json!({"regex": "^4"}), "x4", "a text that matches ^4", r#""x4""#),
            (json!({"jsonPath": [{"path": "$.a", "equals": 1}]}), r#"{"a": "1"}"#, "1 at $.a", r#""1""#),
            (
                json!({"jsonPath": [{"path": "$.a", "equals": 1}]}),
                r#"{"b": 1}"#,
                "1 at $.a",
                r#"nothing there: {"b":1}"#,
            ),
            (
                json!({"jsonPath": [{"path": "$.a", "equals": 1}]}),
                "cow",
                "1 at $.a",
                r#"no structured content, and a text that is no JSON: "cow""#,
            ),
            (json!({"cel": "text == 'x'"}), "y", "text == 'x' to be true", r#""y""#),
            (json!({"cel": "text"}), "y", "text to be true", r#""y"; cel gives string, neither true nor false"#),
            (json!({"contains": ["x"]}), "", r#"a text with "x""#, "no text: {}"),
        ] {
            let mismatch = judge(expect.clone(), text, None).expect_err(&expect.to_string());
            assert_eq!((mismatch.expected.as_str(), mismatch.got.as_str()), (expected, got), "{expect}");
        }
        let long = judge(json!({"equals": "x"}), &"ü".repeat(100_000), None).expect_err("another text");
        assert!(long.got.chars().count() < 200, "{}", long.got.len());
    }

    #[test]
    fn what_cannot_be_compiled_names_its_field() {
        for (expect, field, said) in [
            (json!({"regex": "("}), "expect.regex", "not a regular expression in RE2 syntax: unclosed group"),
            (json!({"regex": "(?=x)"}), "expect.regex", "look-around"),
            (json!({"regex": "[01]*1[01]{5000}$"}), "expect.regex", "size limit"),
            (
                json!({"jsonPath": [{"path": "$.a", "equals": 1}, {"path": "$..a", "equals": 1}]}),
                "expect.jsonPath[1].path",
                "many",
            ),
            (json!({"cel": "nothing == 1"}), "expect.cel", "there is no nothing"),
        ] {
            let bad = Expectation::compile(&spec(expect), &Nonce::sample(), "expect").expect_err(field);
            assert!(bad.field == field && bad.message.contains(said), "{bad}");
        }
    }
}
