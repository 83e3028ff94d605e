//! Stateless mode: every client is answered by the one kept process.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use portolan_mcp::envelope::{self, Id, Message};
use portolan_mcp::failure::{Failure, Kind};
use portolan_mcp::wire::SessionCounts;

use crate::data::{self, Answer, refused};
use crate::kept::Kept;
use crate::respond;
use crate::server::Body;
use crate::state::{State, lock};

/// Everyone's process.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Arc<State>,
}

impl Shared {
    pub(crate) fn new(state: &Arc<State>) -> Self {
        Self { state: Arc::clone(state) }
    }

    /// There are no sessions to count.
    pub(crate) fn counts(&self) -> SessionCounts {
        SessionCounts { active: 0, warm: 0, max: self.state.config.sessions.max }
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Answer {
        match *request.method() {
            Method::POST => self.post(request).await,
            Method::GET => Err(refused(Kind::MethodNotAllowed, "a stateless server has no standing stream")),
            Method::DELETE => Ok(respond::empty(StatusCode::NO_CONTENT)),
            _ => Err(refused(Kind::MethodNotAllowed, "use POST, GET or DELETE")),
        }
    }

    async fn post(&self, request: Request<Incoming>) -> Answer {
        let timeout = data::timeout(&self.state, request.headers());
        let body = data::read_body(&self.state, request).await?;
        match data::parse(&body)? {
            Message::Request(request) if request.method == "initialize" => self.initialize(&request.id),
            Message::Request(request) => self.call(&request, &body, timeout).await,
            // Nothing that a client says on its own is for the process of all.
            Message::Notification { .. } | Message::Response { .. } => Ok(respond::empty(StatusCode::ACCEPTED)),
        }
    }

    fn initialize(&self, id: &Id) -> Answer {
        let kept = self.kept(id, "initialize")?;
        let result = kept.initialize_result().unwrap_or("{}");
        Ok(respond::json(StatusCode::OK, format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.as_json())))
    }

    async fn call(&self, request: &envelope::Request<'_>, body: &Bytes, timeout: Duration) -> Answer {
        let kept = self.kept(&request.id, &request.method)?;
        let reply = kept.call(request, body, timeout);
        let reply = reply.map_err(|failure| respond::failure(&failure, Some(&request.id), Some(&request.method)))?;
        Ok(respond::call(reply).await)
    }

    fn kept(&self, id: &Id, method: &str) -> Result<Arc<Kept>, Response<Body>> {
        lock(&self.state.kept).clone().ok_or_else(|| {
            let failure = Failure::new(Kind::NotReady, "the server is not ready; ask again soon");
            respond::failure(&failure.retry_after(Duration::from_secs(1)), Some(id), Some(method))
        })
    }
}
