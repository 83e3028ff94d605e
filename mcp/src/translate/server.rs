//! What a server said of itself when it was asked, in either era.

use super::to_legacy::discover;
use crate::members::Members;
use crate::modern::meta;

/// The members of `initialize`'s or `server/discover`'s result that the other era has too, as JSON text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerIntro {
    /// `capabilities`, an object.
    pub capabilities: String,
    /// Name and version of the server, an object.
    pub info: Option<String>,
    /// `instructions`, a string.
    pub instructions: Option<String>,
}

impl ServerIntro {
    /// Reads the result of `initialize`; `None` where that is no object.
    #[must_use]
    pub fn of_initialize(result: &str) -> Option<Self> {
        let result = Members::of(result)?;
        Some(Self::read(&result, result.get("serverInfo").map(str::to_owned)))
    }

    /// Reads the result of `server/discover`; `None` where that is no object.
    #[must_use]
    pub fn of_discover(result: &str) -> Option<Self> {
        let result = Members::of(result)?;
        let info =
            result.get("_meta").and_then(Members::of).and_then(|meta| meta.get(meta::SERVER_INFO).map(str::to_owned));
        Some(Self::read(&result, info))
    }

    fn read(result: &Members<'_>, info: Option<String>) -> Self {
        let capabilities = result.get("capabilities").filter(|json| Members::of(json).is_some()).unwrap_or("{}");
        Self {
            capabilities: capabilities.to_owned(),
            info: info.filter(|json| Members::of(json).is_some()),
            instructions: result.string("instructions").map(|text| serde_json::Value::from(text).to_string()),
        }
    }

    /// The result of `server/discover` that says all this.
    #[must_use]
    pub fn discover_result(&self) -> String {
        discover(self)
    }

    /// Whether the server has the capability `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        Members::of(&self.capabilities).is_some_and(|all| all.get(name).is_some())
    }

    /// Whether the capability `name` says `flag: true`.
    #[must_use]
    pub fn says(&self, name: &str, flag: &str) -> bool {
        let all = Members::of(&self.capabilities);
        all.and_then(|all| Members::of(all.get(name)?)?.get(flag).map(|json| json == "true")).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_eras_say_the_same_of_a_server() {
        let legacy = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"x","version":"1"},"instructions":"a\u0062"}"#;
        let modern = r#"{"capabilities":{"tools":{"listChanged":true}},"instructions":"ab","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"x","version":"1"}}}"#;
        let intro = ServerIntro::of_initialize(legacy).expect("an object");
        assert_eq!(Some(&intro), ServerIntro::of_discover(modern).as_ref());
        assert!(intro.has("tools") && intro.says("tools", "listChanged"));
        assert!(!intro.has("resources") && !intro.says("resources", "subscribe") && !intro.says("tools", "x"));
        assert_eq!(ServerIntro::of_initialize("[]"), None);
    }
}
