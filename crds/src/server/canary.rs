//! Known answers: what a server is asked, again and again, that has one right answer.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Duration;

/// Questions whose answers are known. Every pod of a revision has to answer them before the revision takes traffic, and each
/// pod that serves is asked again all the time. A wrong answer is told in `Available` and `Ready`, which quote its beginning; the pod goes on serving.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::absent_not_null)]
pub struct CanaryChecks {
    /// Time from one round of all checks to the next, at each pod.
    #[serde(default = "interval")]
    #[x_kube(validation = crate::rules::duration("1s", "24h", "1m"))]
    pub interval: Duration,

    /// How many rounds in a row a check must fail at a pod before it counts as failed. One that passes counts at once.
    #[serde(default = "failure_threshold")]
    #[schemars(range(min = 1, max = 100), extend("format" = "int32"))]
    pub failure_threshold: u32,

    /// Whether the bridge adds a document of Portolan's own to the server's resources, for checks and agents to be asked about:
    /// `SaintAnthony` has the URI `canary://saint-anthony/` and any ticket of up to 64 letters and digits, says the ticket, and is about
    /// automated cow milking.
    #[serde(default)]
    pub document: CanaryDocument,

    /// What is asked, in this order, in one session that is opened for it.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub checks: Vec<CanaryCheck>,
}

/// A document that the bridge adds to a server's resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum CanaryDocument {
    /// None.
    #[default]
    None,
    /// Nobody who has not read it can say what is in it.
    SaintAnthony,
}

/// One question and what its answer must be. `{{nonce}}` in the question and in `expect` stands for sixteen characters that are new each time:
/// an answer that has them was made for this question, and neither comes from a cache nor was it guessed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::absent_not_null)]
#[x_kube(validation = crate::rules::exactly_one(&["tool", "resource"], "a check asks one thing"))]
pub struct CanaryCheck {
    /// What the check is called in conditions, Events and metrics.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("write a name of lower-case letters, digits and '-', such as saint-anthony"))]
    pub name: String,

    /// Calls this tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<CanaryTool>,

    /// Reads this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<CanaryResource>,

    /// What the answer must be: everything that is written here. A tool's result that is marked as an error never is.
    pub expect: CanaryExpectation,
}

/// A call of a tool. It has no side effect that matters, or it would not be made again and again.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryTool {
    /// Name of the tool, as the server lists it.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,

    /// Its arguments.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "crate::schema::any_object")]
    pub arguments: Map<String, Value>,
}

/// A read of a resource.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryResource {
    /// URI of the resource, such as `canary://saint-anthony/{{nonce}}`.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z][-+.A-Za-z0-9]*:')")
        .message("write a URI with its scheme, such as canary://saint-anthony/{{nonce}}"))]
    pub uri: String,
}

/// What an answer must be. Its text is that of all text blocks, or of all contents of a resource, one after the other with a line break
/// between.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::absent_not_null)]
#[x_kube(validation = Rule::new("has(self.contains) || has(self.equals) || has(self.regex) || has(self.jsonPath) || has(self.cel)")
    .message("an answer that nothing is known of proves nothing: write contains, equals, regex, jsonPath or cel"))]
pub struct CanaryExpectation {
    /// Each of these is in the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::some_strings::<16, 1024>")]
    pub contains: Vec<String>,

    /// The text is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384))]
    pub equals: Option<String>,

    /// This regular expression (RE2 syntax) matches somewhere in the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub regex: Option<String>,

    /// Values within the structured content; within the text, read as JSON, where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub json_path: Vec<CanaryValue>,

    /// This CEL expression is true. It has `text`, `structured` (the structured content, or null), `result` (all of it) and `nonce`;
    /// whole numbers are ints. It is given answers of up to 16 KiB. `all`, `exists` and `exists_one` stand neither within one another nor
    /// one behind the other; `map` and `filter` there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub cel: Option<String>,

    /// The answer is there after this long. When not set, after `timeouts.request`, or 30 s where that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = crate::rules::duration("1ms", "30s", "2s"))]
    pub max_latency: Option<Duration>,
}

/// One value of a structured answer.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryValue {
    /// Where it is: names and positions as in RFC 9535, such as `$.rows[0].price`.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.startsWith('$')")
        .message("write a path from the root, such as $.rows[0].price"))]
    pub path: String,

    /// What it is: any JSON value but null.
    #[schemars(schema_with = "crate::schema::anything")]
    pub equals: Value,
}

fn interval() -> Duration {
    Duration::from_secs(60)
}

fn failure_threshold() -> u32 {
    1
}
