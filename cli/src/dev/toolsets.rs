//! Toolsets of the files: as the gateway reads them, where they are served, and what is wrong with them.

use std::net::SocketAddr;

use portolan_crds::MCPToolset;
use portolan_snapshot::toolset::{self, ToolsetProblem};

use super::files::{Located, Objects};
use super::objects::Name;
use super::problem::Problem;

/// Every toolset as an API server would have it. One that is written anew under its name is the same object.
pub(super) fn objects(objects: &Objects) -> Vec<MCPToolset> {
    let object = |(name, located): (&Name, &Located<MCPToolset>)| {
        let mut toolset = located.object.clone();
        toolset.metadata.namespace = Some(name.namespace.clone());
        toolset.metadata.uid = Some(format!("toolset/{name}"));
        toolset.metadata.generation = Some(1);
        toolset
    };
    objects.toolsets.iter().map(object).collect()
}

/// What is wrong with toolsets that each file by itself is right about.
pub(super) fn problems(objects: &Objects) -> Vec<Problem> {
    objects.toolsets.iter().flat_map(|(name, located)| problems_of(name, located, objects)).collect()
}

fn problems_of(name: &Name, located: &Located<MCPToolset>, objects: &Objects) -> Vec<Problem> {
    let spec = &located.object.spec;
    let is_there = |server: &str| objects.servers.contains_key(&name.sibling(server));
    let at = |problem: &ToolsetProblem| match problem {
        ToolsetProblem::NoServer { server, .. } => {
            let index = spec.servers.iter().position(|listed| listed.name == *server).unwrap_or_default();
            let message = format!("the files have no MCPServer {}", name.sibling(server));
            located.origin.problem(&format!("spec.servers[{index}].name"), message)
        }
        other => located.origin.problem("spec.servers", other.to_string()),
    };
    toolset::problems(&name.namespace, spec, is_there).iter().map(at).collect()
}

/// Where each of them is served.
pub(super) fn endpoints(objects: &Objects, listen: SocketAddr) -> impl Iterator<Item = String> {
    objects
        .toolsets
        .keys()
        .map(move |name| format!("Toolset {name} is at http://{listen}/{}/toolsets/{}/mcp", name.namespace, name.name))
}
