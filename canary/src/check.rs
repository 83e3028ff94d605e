//! Checks as the spec has them, found to be ones that can be made.

use portolan_crds::{
    Duration,
    server::{CanaryCheck, CanaryChecks, CanaryExpectation},
};
use serde_json::{Map, Value};

use crate::{
    answer::Answer,
    expectation::{Expectation, Mismatch},
    nonce::{NONCE, Nonce},
};

/// Largest message that a check reads, in bytes.
pub const MAX_ANSWER: usize = 256 * 1024;

/// A check that cannot be made.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field}: {message}")]
pub struct BadCheck {
    /// Where it stands, such as `spec.canaryChecks.checks[0].expect.regex`.
    pub field: String,
    /// What is wrong there, and what to write instead.
    pub message: String,
}

/// The checks of one server.
#[derive(Clone, Debug, PartialEq)]
pub struct Checks {
    /// In the order in which they are made.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Where it stands in the spec.
    pub field: String,
    question: Question,
    expect: CanaryExpectation,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Question {
    /// A call of a tool.
    Tool(String, Map<String, Value>),
    /// A read of a resource.
    Resource(String),
}

impl Checks {
    /// Reads what the spec says.
    ///
    /// # Errors
    /// The first check that cannot be made.
    pub fn read(spec: &CanaryChecks) -> Result<Self, BadCheck> {
        let checks = spec.checks.iter().enumerate();
        let checks = checks.map(|(index, check)| Check::read(check, &format!("spec.canaryChecks.checks[{index}]")));
        Ok(Self { checks: checks.collect::<Result<_, _>>()? })
    }
}

impl Check {
    fn read(spec: &CanaryCheck, field: &str) -> Result<Self, BadCheck> {
        let bad = |message: &str| BadCheck { field: field.to_owned(), message: message.to_owned() };
        let question = match (&spec.tool, &spec.resource) {
            (Some(tool), None) => Question::Tool(tool.name.clone(), tool.arguments.clone()),
            (None, Some(resource)) => Question::Resource(resource.uri.clone()),
            _ => return Err(bad("write exactly one of tool, resource")),
        };
        let check = Self { name: spec.name.clone(), field: field.to_owned(), question, expect: spec.expect.clone() };
        check.expectation(&Nonce::sample())?;
        if check.expects_nonce() && !check.question.has_nonce() {
            let message = format!(
                "{NONCE} is expected and nothing brings it to the server: write it into tool.arguments or resource.uri too"
            );
            return Err(BadCheck { field: format!("{field}.expect"), message });
        }
        Ok(check)
    }

    /// What is asked this time.
    pub(crate) fn ask(&self, nonce: &Nonce) -> Question {
        match &self.question {
            Question::Tool(name, arguments) => Question::Tool(name.clone(), nonce.fill_members(arguments)),
            Question::Resource(uri) => Question::Resource(nonce.fill(uri)),
        }
    }

    /// How long an answer may take, where the check says so.
    pub(crate) fn max_latency(&self) -> Option<Duration> {
        self.expect.max_latency
    }

    /// Whether `answer`, to what was asked with `nonce`, is what it must be.
    ///
    /// # Errors
    /// What could be compiled before cannot be now: that says nothing of the answer.
    pub(crate) fn judge(&self, answer: &Answer, nonce: &Nonce) -> Result<Result<(), Mismatch>, BadCheck> {
        Ok(self.expectation(nonce)?.judge(answer, nonce))
    }

    fn expectation(&self, nonce: &Nonce) -> Result<Expectation, BadCheck> {
        Expectation::compile(&self.expect, nonce, &format!("{}.expect", self.field))
    }

    fn expects_nonce(&self) -> bool {
        let CanaryExpectation { contains, equals, regex, json_path, cel, max_latency: _ } = &self.expect;
        // An expression has it as a variable too.
        let texts = contains.iter().chain(equals).chain(regex);
        texts.map(String::as_str).any(|text| text.contains(NONCE))
            || cel.as_ref().is_some_and(|source| source.contains("nonce"))
            || json_path.iter().any(|value| value.equals.to_string().contains(NONCE))
    }
}

impl Question {
    fn has_nonce(&self) -> bool {
        match self {
            Self::Tool(_, arguments) => {
                arguments.iter().any(|(name, value)| name.contains(NONCE) || value.to_string().contains(NONCE))
            }
            Self::Resource(uri) => uri.contains(NONCE),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(check: &Value) -> Result<Checks, BadCheck> {
        Checks::read(&serde_json::from_value(json!({"checks": [check]})).expect("checks"))
    }

    #[test]
    fn a_nonce_that_nothing_brings_to_the_server_is_refused() {
        let expect = json!({"contains": ["{{nonce}}"]});
        let bad = read(&json!({"name": "a", "tool": {"name": "t", "arguments": {"x": 1}}, "expect": expect}));
        let bad = bad.expect_err("nothing brings it");
        assert_eq!(bad.field, "spec.canaryChecks.checks[0].expect");
        assert!(bad.message.contains("write it into tool.arguments or resource.uri too"), "{bad}");
        for question in [
            ("tool", json!({"name": "t", "arguments": {"x": [{"y": "-{{nonce}}-"}]}})),
            ("resource", json!({"uri": "canary://saint-anthony/{{nonce}}"})),
        ] {
            read(&json!({"name": "a", question.0: question.1, "expect": expect})).expect("something does");
        }
    }

    #[test]
    fn the_first_check_that_cannot_be_made_is_named_with_its_field() {
        let bad = read(&json!({"name": "a", "tool": {"name": "t"}, "expect": {"regex": "["}})).expect_err("no regex");
        assert_eq!(bad.field, "spec.canaryChecks.checks[0].expect.regex");
        let bad = read(&json!({"name": "a", "expect": {"contains": ["x"]}})).expect_err("no question");
        assert_eq!(bad.to_string(), "spec.canaryChecks.checks[0]: write exactly one of tool, resource");
    }
}
