//! Asks a bridge for what is the same for everyone: who its server is, and what it lists.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Response, header};
use http_body_util::BodyExt;
use portolan_mcp::{
    aggregate::{Item, Kind as ListKind, Member, items},
    envelope::Message,
    failure::{Failure, Kind},
    members::Members,
    modern::DISCOVER,
    sse::Decoder,
    token::SessionKey,
    translate::ServerIntro,
};
use portolan_snapshot::snapshot::Pod;

use crate::message::is_worth_another_pod;
use crate::negotiate;
use crate::pool::Answer;
use crate::record::shown;
use crate::relay;
use crate::session;
use crate::state::Entry;
use crate::upstream::{self, Call, Purpose};

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Pods that are asked, while none of them answers.
const MAX_PODS: usize = 3;
/// Pages of one list.
const MAX_PAGES: usize = 100;
/// Bytes of all lists of one server.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// What a server has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lists {
    /// Who it is, and what it can do.
    pub(super) intro: ServerIntro,
    /// Its lists, in the order of [`ListKind::ALL`].
    pub(super) items: [Arc<[Item]>; 4],
}

impl Lists {
    /// Bytes of the lists.
    pub(super) fn bytes(&self) -> usize {
        self.items.iter().flat_map(|list| list.iter()).map(|item| item.own.len() + item.json.len()).sum()
    }

    pub(super) fn of(&self, kind: ListKind) -> &Arc<[Item]> {
        &self.items[kind.place()]
    }
}

/// Everything that the server behind `entry` has.
pub(super) async fn lists(entry: &Entry) -> Result<Lists, Failure> {
    let mut last = session::not_ready(&entry.route);
    for pod in session::of_serving(entry)?.into_iter().take(MAX_PODS) {
        match lists_of(&Source { entry, pod }).await {
            Err(failure) if is_worth_another_pod(failure.kind) => last = failure,
            answer => return answer,
        }
    }
    Err(last)
}

async fn lists_of(source: &Source<'_>) -> Result<Lists, Failure> {
    let discovered = source.ask(DISCOVER, "").await?;
    let intro = ServerIntro::of_discover(&discovered).ok_or_else(|| source.no_list(DISCOVER))?;
    let mut room = MAX_BYTES;
    let mut all: [Arc<[Item]>; 4] = std::array::from_fn(|_| Arc::from([]));
    for (kind, place) in ListKind::ALL.into_iter().zip(&mut all) {
        if intro.has(kind.capability()) {
            *place = source.list(kind, &mut room).await?.into();
        }
    }
    Ok(Lists { intro, items: all })
}

struct Source<'a> {
    entry: &'a Entry,
    pod: &'a Pod,
}

impl Source<'_> {
    async fn list(&self, kind: ListKind, room: &mut usize) -> Result<Vec<Item>, Failure> {
        let route = self.entry.route.name.as_str();
        let member = Member::of_route(route).ok_or_else(|| self.no_list(kind.method()))?;
        let (mut all, mut cursor) = (Vec::new(), String::new());
        for _ in 0..MAX_PAGES {
            let page = match self.ask(kind.method(), &cursor).await {
                Ok(page) => page,
                // Templates are an afterthought of resources: some servers that have these have none of those.
                Err(failure) if kind == ListKind::Templates && failure.kind == Kind::UnknownMethod => return Ok(all),
                Err(failure) => return Err(failure),
            };
            *room = room.checked_sub(page.len()).ok_or_else(|| self.too_much())?;
            let (items, next) = items(kind, member, &page).ok_or_else(|| self.no_list(kind.method()))?;
            all.extend(items);
            match next {
                Some(next) => cursor = format!(r#""cursor":{},"#, serde_json::Value::from(next)),
                None => return Ok(all),
            }
        }
        Err(self.too_much())
    }

    /// The result of `method`, JSON.
    async fn ask(&self, method: &str, params: &str) -> Result<String, Failure> {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
        );
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let everyone = SessionKey::of_everyone();
        let call = Call {
            method: &Method::POST,
            headers: &headers,
            session: &everyone,
            part: None,
            body: body.into(),
            timeout: TIMEOUT,
            purpose: Purpose::Everyone,
        };
        let asked = async {
            let response = upstream::send(&call, self.pod, self.entry).await?;
            let failed = relay::failure_of(response.headers());
            let answer = read(response).await?;
            match Message::parse(&answer) {
                Ok(Message::Response { is_error: false, payload, .. }) if failed.is_none() => {
                    Ok(payload.get().to_owned())
                }
                Ok(Message::Response { payload, .. }) => Err(refusal(failed, method, payload.get())),
                _ => Err(self.no_list(method)),
            }
        };
        let late = || Failure::new(Kind::RequestTimeout, format!("{method} was not answered in time"));
        tokio::time::timeout(TIMEOUT, asked).await.map_err(|_| late())?
    }

    fn no_list(&self, method: &str) -> Failure {
        Failure::new(Kind::BadServerReply, format!("{} does not answer {method} as it should", self.entry.route.name))
    }

    fn too_much(&self) -> Failure {
        let message = format!("{} lists more than {MAX_BYTES} bytes or {MAX_PAGES} pages", self.entry.route.name);
        Failure::new(Kind::BadServerReply, message)
    }
}

fn refusal(failed: Option<Kind>, method: &str, error: &str) -> Failure {
    let code = Members::of(error).and_then(|error| error.get("code").map(str::to_owned));
    let kind = match failed {
        Some(kind) => kind,
        None if code.as_deref() == Some("-32601") => Kind::UnknownMethod,
        None => Kind::BadServerReply,
    };
    Failure::new(kind, format!("{method} was refused: {}", said_by(error)))
}

/// What a JSON-RPC error says.
pub(super) fn said_by(error: &str) -> String {
    let error = Members::of(error).unwrap_or_default();
    shown(&error.string("message").unwrap_or_default())
}

/// The one message that answers a request, whether it comes alone or as an event.
pub(super) async fn read(response: Response<Answer>) -> Result<Bytes, Failure> {
    let is_stream = negotiate::is_stream(response.headers());
    let mut body = response.into_body();
    let (mut whole, mut decoder) = (BytesMut::new(), Decoder::new(MAX_BYTES));
    let broke_off = |what: String| Failure::new(Kind::ServerUnreachable, what);
    let too_long = |what: String| Failure::new(Kind::BadServerReply, what);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broke_off(format!("the answer broke off: {error}")))?;
        let Some(data) = frame.data_ref() else { continue };
        if is_stream {
            let events = decoder.push(data).map_err(|error| too_long(error.to_string()))?;
            let is_answer = |event: &Vec<u8>| matches!(Message::parse(event), Ok(Message::Response { .. }));
            if let Some(answer) = events.into_iter().find(is_answer) {
                return Ok(answer.into());
            }
        } else {
            whole.extend_from_slice(data);
            if whole.len() > MAX_BYTES {
                return Err(too_long(format!("the answer has more than {MAX_BYTES} bytes")));
            }
        }
    }
    Ok(whole.freeze())
}
