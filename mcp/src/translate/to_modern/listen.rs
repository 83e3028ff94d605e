//! What a session hears without having asked for it: one stream of notifications at the server, which is replaced when
//! the session wants to hear of other resources.

use std::collections::BTreeSet;

use super::super::{ServerIntro, Step, result};
use crate::envelope::Id;
use crate::members::Members;
use crate::modern::LIST_CHANGES;
use crate::session::cancelled_because;

/// Resources that a session may watch.
const MAX_RESOURCES: usize = 1024;

/// What comes of a wish to watch a resource.
pub(super) enum Watched {
    /// Another stream is needed for it.
    Anew,
    /// It is about to be.
    Soon,
    /// It is already.
    Already,
    /// There are too many.
    TooMany,
}

#[derive(Debug, Default)]
pub(super) struct Listen {
    /// The stream that is heard now.
    current: Option<u64>,
    /// The one that is to take its place.
    next: Option<u64>,
    resources: BTreeSet<String>,
    /// Requests of the client, and their resources, that are answered when the next stream has begun.
    waiting: Vec<(Id, String)>,
}

impl Listen {
    /// Whether what belongs to `stream` is heard: the old one is until the new one has begun.
    pub(super) fn is_current(&self, stream: u64) -> bool {
        self.current == Some(stream)
    }

    /// Whether `stream` was asked for and not given up.
    pub(super) fn is_wanted(&self, stream: u64) -> bool {
        self.current == Some(stream) || self.next == Some(stream)
    }

    /// Notes a resource. Unless it is watched already, `id` is answered when it is.
    pub(super) fn watch(&mut self, uri: String, id: &Id) -> Watched {
        let is_new = !self.resources.contains(&uri);
        if is_new && self.resources.len() >= MAX_RESOURCES {
            return Watched::TooMany;
        }
        if !is_new && !self.waiting.iter().any(|(_, waiting)| *waiting == uri) {
            return Watched::Already;
        }
        self.resources.insert(uri.clone());
        self.waiting.push((id.clone(), uri));
        if is_new { Watched::Anew } else { Watched::Soon }
    }

    /// Forgets a resource; says whether it was watched.
    pub(super) fn unwatch(&mut self, uri: &str) -> bool {
        self.resources.remove(uri)
    }

    /// All that the session wants to hear and the server can tell, as the filter of a request to listen.
    pub(super) fn filter(&self, server: &ServerIntro) -> String {
        let mut filter = Members::default();
        // Of lists a session hears without asking.
        for change in LIST_CHANGES {
            if server.says(change.capability, "listChanged") {
                filter.set(change.filter, "true");
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
            // Nothing is watched any more, so neither is what these were about.
            self.answer_waiting(out);
        }
    }

    fn answer_waiting(&mut self, out: &mut Vec<Step>) {
        out.extend(self.waiting.drain(..).map(|(id, _)| Step::ToClient(result(id.as_json(), "{}"))));
    }

    /// The server has begun a stream.
    pub(super) fn acknowledged(&mut self, stream: Option<u64>, out: &mut Vec<Step>) {
        if stream.is_none() || stream != self.next {
            return;
        }
        self.next = None;
        out.extend(std::mem::replace(&mut self.current, stream).map(end));
        self.answer_waiting(out);
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
            for (id, uri) in self.waiting.drain(..) {
                self.resources.remove(&uri);
                let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{refused}}}"#, id.as_json());
                out.push(Step::ToClient(answer.into()));
            }
        }
    }
}

fn end(stream: u64) -> Step {
    Step::ToServer(cancelled_because(&Id::number(stream), "another stream takes its place"))
}
