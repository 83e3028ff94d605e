//! One era of the protocol spoken to a side that knows only the other, as state machines without I/O.
//!
//! A translator stands between two peers and takes their messages, one JSON-RPC message each. What it changes is what the
//! eras say differently; members that it does not know keep their bytes and their order.

mod server;
mod to_legacy;
mod to_modern;

use bytes::Bytes;

pub use self::server::ServerIntro;
pub use self::to_legacy::{Introduction, Parking, ToLegacy, without_modern};
pub use self::to_modern::ToModern;

/// What the driver must do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this message to the server.
    ToServer(Bytes),
    /// Send this message to the client.
    ToClient(Bytes),
    /// The call of this name waits for its client to come back; whoever does not come back in time is [expired].
    ///
    /// [expired]: ToLegacy::expire
    Parked(Box<str>),
    /// The call of this name does not wait any more.
    Unparked(Box<str>),
}

/// Ids of requests that a translator makes itself: strings, where those that pass through are numbers.
const OWN: &str = "portolan-";

fn own_id(number: u64) -> String {
    format!("\"{OWN}{number}\"")
}

/// The number of a request of the translator's own.
fn own_number(id: &crate::envelope::Id) -> Option<u64> {
    id.as_json().trim_matches('"').strip_prefix(OWN)?.parse().ok()
}

fn request(id: &str, method: &str, params: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#).into()
}

fn notification(method: &str, params: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#).into()
}

fn result(id: &str, result: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into()
}

fn error(id: &str, code: i32, message: &str) -> Bytes {
    let message = serde_json::Value::from(message);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}}}}}"#).into()
}
