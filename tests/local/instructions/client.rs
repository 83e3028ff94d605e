//! A client of either era, whose every request must be answered.

use portolan_tests::mcp::{self, Reply, Session};
use portolan_tests::objects::ALICE;
use reqwest::StatusCode;
use serde_json::{Value, json};

/// A client of either era.
pub(crate) enum Client {
    InSession(Session),
    Alone(reqwest::Client, String),
}

impl Client {
    /// One in a session and one without.
    pub(crate) async fn of_each_era(url: &str) -> [Self; 2] {
        let session = Session::open(url, Some(ALICE)).await.expect("a session");
        [Self::InSession(session), Self::Alone(mcp::http(), url.to_owned())]
    }

    /// Sends a message so many times, one after the other.
    pub(crate) async fn repeat(&self, message: &Value, times: u32) {
        for _ in 0..times {
            self.ask(message).await;
        }
    }

    /// The answer to a message.
    pub(crate) async fn ask(&self, message: &Value) -> Value {
        let answer = match self {
            Self::InSession(session) => session.send(message).await.expect("an answer"),
            Self::Alone(http, url) => {
                mcp::post_alone(http, url, Some(ALICE), message.clone()).await.expect("an answer")
            }
        };
        let reply = Reply::read(answer).await;
        assert!(reply.status == StatusCode::OK && reply.answer()["error"].is_null(), "{:?}", reply.messages);
        reply.answer().clone()
    }
}

/// A call of a tool that has a text.
pub(crate) fn call(tool: &str) -> Value {
    let params = json!({"name": tool, "arguments": {"message": "a text of some words"}});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
}
