//! A toolset as it is served: which servers are together, and which tools of them have which names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube::ResourceExt;
use portolan_crds::{MCPToolset, MCPToolsetSpec, toolset::ToolsetTool};
use portolan_mcp::aggregate::Selection;

use crate::inputs::Inputs;
use crate::select;
use crate::snapshot::{ObjectVersion, Route, RouteName, Snapshot};

/// Some servers as one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolset {
    /// `namespace/name`.
    pub name: RouteName,
    /// The object that this was made from.
    pub version: ObjectVersion,
    /// What is shown of which server.
    pub selection: Selection,
    /// What a client is told when it connects.
    pub instructions: Option<Box<str>>,
}

impl Toolset {
    /// All that the server `name` has, under its own names.
    pub(crate) fn alone(name: RouteName, version: ObjectVersion) -> Self {
        Self { selection: Selection::alone(name.as_str()), name, version, instructions: None }
    }
}

/// What is wrong with a toolset, each with what is done about it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ToolsetProblem {
    /// This release does not know the object's shape: its last good version stays.
    #[error("the object cannot be read by this gateway's release: {0}")]
    Unreadable(String),
    /// Not an object that an API server made.
    #[error("the object has no metadata.uid")]
    NoIdentity,
    /// Two tools have one name: the last good version stays.
    #[error("{} are both shown as {shown:?}; write another `as` for one of them", tools.join(" and "))]
    SameName {
        /// The name.
        shown: String,
        /// The tools as `server/tool`.
        tools: Vec<String>,
    },
    /// The others are served without it.
    #[error(
        "spec.servers names {server:?}, which is not served here; name an MCPServer of namespace {namespace:?} that this gateway selects"
    )]
    NoServer {
        /// The toolset's namespace.
        namespace: String,
        /// The server's name.
        server: String,
    },
}

impl ToolsetProblem {
    /// A word for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "Unreadable",
            Self::NoIdentity => "NoIdentity",
            Self::SameName { .. } => "SameName",
            Self::NoServer { .. } => "NoServer",
        }
    }

    /// Whether the latest version is not served because of it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::NoServer { .. })
    }
}

/// What is wrong with a toolset of `namespace` where `is_served` says which servers of that there are.
#[must_use]
pub fn problems(namespace: &str, spec: &MCPToolsetSpec, is_served: impl Fn(&str) -> bool) -> Vec<ToolsetProblem> {
    let same = spec.collisions().into_iter().map(|(shown, tools)| ToolsetProblem::SameName {
        shown: shown.to_owned(),
        tools: tools.into_iter().map(|(server, tool)| format!("{server}/{tool}")).collect(),
    });
    let absent = spec
        .servers
        .iter()
        .filter(|server| !is_served(&server.name))
        .map(|server| ToolsetProblem::NoServer { namespace: namespace.to_owned(), server: server.name.clone() });
    same.chain(absent).collect()
}

/// The toolset `name` as the object says it, of which nothing is wrong that forbids it.
fn toolset(name: RouteName, object: &MCPToolset) -> Result<Toolset, ToolsetProblem> {
    let uid = object.metadata.uid.as_deref().ok_or(ToolsetProblem::NoIdentity)?;
    let namespace = name.target().namespace;
    let mut selection = Selection::default();
    for server in &object.spec.servers {
        let tools = server.tools.as_ref().map(|tools| {
            let tool = |tool: &ToolsetTool| (tool.name.clone(), tool.shown_as.clone());
            tools.iter().map(tool).collect::<BTreeMap<_, _>>()
        });
        selection.add(RouteName::new(namespace, &server.name).as_str(), tools);
    }
    let version = ObjectVersion { uid: uid.into(), generation: object.metadata.generation.unwrap_or_default() };
    Ok(Toolset { version, selection, instructions: object.spec.instructions.as_deref().map(Into::into), name })
}

/// Every toolset of `inputs` with what is wrong with it, where `routes` are served. A server selector that cannot be read is
/// told of elsewhere, and chooses no toolset either.
pub(crate) fn toolsets(
    inputs: &Inputs,
    previous: Option<&Snapshot>,
    routes: &HashMap<RouteName, Arc<Route>>,
    found: &mut BTreeMap<RouteName, Vec<ToolsetProblem>>,
) -> HashMap<RouteName, Arc<Toolset>> {
    let selection = &inputs.gateway.spec.servers;
    let is_selected =
        |namespace: &str| select::selects_namespace(selection, &inputs.namespaces, namespace).unwrap_or(false);
    let mut toolsets = HashMap::with_capacity(inputs.toolsets.len());
    for object in inputs.toolsets.iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
        let Some(namespace) = object.namespace().filter(|namespace| is_selected(namespace)) else { continue };
        let name = RouteName::new(&namespace, &object.name_any());
        let is_served = |server: &str| routes.contains_key(&RouteName::new(&namespace, server));
        let mut problems = problems(&namespace, &object.spec, is_served);
        let latest = if problems.iter().any(ToolsetProblem::is_fatal) {
            None
        } else {
            toolset(name.clone(), object).map_err(|problem| problems.push(problem)).ok().map(Arc::new)
        };
        if let Some(toolset) = latest.or_else(|| last_of(previous, &name, object.metadata.uid.as_deref())) {
            toolsets.insert(name.clone(), toolset);
        }
        if !problems.is_empty() {
            found.insert(name, problems);
        }
    }
    for unreadable in inputs.unreadable_toolsets.iter().filter(|object| is_selected(&object.namespace)) {
        let name = RouteName::new(&unreadable.namespace, &unreadable.name);
        if let Some(last) = last_of(previous, &name, unreadable.uid.as_deref()) {
            toolsets.insert(name.clone(), last);
        }
        found.insert(name, vec![ToolsetProblem::Unreadable(unreadable.message.clone())]);
    }
    toolsets
}

/// The toolset as it was served last. Another object of the same name is not an earlier version of this one.
fn last_of(previous: Option<&Snapshot>, name: &RouteName, uid: Option<&str>) -> Option<Arc<Toolset>> {
    let last = previous?.toolsets.get(name)?;
    (Some(&*last.version.uid) == uid).then(|| last.clone())
}
