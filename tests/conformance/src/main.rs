//! `portolan-everything`: an MCP server with everything that the protocol's conformance suite asks for, in both eras.
//!
//! Names of tools, prompts and resources, and what is in them, are the suite's: the descriptions of its scenarios say so.
//! Run by itself it passes; so whatever fails when a gateway stands before it, that gateway did.

#![allow(deprecated, reason = "what a revision deprecates stays part of it, and of the suite")]

mod asking;
mod changes;
mod completions;
mod content;
mod era;
mod http;
mod jobs;
mod media;
mod prompts;
mod resources;
mod rounds;
mod server;
mod telling;
mod tools;

use std::net::SocketAddr;

use clap::{ArgGroup, Parser};
use rmcp::service::ServerInitializeError;

use crate::era::Era;
use crate::server::Everything;

/// An MCP server with everything that the protocol's conformance suite asks for.
#[derive(Parser)]
#[command(name = "portolan-everything", version, group = ArgGroup::new("transport").required(true))]
struct Arguments {
    /// Serve on standard input and output
    #[arg(long, group = "transport")]
    stdio: bool,
    /// Serve streamable HTTP at /mcp on this address and print the URL; port 0 is a free one
    #[arg(long, group = "transport", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Speak one era only
    #[arg(long, value_enum, default_value_t = Era::Both)]
    era: Era,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { listen, era, .. } = Arguments::parse();
    match listen {
        Some(address) => http::serve(address, era, Everything::default()).await,
        None => {
            match rmcp::serve_server(Everything::default(), era.pipes()).await {
                Ok(running) => running.waiting().await.map(drop).map_err(Into::into),
                // A client that goes away unheard is no news here.
                Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
    }
}
