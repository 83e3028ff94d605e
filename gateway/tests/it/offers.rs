//! What an upstream says of itself when it is asked for everyone: who it is, and what it lists, page by page.

use http::HeaderMap;
use portolan_mcp::{failure::Kind, wire};
use serde_json::{Value, json};

/// How many items one page of the upstream has.
const PAGE: usize = 400;

/// How it answers what is the same for everyone.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Well,
    /// With an error.
    Failing,
    /// Not at all.
    Hanging,
    /// With this as the whole body, whatever is asked.
    Saying(&'static str),
    /// Well when it is asked who it is, and with this result when it is asked for a list.
    Listing(&'static str),
}

/// What it has: items as they are written. A list that is `None` is a capability that it does not have.
#[derive(Clone, Default)]
pub struct Offers {
    pub mood: Mood,
    pub tools: Option<Vec<String>>,
    pub prompts: Option<Vec<String>>,
    pub resources: Option<Vec<String>>,
    pub templates: Option<Vec<String>>,
    pub completions: bool,
}

/// An answer to what is asked for everyone.
pub enum Told {
    Result(String),
    Error(Value),
    Failure(Kind),
    Raw(&'static str),
    Nothing,
}

impl Offers {
    /// Tools of these names.
    pub fn tools(names: &[&str]) -> Self {
        let tool = |name: &&str| format!(r#"{{"name":"{name}","inputSchema":{{}}}}"#);
        Self { tools: Some(names.iter().map(tool).collect()), ..Self::default() }
    }

    /// Answers `message`.
    pub fn answer(&self, message: &Value) -> Told {
        match self.mood {
            Mood::Well => {}
            Mood::Failing => return Told::Failure(Kind::ServerExited),
            Mood::Hanging => return Told::Nothing,
            Mood::Saying(text) => return Told::Raw(text),
            Mood::Listing(result) if message["method"] != "server/discover" => return Told::Result(result.into()),
            Mood::Listing(_) => {}
        }
        let (member, list) = match message["method"].as_str().expect("a request") {
            "server/discover" => return Told::Result(self.discovered()),
            "tools/list" => ("tools", &self.tools),
            "prompts/list" => ("prompts", &self.prompts),
            "resources/list" => ("resources", &self.resources),
            "resources/templates/list" => ("resourceTemplates", &self.templates),
            other => panic!("{other} is not the same for everyone"),
        };
        let Some(list) = list else {
            return Told::Error(json!({"code": -32601, "message": "there is no such list"}));
        };
        let begin: usize = message["params"]["cursor"].as_str().map_or(0, |cursor| cursor.parse().expect("our cursor"));
        let end = list.len().min(begin + PAGE);
        let next = if end < list.len() { format!(r#","nextCursor":"{end}""#) } else { String::new() };
        Told::Result(format!(r#"{{"{member}":[{}]{next}}}"#, list[begin..end].join(",")))
    }

    fn discovered(&self) -> String {
        let has = [
            ("tools", self.tools.is_some()),
            ("prompts", self.prompts.is_some()),
            ("resources", self.resources.is_some()),
            ("completions", self.completions),
        ];
        let capabilities: serde_json::Map<_, _> =
            has.into_iter().filter(|(_, has)| *has).map(|(name, _)| (name.into(), json!({}))).collect();
        json!({
            "resultType": "complete",
            "supportedVersions": ["2025-11-25"],
            "capabilities": capabilities,
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "t", "version": "1"}},
        })
        .to_string()
    }
}

/// Whether a request is one of those.
pub fn is_shared(headers: &HeaderMap) -> bool {
    headers.contains_key(wire::SHARED)
}
