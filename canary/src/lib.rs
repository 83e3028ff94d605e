//! Known-answer checks: what is asked, what must come back, and one round of it over MCP.
//!
//! A server that answers is not yet one that answers rightly, and a model papers over the difference. A check asks what has
//! one right answer; with a nonce in it, an answer that nothing but this question can have brought about.

mod answer;
mod check;
mod expectation;
mod expression;
mod nonce;
mod path;
mod round;

pub use check::{BadCheck, Check, Checks, MAX_ANSWER};
pub use nonce::{NONCE, NoRandomness, Nonce};
pub use round::{Cause, Endpoint, Failed, Outcome, Protocol, round};
