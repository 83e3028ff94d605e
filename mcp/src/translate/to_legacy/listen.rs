//! Streams of notifications: who listens for what, and what the server was asked to watch for it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::{ServerIntro, Step, notification};
use crate::members::Members;
use crate::modern::{LIST_CHANGES, meta};

const UPDATED: &str = "notifications/resources/updated";

/// Whether `method` is what a stream of notifications carries.
pub(super) fn is_change(method: &str) -> bool {
    method == UPDATED || LIST_CHANGES.iter().any(|change| change.method == method)
}

/// Resources that one stream may be for; of more the last ones are not promised.
const MAX_RESOURCES: usize = 256;

#[derive(Debug, Default)]
struct Filter {
    lists: Vec<&'static str>,
    resources: Vec<String>,
}

/// What came of a request to listen.
pub(super) struct Begun {
    /// The first message of the stream.
    pub(super) acknowledgement: Bytes,
    /// Resources that nobody listened to before.
    pub(super) subscribe: Vec<String>,
}

/// Who listens, by the number of the request.
#[derive(Debug, Default)]
pub(super) struct Listens(BTreeMap<u64, Filter>);

impl Listens {
    /// Begins a stream, with what the server has of what is asked for.
    pub(super) fn begin(&mut self, id: u64, asked: &Members<'_>, server: &ServerIntro) -> Begun {
        let mut honoured = Members::default();
        let mut filter = Filter::default();
        for change in LIST_CHANGES {
            if asked.get(change.filter) == Some("true") && server.says(change.capability, "listChanged") {
                honoured.set(change.filter, "true");
                filter.lists.push(change.method);
            }
        }
        let mut resources: Vec<String> =
            asked.get("resourceSubscriptions").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        resources.sort_unstable();
        resources.dedup();
        resources.truncate(MAX_RESOURCES);
        if !resources.is_empty() && server.says("resources", "subscribe") {
            honoured.set("resourceSubscriptions", serde_json::Value::from(resources.clone()).to_string());
            filter.resources = resources;
        }
        let params = format!(r#"{{"notifications":{honoured},"_meta":{{"{}":{id}}}}}"#, meta::SUBSCRIPTION_ID);
        let subscribe = filter.resources.iter().filter(|uri| !self.watches(uri)).cloned().collect();
        self.0.insert(id, filter);
        Begun { acknowledgement: notification("notifications/subscriptions/acknowledged", &params), subscribe }
    }

    /// Ends a stream; says which resources nobody listens to any more.
    pub(super) fn end(&mut self, id: u64) -> Vec<String> {
        let Some(filter) = self.0.remove(&id) else { return Vec::new() };
        filter.resources.into_iter().filter(|uri| !self.watches(uri)).collect()
    }

    fn watches(&self, uri: &str) -> bool {
        self.0.values().any(|filter| filter.resources.iter().any(|watched| watched == uri))
    }

    /// Tells whoever listens for it.
    pub(super) fn changed(&self, method: &str, params: Option<&str>, out: &mut Vec<Step>) {
        let params = params.and_then(Members::of).unwrap_or_default();
        let uri = params.string("uri").unwrap_or_default();
        for (id, filter) in &self.0 {
            let hears = match method {
                UPDATED => filter.resources.iter().any(|watched| covers(watched, &uri)),
                _ => filter.lists.contains(&method),
            };
            if hears {
                out.push(Step::ToClient(notification(method, &addressed(&params, *id))));
            }
        }
    }
}

/// What changed may be a part of what is watched ("ResourceUpdatedNotification").
fn covers(watched: &str, uri: &str) -> bool {
    uri.strip_prefix(watched)
        .is_some_and(|rest| rest.is_empty() || watched.ends_with('/') || rest.starts_with(['/', '?', '#']))
}

fn addressed(params: &Members<'_>, id: u64) -> String {
    let mut params = params.clone();
    let mut of_message = params.get("_meta").and_then(Members::of).unwrap_or_default();
    of_message.set(meta::SUBSCRIPTION_ID, id.to_string());
    let of_message = of_message.to_string();
    params.set("_meta", of_message);
    params.to_string()
}
