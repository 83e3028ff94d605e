//! Clients of both eras in front of servers of either, over pipes and over streamable HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report")]

#[path = "../common/mod.rs"]
mod common;

mod document;
mod modern;
mod passing;
mod stateless;
mod to_legacy;
mod to_modern;
mod trouble;
mod with_sessions;
mod world;
