//! `portolan apikey`: makes one API key and the Secret entry that admits it.

use clap::Args;
use portolan_policy::api_key::{self, Hash};

use crate::exit::{Exit, Failure, note, print};

/// Make an API key and the Secret entry that admits it.
///
/// The key is printed once and stored nowhere. A gateway keeps only its SHA-256, from a Secret that
/// spec.authentication.apiKeys[].secretRef of the MCPGateway names.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portolan apikey --subject alice
  portolan apikey --subject ci -o json | jq -r .key")]
pub(crate) struct ApiKeyArgs {
    /// Who holds the key: the entry's name in the Secret, and the subject in policies and logs
    #[arg(long, default_value = "client", value_parser = subject)]
    subject: String,

    /// Name of the Secret in the printed YAML
    #[arg(long, default_value = "gateway-keys", value_parser = secret_name)]
    secret: String,

    /// Namespace of the Secret in the printed YAML: the gateway's
    #[arg(long, short, default_value = "default", value_parser = object_name)]
    namespace: String,

    /// Output format: `yaml` prints the Secret to stdout and the key to stderr, `json` both to stdout
    #[arg(long, short, default_value = "yaml")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Yaml,
    Json,
}

impl ApiKeyArgs {
    /// Whether failures are told as JSON.
    pub(crate) fn json(&self) -> bool {
        self.output == Output::Json
    }
}

/// A namespace: a DNS label, as the API server wants it.
fn object_name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=63).contains(&text.len()) && text.bytes().all(fits) && !text.starts_with('-') && !text.ends_with('-') {
        Ok(text.to_owned())
    } else {
        Err("write lower-case letters, digits and '-', such as team-a".into())
    }
}

/// A Secret's name: DNS labels joined by dots.
fn secret_name(text: &str) -> Result<String, String> {
    if text.len() <= 253 && text.split('.').all(|label| object_name(label).is_ok()) {
        Ok(text.to_owned())
    } else {
        Err("write lower-case letters, digits, '-' and '.', such as gateway-keys".into())
    }
}

/// A Secret's key: the API server takes nothing else.
fn subject(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=253).contains(&text.len()) && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("it names an entry of a Secret: write letters, digits, '-', '_' and '.'".into())
    }
}

pub(crate) fn run(args: &ApiKeyArgs) -> Result<(), Failure> {
    let key = api_key::generate().map_err(|error| Failure::new(Exit::Negative, error.to_string()))?;
    let hash = Hash::of(&key).to_string();
    let ApiKeyArgs { subject, secret, namespace, output } = args;
    match output {
        Output::Json => {
            let line = serde_json::json!({"subject": subject, "key": key, "sha256": hash});
            print(&format!("{line}\n"))
        }
        Output::Yaml => {
            note(&format!("The key of {subject}, shown once: {key}"));
            note("Callers send it as `Authorization: Bearer <key>`. Apply this beside the gateway:");
            // In quotes: some names, such as `on` or `1e3`, would be no text in YAML.
            print(&format!(
                "apiVersion: v1\nkind: Secret\nmetadata:\n  name: \"{secret}\"\n  namespace: \"{namespace}\"\n\
                 stringData:\n  \"{subject}\": \"{hash}\"\n"
            ))
        }
    }
}
