//! `portolan relay`: stands in front of a server that runs elsewhere.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use portolan_bridge::config::{Config, Upstream};
use portolan_bridge::flags::Flags;
use portolan_bridge::remote::{Allowed, Identity, Remote, Settings, Transport};
use portolan_bridge::service;

use crate::exit::{Exit, Failure};

/// Largest file with certificates, a key or a credential that is read: what a Secret holds at most.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Run the relay in front of a server that runs elsewhere.
///
/// The operator starts it. It speaks HTTP/1.1 with the URL's host, trusts certificates of public authorities or of those in
/// --ca-file alone, follows no redirects, and connects to addresses of private networks only where they are allowed.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  portolan relay --url https://mcp.example.com/mcp --mac-key-file mac \\
    --header-name Authorization --header-file credential")]
pub(crate) struct RelayArgs {
    /// The server's endpoint, or its event stream
    #[arg(long)]
    url: String,

    /// How the server speaks MCP
    #[arg(long, value_enum, default_value = "streamable-http")]
    transport: Spoken,

    /// PEM certificates of the authorities that may have signed the server's; the public ones when not given
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// PEM certificate to show to the server
    #[arg(long, value_name = "FILE", requires = "client_key_file")]
    client_certificate_file: Option<PathBuf>,

    /// Its private key
    #[arg(long, value_name = "FILE", requires = "client_certificate_file")]
    client_key_file: Option<PathBuf>,

    /// Header that every request to the server carries
    #[arg(long, value_name = "NAME", requires = "header_file")]
    header_name: Option<String>,

    /// File with its value
    #[arg(long, value_name = "FILE", requires = "header_name")]
    header_file: Option<PathBuf>,

    /// A host that may have addresses of private networks; may be repeated
    #[arg(long, value_name = "HOST")]
    allow_private_host: Vec<String>,

    #[command(flatten)]
    bridge: Flags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Spoken {
    StreamableHttp,
    Sse,
}

impl RelayArgs {
    fn config(&self) -> Result<Config, String> {
        let files = self.client_certificate_file.as_ref().zip(self.client_key_file.as_ref());
        let identity = files
            .map(|(certificate, key)| Ok::<_, String>(Identity { certificate: read(certificate)?, key: read(key)? }));
        let header = self.header_name.as_ref().zip(self.header_file.as_ref());
        let settings = Settings {
            url: self.url.clone(),
            transport: match self.transport {
                Spoken::StreamableHttp => Transport::StreamableHttp,
                Spoken::Sse => Transport::Sse,
            },
            authorities: self.ca_file.as_ref().map(read).transpose()?,
            identity: identity.transpose()?,
            header: header.map(|(name, file)| Ok::<_, String>((name.clone(), read(file)?))).transpose()?,
            allowed: Allowed { hosts: self.allow_private_host.clone(), loopback: false },
        };
        let remote = Remote::new(&settings).map_err(|invalid| invalid.to_string())?;
        self.bridge.config(Upstream::Remote(Box::new(remote))).map_err(|error| format!("{error:#}"))
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let length = std::fs::metadata(path).map_err(|error| format!("cannot read {shown}: {error}"))?.len();
    if length > MAX_FILE_BYTES {
        return Err(format!(
            "{shown} has {length} bytes, and a certificate or credential has at most {MAX_FILE_BYTES}"
        ));
    }
    std::fs::read(path).map_err(|error| format!("cannot read {shown}: {error}"))
}

/// `portolan relay`.
pub(crate) async fn run(args: &RelayArgs) -> Result<(), Failure> {
    let config = args.config().map_err(RefusedSettings);
    service::run(&args.bridge, config.map_err(Into::into))
        .await
        .map_err(|error| Failure::new(Exit::Negative, format!("{error:#}")))
}

/// Settings that lead nowhere, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct RefusedSettings(String);
