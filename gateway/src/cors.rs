//! What a browser has to be told before a page of an allowed origin can use an endpoint (Fetch standard, CORS).

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use crate::respond::{self, ALLOWED_METHODS, Body};

const ALLOWED_HEADERS: &str =
    "authorization, content-type, accept, mcp-session-id, mcp-protocol-version, last-event-id";
const EXPOSED_HEADERS: &str = "mcp-session-id, www-authenticate, retry-after";
const MAX_AGE_SECONDS: &str = "600";

/// The answer to a preflight of an allowed origin. A preflight carries no credential and asks for nothing but this,
/// so it is answered before authentication, alike for every path.
pub(crate) fn preflight(request: &Parts) -> Option<Response<Body>> {
    let asks = request.method == Method::OPTIONS
        && request.headers.contains_key(header::ORIGIN)
        && request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    asks.then(|| {
        let mut response = respond::empty(StatusCode::NO_CONTENT);
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(ALLOWED_METHODS));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_SECONDS));
        response
    })
}

/// Lets a page of `origin`, which was found to be allowed, read the answer.
pub(crate) fn admit(origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
}
