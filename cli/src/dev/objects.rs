//! Documents as API objects: what `kubectl apply` would make of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::CustomResourceExt;
use portolan_crds::{API_VERSION, MCPGateway, MCPServer, MCPToolset, admission};
use serde_json::Value;

use super::problem::{Origin, Problem};
use super::suggest;
use super::yaml::{self, Document};

/// The namespace of an object that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Name {
    /// The object called `name` in the same namespace.
    pub(super) fn sibling(&self, name: &str) -> Self {
        Self { namespace: self.namespace.clone(), name: name.to_owned() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One object of one file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its name.
    pub(super) name: Name,
    /// Where it was written.
    pub(super) origin: Origin,
    /// The object as written, without defaults.
    pub(super) written: Value,
    /// The object itself.
    pub(super) object: Object,
}

/// The kinds that are read.
#[derive(Clone, Debug)]
pub(super) enum Object {
    Server(Box<MCPServer>),
    Gateway(Box<MCPGateway>),
    Toolset(Box<MCPToolset>),
    Secret(Data),
    ConfigMap(Data),
}

/// Contents of a Secret or ConfigMap, by key.
pub(super) type Data = BTreeMap<String, Vec<u8>>;

impl Object {
    /// The kind's name.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Server(_) => "MCPServer",
            Self::Gateway(_) => "MCPGateway",
            Self::Toolset(_) => "MCPToolset",
            Self::Secret(_) => "Secret",
            Self::ConfigMap(_) => "ConfigMap",
        }
    }
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    /// Objects of the kinds that are read.
    pub(super) entries: Vec<Entry>,
    /// Documents of other kinds.
    pub(super) ignored: Vec<Problem>,
}

/// Reads the objects of `text`, which stands in `file`.
pub(super) fn read(file: &Arc<Path>, text: &str) -> Result<Contents, Vec<Problem>> {
    let documents = yaml::parse(text).map_err(|error| {
        vec![Problem { file: file.clone(), line: error.line, path: String::new(), message: error.message }]
    })?;
    let mut contents = Contents::default();
    let mut problems = Vec::new();
    for Document { value, lines } in documents {
        let origin = Origin { file: file.clone(), lines };
        match entry(origin, value) {
            Ok(Read::Entry(entry)) => contents.entries.push(*entry),
            Ok(Read::Ignored(problem)) => contents.ignored.push(problem),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(contents) } else { Err(problems) }
}

enum Read {
    Entry(Box<Entry>),
    Ignored(Problem),
}

fn entry(origin: Origin, value: Value) -> Result<Read, Vec<Problem>> {
    let Some(kind) = value["kind"].as_str() else {
        return Err(vec![origin.problem("kind", "every document needs a kind, such as MCPServer")]);
    };
    let object = match kind {
        "MCPServer" => Object::Server(Box::new(admit::<MCPServer>(&origin, &value)?)),
        "MCPGateway" => Object::Gateway(Box::new(admit::<MCPGateway>(&origin, &value)?)),
        "MCPToolset" => Object::Toolset(Box::new(admit::<MCPToolset>(&origin, &value)?)),
        "Secret" => Object::Secret(secret(&origin, &value)?),
        "ConfigMap" => Object::ConfigMap(config_map(&origin, &value)?),
        other => {
            let message =
                format!("{other} is ignored: dev reads MCPServer, MCPToolset, MCPGateway, Secret and ConfigMap");
            return Ok(Read::Ignored(origin.problem("kind", message)));
        }
    };
    let metadata = &value["metadata"];
    let Some(name) = metadata["name"].as_str().filter(|name| !name.is_empty()) else {
        return Err(vec![origin.problem("metadata.name", "Required value")]);
    };
    let namespace = match &metadata["namespace"] {
        Value::Null => DEFAULT_NAMESPACE,
        Value::String(namespace) if is_dns_label(namespace) => namespace,
        _ => {
            let message = "write a namespace of lower-case letters, digits and '-', such as team-a";
            return Err(vec![origin.problem("metadata.namespace", message)]);
        }
    };
    let name = Name { namespace: namespace.to_owned(), name: name.to_owned() };
    Ok(Read::Entry(Box::new(Entry { name, origin, written: value, object })))
}

/// It stands in the path of an endpoint, so it is held to what Kubernetes allows.
fn is_dns_label(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(fits) && !text.starts_with('-') && !text.ends_with('-')
}

fn admit<K>(origin: &Origin, value: &Value) -> Result<K, Vec<Problem>>
where
    K: CustomResourceExt + serde::de::DeserializeOwned,
{
    if value["apiVersion"] != API_VERSION {
        return Err(vec![origin.problem("apiVersion", format!("write apiVersion: {API_VERSION}"))]);
    }
    admission::admit(value).map_err(|rejected| {
        let problem = |violation: admission::Violation| match suggest::unknown_field::<K>(&violation) {
            Some((path, message)) => origin.problem(&path, message),
            None => match violation.message.split_once(' ') {
                // A rule about the whole object names its field in words: that is the line to show.
                Some((field, message)) if violation.path.is_empty() && origin.lines.has(field) => {
                    origin.problem(field, message)
                }
                _ => origin.problem(&violation.path, violation.message),
            },
        };
        rejected.0.into_iter().map(problem).collect()
    })
}

fn secret(origin: &Origin, value: &Value) -> Result<Data, Vec<Problem>> {
    known_fields(origin, value, &["data", "stringData", "type", "immutable"])?;
    let secret: Secret = core_object(origin, value)?;
    let mut data: Data = secret.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0)).collect();
    // As at the API server: what is written as text wins.
    data.extend(secret.string_data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes())));
    Ok(data)
}

fn config_map(origin: &Origin, value: &Value) -> Result<Data, Vec<Problem>> {
    known_fields(origin, value, &["data", "binaryData", "immutable"])?;
    let map: ConfigMap = core_object(origin, value)?;
    let text = map.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
    let binary = map.binary_data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0));
    Ok(text.chain(binary).collect())
}

fn known_fields(origin: &Origin, value: &Value, known: &[&str]) -> Result<(), Vec<Problem>> {
    let known: Vec<&str> = ["apiVersion", "kind", "metadata"].iter().chain(known).copied().collect();
    let unknown = value.as_object().into_iter().flatten().filter(|(name, _)| !known.contains(&name.as_str()));
    let problems: Vec<Problem> =
        unknown.map(|(name, _)| origin.problem(name, suggest::message(name, known.iter().copied()))).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn core_object<T: serde::de::DeserializeOwned>(origin: &Origin, value: &Value) -> Result<T, Vec<Problem>> {
    if value["apiVersion"] != "v1" {
        return Err(vec![origin.problem("apiVersion", "write apiVersion: v1")]);
    }
    // The message names types, never values: they may be someone's password.
    serde_json::from_value(value.clone()).map_err(|_| {
        let message = "data holds base64, stringData and a ConfigMap's data hold text in quotes, each by key";
        vec![origin.problem("data", message)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Contents, Vec<String>> {
        let file: Arc<Path> = Path::new("a.yaml").into();
        read(&file, text).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    const SERVER: &str = "\
apiVersion: portolan.dev/v1alpha1
kind: MCPServer
metadata:
  name: a
spec:
  container:
    image: registry.example/a:1
    transport: Stdio
    command: [a]
";

    #[test]
    fn an_object_without_a_namespace_is_in_default_and_has_the_api_servers_defaults() {
        let contents = read_text(SERVER).expect("valid");
        assert_eq!(contents.entries[0].name.to_string(), "default/a");
        let Object::Server(server) = &contents.entries[0].object else { panic!("a server") };
        assert_eq!(server.spec.sessions.max_per_replica(), 64);
    }

    #[test]
    fn a_misspelt_field_is_named_with_its_line_and_the_one_that_was_meant() {
        let problems = read_text(&SERVER.replace("command:", "comand:")).expect_err("unknown field");
        assert!(
            problems
                .iter()
                .any(|problem| problem == "a.yaml:9: spec.container.comand: unknown field; did you mean command?"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_broken_rule_is_told_with_file_line_path_and_what_to_write() {
        let problems = read_text(&SERVER.replace("    command: [a]\n", "")).expect_err("no command");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("a.yaml:6: spec.container.command: Stdio needs"), "{problems:?}");
    }

    #[test]
    fn a_kind_that_dev_does_not_read_is_told_once_and_harms_nothing() {
        let contents = read_text(&format!("{SERVER}---\napiVersion: apps/v1\nkind: Deployment\n")).expect("valid");
        assert_eq!((contents.entries.len(), contents.ignored.len()), (1, 1));
        assert!(contents.ignored[0].to_string().starts_with("a.yaml:12: kind: Deployment is ignored"));
    }

    #[test]
    fn a_secret_holds_base64_and_text_and_text_wins() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: YQ==, b: YQ==}\nstringData: {b: b}\n";
        let contents = read_text(text).expect("valid");
        let Object::Secret(data) = &contents.entries[0].object else { panic!("a secret") };
        assert_eq!(data["a"], b"a");
        assert_eq!(data["b"], b"b");
        let problems = read_text(&text.replace("stringData", "stringdata")).expect_err("unknown field");
        assert_eq!(problems, ["a.yaml:5: stringdata: unknown field; did you mean stringData?"]);
        assert!(read_text(&text.replace("YQ==", "?")).is_err());
    }
}
