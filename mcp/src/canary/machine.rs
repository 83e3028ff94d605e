//! A server with the document among its resources, whether it has others or not: a state machine without I/O that stands between it and
//! its client.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};

use super::{DESCRIPTION, NAME, TEMPLATE, URI, document, ticket_of};
use crate::envelope::{EnvelopeError, Id, Message, Request, string_param};
use crate::failure::Kind;
use crate::members::Members;
use crate::revision::Era;
use crate::session::IdKey;
use crate::translate::Step;

/// Requests whose answers are to be amended and have not come; beyond that they pass as they are.
const MAX_AWAITED: usize = 256;

/// What is amended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Amended {
    /// `initialize` or `server/discover`: the capability.
    Introduction,
    /// `resources/list`: the document, behind the last of the server's.
    Resources,
    /// `resources/templates/list`: its template.
    Templates,
}

/// The machine.
#[derive(Debug)]
pub struct WithDocument {
    is_modern: bool,
    /// Whether the server has resources of its own, once it has said so.
    has_resources: Option<bool>,
    awaited: HashMap<IdKey, Amended>,
}

impl WithDocument {
    /// In front of a server that speaks `era` here.
    #[must_use]
    pub fn new(era: Era) -> Self {
        Self { is_modern: era == Era::Modern, has_resources: None, awaited: HashMap::new() }
    }

    /// The client says `line`.
    ///
    /// # Errors
    /// It is no message.
    pub fn client_message(&mut self, line: &Bytes, out: &mut Vec<Step>) -> Result<(), EnvelopeError> {
        match Message::parse(line)? {
            Message::Request(request) => match self.own_answer(&request) {
                Some(result) => out.push(Step::ToClient(answer(&request.id, &result))),
                None => {
                    self.expect(&request);
                    out.push(Step::ToServer(line.clone()));
                }
            },
            Message::Notification { method, params } => {
                if method == "notifications/cancelled" {
                    self.forget(params);
                }
                out.push(Step::ToServer(line.clone()));
            }
            Message::Response { .. } => out.push(Step::ToServer(line.clone())),
        }
        Ok(())
    }

    /// What is taken back is not answered.
    fn forget(&mut self, params: Option<&RawValue>) {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Cancelled<'a> {
            #[serde(borrow)]
            request_id: &'a RawValue,
        }
        let cancelled = params.and_then(|params| serde_json::from_str::<Cancelled<'_>>(params.get()).ok());
        if let Some(id) = cancelled.and_then(|cancelled| Id::parse(cancelled.request_id)) {
            self.awaited.remove(&IdKey::from(&id));
        }
    }

    /// The server says `line`.
    ///
    /// # Errors
    /// It is no message.
    pub fn server_message(&mut self, line: &Bytes, out: &mut Vec<Step>) -> Result<(), EnvelopeError> {
        let amended = match Message::parse(line)? {
            Message::Response { id: Some(id), is_error, payload } => {
                let payload = payload.get();
                let result = match self.awaited.remove(&IdKey::from(&id)) {
                    Some(amended) if is_error => self.replace(amended, payload),
                    Some(amended) => self.amend(amended, payload),
                    None => None,
                };
                result.map(|result| answer(&id, &result))
            }
            Message::Response { id: None, .. } | Message::Request(_) | Message::Notification { .. } => None,
        };
        out.push(Step::ToClient(amended.unwrap_or_else(|| line.clone())));
        Ok(())
    }

    /// The server did not take the request `id`.
    pub fn refused(&mut self, id: &Id) {
        self.awaited.remove(&IdKey::from(id));
    }

    /// The result of a request that the server is not asked.
    fn own_answer(&self, request: &Request<'_>) -> Option<String> {
        let has_none = self.has_resources == Some(false);
        match &*request.method {
            "resources/read" => {
                let uri = string_param(request.params?, "uri")?;
                let text = document(ticket_of(&uri)?);
                Some(self.result(&json!({"contents": [{"uri": uri, "mimeType": "text/plain", "text": text}]})))
            }
            "resources/list" if has_none => self.whole(Amended::Resources),
            "resources/templates/list" if has_none => self.whole(Amended::Templates),
            _ => None,
        }
    }

    /// A list of ours alone; `None` of what is no list.
    fn whole(&self, amended: Amended) -> Option<String> {
        match amended {
            Amended::Introduction => None,
            Amended::Resources => Some(self.result(&json!({"resources": [resource()]}))),
            Amended::Templates => Some(self.result(&json!({"resourceTemplates": [template()]}))),
        }
    }

    /// `result` as this era has it.
    fn result(&self, result: &Value) -> String {
        let mut result = result.to_string();
        if self.is_modern {
            // "CacheableResult" (2026-07-28): it is another one for every ticket, and nobody's to keep.
            result.pop();
            result.push_str(r#","resultType":"complete","ttlMs":0,"cacheScope":"private"}"#);
        }
        result
    }

    /// What stands in the place of an error: a server that does not know a list has none.
    fn replace(&self, amended: Amended, error: &str) -> Option<String> {
        let error = Members::of(error)?;
        let is_unknown = error.get("code")?.parse() == Ok(Kind::UnknownMethod.code());
        if is_unknown { self.whole(amended) } else { None }
    }

    fn expect(&mut self, request: &Request<'_>) {
        let amended = match &*request.method {
            "initialize" | "server/discover" => Amended::Introduction,
            "resources/list" => Amended::Resources,
            "resources/templates/list" => Amended::Templates,
            _ => return,
        };
        if self.awaited.len() < MAX_AWAITED {
            self.awaited.insert(IdKey::from(&request.id), amended);
        }
    }

    /// `result` with what belongs there; `None` where nothing does.
    fn amend(&mut self, amended: Amended, result: &str) -> Option<String> {
        match amended {
            Amended::Introduction => self.introduce(result),
            Amended::Resources => appended(result, "resources", &resource()),
            Amended::Templates => appended(result, "resourceTemplates", &template()),
        }
    }

    fn introduce(&mut self, result: &str) -> Option<String> {
        let mut result = Members::of(result)?;
        let mut capabilities = Members::of(result.get("capabilities").unwrap_or("{}"))?;
        let has_resources = capabilities.get("resources").is_some();
        self.has_resources = Some(has_resources);
        if has_resources {
            return None;
        }
        capabilities.set("resources", "{}");
        let capabilities = capabilities.to_string();
        result.set("capabilities", capabilities);
        Some(result.to_string())
    }
}

/// A list with one more item, on its last page.
fn appended(result: &str, member: &'static str, item: &Value) -> Option<String> {
    let mut result = Members::of(result)?;
    if result.get("nextCursor").is_some_and(|cursor| cursor != "null") {
        return None;
    }
    let items = result.get(member)?.trim().strip_suffix(']')?.trim_end().to_owned();
    let separator = if items == "[" { "" } else { "," };
    result.set(member, format!("{items}{separator}{item}]"));
    Some(result.to_string())
}

fn resource() -> Value {
    json!({"uri": URI, "name": NAME, "description": DESCRIPTION, "mimeType": "text/plain"})
}

fn template() -> Value {
    json!({"uriTemplate": TEMPLATE, "name": NAME, "description": DESCRIPTION, "mimeType": "text/plain"})
}

fn answer(id: &Id, result: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.as_json()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Server(WithDocument);

    impl Server {
        /// One that introduced itself with these capabilities.
        fn with(era: Era, capabilities: &str) -> Self {
            let mut server = Self(WithDocument::new(era));
            server.client(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#);
            server.server(&format!(r#"{{"jsonrpc":"2.0","id":0,"result":{{"a":1.0,"capabilities":{capabilities}}}}}"#));
            server
        }

        fn client(&mut self, line: &str) -> Step {
            let mut out = Vec::new();
            self.0.client_message(&Bytes::from(line.to_owned()), &mut out).expect("a message");
            let [step] = out.try_into().expect("one step");
            step
        }

        fn server(&mut self, line: &str) -> String {
            let mut out = Vec::new();
            self.0.server_message(&Bytes::from(line.to_owned()), &mut out).expect("a message");
            match out.as_slice() {
                [Step::ToClient(line)] => String::from_utf8(line.to_vec()).expect("text"),
                other => panic!("{other:?}"),
            }
        }

        /// What the client gets that asks `method`, while the server would answer with `result`.
        fn asked(&mut self, method: &str, params: &str, result: &str) -> String {
            let line = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#);
            match self.client(&line) {
                Step::ToServer(passed) => {
                    assert_eq!(passed, line.as_bytes(), "as it came");
                    self.server(&format!(r#"{{"jsonrpc":"2.0","id":7,"result":{result}}}"#))
                }
                Step::ToClient(answer) => String::from_utf8(answer.to_vec()).expect("text"),
                other => panic!("{other:?}"),
            }
        }
    }

    fn json(text: &str) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn a_server_without_resources_has_one_and_is_never_asked_for_it() {
        let mut server = Server(WithDocument::new(Era::Legacy));
        server.client(r#"{"jsonrpc":"2.0","id":"a","method":"initialize","params":{}}"#);
        let introduced =
            server.server(r#"{"jsonrpc":"2.0","id":"a","result":{"n":1e400,"capabilities":{"tools":{ }},"x":[ ]}}"#);
        assert_eq!(
            introduced,
            r#"{"jsonrpc":"2.0","id":"a","result":{"n":1e400,"capabilities":{"tools":{ },"resources":{}},"x":[ ]}}"#
        );
        let listed = json(&server.asked("resources/list", "{}", "the server would not know"));
        assert_eq!(listed["result"]["resources"][0]["name"], "Saint Anthony");
        let listed = json(&server.asked("resources/templates/list", "{}", "the server would not know"));
        assert_eq!(listed["result"]["resourceTemplates"][0]["uriTemplate"], "canary://saint-anthony/{ticket}");
    }

    #[test]
    fn the_document_is_the_last_of_a_servers_own_resources() {
        let mut server = Server::with(Era::Legacy, r#"{"resources":{"subscribe":true}}"#);
        let page = r#"{"resources":[{"uri":"a:b", "n":1.50}],"nextCursor":"2"}"#;
        let first = server.asked("resources/list", "{}", page);
        assert_eq!(first, format!(r#"{{"jsonrpc":"2.0","id":7,"result":{page}}}"#), "not yet");
        let last = server.asked(
            "resources/list",
            r#"{"cursor":"2"}"#,
            r#"{"resources":[{"uri":"a:c", "n":1.50} ],"_meta":{}}"#,
        );
        assert!(last.contains(r#"[{"uri":"a:c", "n":1.50},{"#) && last.ends_with(r#"],"_meta":{}}}"#), "{last}");
        assert_eq!(json(&last)["result"]["resources"][1]["uri"], "canary://saint-anthony");
        let empty = json(&server.asked("resources/templates/list", "{}", r#"{"resourceTemplates":[ ]}"#));
        assert_eq!(empty["result"]["resourceTemplates"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn a_server_that_does_not_know_a_list_has_none_and_another_error_is_the_servers_own() {
        let mut server = Server::with(Era::Legacy, r#"{"resources":{}}"#);
        let refused = |code: i32| format!(r#"{{"jsonrpc":"2.0","id":7,"error":{{"code":{code},"message":"no"}}}}"#);
        let ask = r#"{"jsonrpc":"2.0","id":7,"method":"resources/templates/list"}"#;
        server.client(ask);
        let unknown = json(&server.server(&refused(-32601)));
        assert_eq!(unknown["result"]["resourceTemplates"][0]["name"], "Saint Anthony");
        server.client(ask);
        assert_eq!(server.server(&refused(-32603)), refused(-32603));
    }

    #[test]
    fn the_document_is_read_without_the_server_and_everything_else_from_it() {
        let mut server = Server::with(Era::Legacy, r#"{"resources":{}}"#);
        let uri = "canary://saint-anthony/t-1";
        let read = json(&server.asked("resources/read", &format!(r#"{{"uri":"{uri}"}}"#), "{}"));
        assert_eq!(read["result"]["contents"][0]["uri"], uri);
        assert_eq!(read["result"]["contents"][0]["text"], document("t-1"));
        for params in [r#"{"uri":"file:///x"}"#, r#"{"uri":"canary://saint-anthony/a/b"}"#, "{}", r#"{"uri":7}"#] {
            let passed = server.asked("resources/read", params, r#"{"contents":[ ]}"#);
            assert_eq!(passed, r#"{"jsonrpc":"2.0","id":7,"result":{"contents":[ ]}}"#, "{params}");
        }
    }

    #[test]
    fn what_is_taken_back_is_not_waited_for() {
        let mut server = Server::with(Era::Legacy, r#"{"resources":{}}"#);
        for id in 0..2 * MAX_AWAITED {
            server.client(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"resources/list"}}"#));
            let params = format!(r#"{{"requestId":{id}}}"#);
            server.client(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#));
        }
        assert!(server.0.awaited.is_empty());
        let listed = json(&server.asked("resources/list", "{}", r#"{"resources":[]}"#));
        assert_eq!(listed["result"]["resources"][0]["name"], "Saint Anthony");
    }

    #[test]
    fn a_client_without_a_session_is_told_that_nobody_may_keep_it() {
        let mut server = Server::with(Era::Modern, "{}");
        for (method, params) in [
            ("resources/read", r#"{"uri":"canary://saint-anthony"}"#),
            ("resources/list", "{}"),
            ("resources/templates/list", "{}"),
        ] {
            let result = json(&server.asked(method, params, "{}"))["result"].clone();
            assert_eq!((&result["resultType"], &result["ttlMs"]), (&json!("complete"), &json!(0)), "{method}");
            assert_eq!(result["cacheScope"], "private");
        }
    }

    #[test]
    fn what_is_none_of_its_business_passes_as_it_came() {
        let mut server = Server::with(Era::Legacy, "{}");
        for line in [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"n":1.0}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","id":"q","result":{"a":[ ]}}"#,
        ] {
            assert_eq!(server.client(line), Step::ToServer(Bytes::from(line)));
            assert_eq!(server.server(line), line);
        }
        let error = r#"{"jsonrpc":"2.0","id":8,"error":{"code":-1,"message":"no"}}"#;
        server.client(r#"{"jsonrpc":"2.0","id":8,"method":"initialize"}"#);
        assert_eq!(server.server(error), error);
        let mut out = Vec::new();
        assert!(server.0.client_message(&Bytes::from("{"), &mut out).is_err() && out.is_empty());
        assert!(server.0.server_message(&Bytes::from("[]"), &mut out).is_err() && out.is_empty());
    }
}
