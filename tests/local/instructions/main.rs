//! What a request costs in instructions: a number that no busy machine changes.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

mod answering;
mod bridge;
mod client;
mod gateway;

/// Requests that are counted.
const COUNTED: u32 = 300;
/// Requests before, which set up what lasts.
const BEFORE: u32 = 50;
