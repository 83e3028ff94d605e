//! Which server a request is for, and the request as that server knows it.

use bytes::Bytes;
use http::HeaderMap;
use portolan_mcp::{
    aggregate::{Member, Owned, Selection},
    envelope::{Message, Request},
    failure::{Failure, Kind},
    members::Members,
    modern::{Head, NAME_HEADER, header_value},
};

/// A request for one server.
#[derive(Debug)]
pub(super) struct Target {
    namespace: String,
    server: String,
    /// The request with the server's own names in it.
    pub(super) body: Bytes,
}

impl Target {
    pub(super) fn member(&self) -> Member<'_> {
        Member { namespace: &self.namespace, server: &self.server }
    }

    /// The headers of the request as the server knows it.
    pub(super) fn headers(&self, headers: &HeaderMap) -> HeaderMap {
        let mut headers = headers.clone();
        if headers.contains_key(NAME_HEADER)
            && let Ok(message) = Message::parse(&self.body)
            && let Some(name) = Head::of(&message).and_then(|head| head.name.as_deref().and_then(header_value))
        {
            headers.insert(NAME_HEADER, name);
        }
        headers
    }
}

/// Where `request` goes, which was read from `body`, at an endpoint that shows `selection` or everything.
///
/// # Errors
/// Its method is none that one server answers, or it names nothing of a server.
pub(super) fn of(request: &Request<'_>, body: &Bytes, selection: Option<&Selection>) -> Result<Target, Failure> {
    // Whatever one server is asked under its own names is for it as it is; but what it would tell outside of calls is told nowhere.
    let is_outside = matches!(&*request.method, "resources/subscribe" | "resources/unsubscribe");
    if let Some(Member { namespace, server }) = selection.and_then(Selection::only).filter(|_| !is_outside) {
        return Ok(Target { namespace: namespace.to_owned(), server: server.to_owned(), body: body.clone() });
    }
    let at = match &*request.method {
        "tools/call" => At::Tool,
        "prompts/get" => At::Prompt,
        "resources/read" => At::Uri,
        "completion/complete" => At::Reference,
        method => {
            let message = match selection.and_then(Selection::only) {
                Some(_) => format!("{method} is not answered by a server that sleeps while nobody calls"),
                None => format!("{method} is not answered where several servers are one; ask the server itself"),
            };
            return Err(Failure::new(Kind::UnknownMethod, message));
        }
    };
    rewritten(body, at, selection).ok_or_else(|| unknown(request))
}

/// Where a request says what it is about.
#[derive(Clone, Copy)]
enum At {
    Tool,
    Prompt,
    Uri,
    /// `ref` of a completion: a prompt's name, or a resource's URI.
    Reference,
}

fn rewritten(body: &Bytes, at: At, selection: Option<&Selection>) -> Option<Target> {
    let mut message = Members::of(std::str::from_utf8(body).ok()?)?;
    let params = message.get("params")?.to_owned();
    let mut params = Members::of(&params)?;
    let (namespace, server) = match at {
        At::Tool => own(&mut params, "name", selection)?,
        At::Prompt => own(&mut params, "name", None)?,
        At::Uri => own(&mut params, "uri", None)?,
        At::Reference => {
            let reference = params.get("ref")?.to_owned();
            let mut reference = Members::of(&reference)?;
            let is_resource = reference.string("type").as_deref() == Some("ref/resource");
            let found = own(&mut reference, if is_resource { "uri" } else { "name" }, None)?;
            let json = reference.to_string();
            params.set("ref", json);
            found
        }
    };
    let params = params.to_string();
    message.set("params", params);
    Some(Target { namespace, server, body: message.to_string().into() })
}

/// Puts the server's own name in the place of the endpoint's; gives namespace and server. `tools` says what a tool is called.
fn own(members: &mut Members<'_>, member: &'static str, tools: Option<&Selection>) -> Option<(String, String)> {
    let shown = members.string(member)?;
    let owned = match tools {
        Some(tools) => tools.tool(&shown),
        None if member == "uri" => Owned::of_uri(&shown),
        None => Owned::of_name(&shown),
    }?;
    let found = (owned.member.namespace.to_owned(), owned.member.server.to_owned());
    let own = serde_json::Value::from(owned.own).to_string();
    members.set(member, own);
    Some(found)
}

/// Nothing of that name: neither there, nor to be seen by this caller.
pub(super) fn unknown(request: &Request<'_>) -> Failure {
    let message = format!(
        "{} names nothing that is here; names are those of the lists, such as <namespace>__<server>__<tool>",
        request.method
    );
    Failure::new(Kind::InvalidParams, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(body: &str) -> Result<(String, String), Kind> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let Ok(Message::Request(request)) = Message::parse(&body) else { panic!("a request") };
        let target = of(&request, &body, None).map_err(|failure| failure.kind)?;
        Ok((target.member().route(), String::from_utf8_lossy(&target.body).into_owned()))
    }

    #[test]
    fn a_request_reaches_its_server_under_the_servers_own_names() {
        for (params, method, own) in [
            (r#"{"name":"n__s__a__b","x":1.0}"#, "tools/call", r#"{"name":"a__b","x":1.0}"#),
            (r#"{"uri":"s.n+a:b"}"#, "resources/read", r#"{"uri":"a:b"}"#),
            (
                r#"{"ref":{"type":"ref/prompt","name":"n__s__p"}}"#,
                "completion/complete",
                r#"{"ref":{"type":"ref/prompt","name":"p"}}"#,
            ),
            (
                r#"{"ref":{"type":"ref/resource","uri":"s.n+a:{b}"}}"#,
                "completion/complete",
                r#"{"ref":{"type":"ref/resource","uri":"a:{b}"}}"#,
            ),
        ] {
            let body = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
            assert_eq!(target(&body(params)), Ok(("n/s".to_owned(), body(own))));
        }
        let body =
            |method: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"echo"}}}}"#);
        assert_eq!(target(&body("tools/call")), Err(Kind::InvalidParams));
        for method in ["tasks/get", "resources/subscribe", "logging/setLevel"] {
            assert_eq!(target(&body(method)), Err(Kind::UnknownMethod), "{method}");
        }
    }
}
