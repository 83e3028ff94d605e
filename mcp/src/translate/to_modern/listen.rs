//! What a session hears without having asked for it: one stream of notifications at the server, which is replaced when
//! the session wants to hear of other resources.

use std::collections::BTreeSet;

use super::super::{ServerIntro, Step, result};
use crate::envelope::Id;
use crate::members::Members;
use crate::session::cancelled_because;

/// Changes of lists, of which a session hears without asking: the filter's member and the capability.
const LISTS: [(&str, &str); 3] =
    [("toolsListChanged", "tools"), ("promptsListChanged", "prompts"), ("resourcesListChanged", "resources")];

#[derive(Debug, Default)]
pub(super) struct Listen {
    /// The stream that is heard now.
    current: Option<u64>,
    /// The one that is to take its place.
    next: Option<u64>,
    resources: BTreeSet<String>,
    /// Requests of the client that are answered when the next stream has begun.
    waiting: Vec<Id>,
}

impl Listen {
    /// Whether what belongs to `stream` is heard: the old one is until the new one has begun.
    pub(super) fn is_current(&self, stream: u64) -> bool {
        self.current == Some(stream)
    }

    /// Notes a resource; says whether it is a new one, and then answers `id` when it is watched.
    pub(super) fn watch(&mut self, uri: String, id: &Id) -> bool {
        let is_new = self.resources.insert(uri);
        if is_new {
            self.waiting.push(id.clone());
        }
        is_new
    }

    /// Forgets a resource; says whether it was watched.
    pub(super) fn unwatch(&mut self, uri: &str) -> bool {
        self.resources.remove(uri)
    }

    /// All that the session wants to hear and the server can tell, as the filter of a request to listen.
    pub(super) fn filter(&self, server: &ServerIntro) -> String {
        let mut filter = Members::default();
        for (member, capability) in LISTS {
            if server.says(capability, "listChanged") {
                filter.set(member, "true");
            }
        }
        if !self.resources.is_empty() {
            let uris: Vec<&str> = self.resources.iter().map(String::as_str).collect();
            filter.set("resourceSubscriptions", serde_json::Value::from(uris).to_string());
        }
        filter.to_string()
    }

    /// Another stream was asked for, or none is wanted any more.
    pub(super) fn replace(&mut self, stream: Option<u64>, out: &mut Vec<Step>) {
        if let Some(overtaken) = std::mem::replace(&mut self.next, stream) {
            out.push(end(overtaken));
        }
        if stream.is_none() {
            out.extend(self.current.take().map(end));
        }
    }

    /// The server has begun a stream.
    pub(super) fn acknowledged(&mut self, stream: Option<u64>, out: &mut Vec<Step>) {
        if stream.is_none() || stream != self.next {
            return;
        }
        self.next = None;
        out.extend(std::mem::replace(&mut self.current, stream).map(end));
        out.extend(self.waiting.drain(..).map(|id| Step::ToClient(result(id.as_json(), "{}"))));
    }

    /// The server ended a stream, or refused it with `error`.
    pub(super) fn ended(&mut self, stream: Option<u64>, error: Option<&str>, out: &mut Vec<Step>) {
        if stream.is_none() {
            return;
        }
        if self.current == stream {
            self.current = None;
        }
        if self.next == stream {
            self.next = None;
            let refused = error.unwrap_or(r#"{"code":-32005,"message":"the server does not listen any more"}"#);
            out.extend(self.waiting.drain(..).map(|id| {
                Step::ToClient(format!(r#"{{"jsonrpc":"2.0","id":{},"error":{refused}}}"#, id.as_json()).into())
            }));
        }
    }
}

fn end(stream: u64) -> Step {
    Step::ToServer(cancelled_because(&Id::number(stream), "another stream takes its place"))
}
