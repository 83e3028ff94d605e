//! What the reads of one reconcile found. Everything after them is a function of this.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, ContainerStatus, Pod},
};
use portolan_canary::BadCheck;
use portolan_crds::{conditions::reasons, labels};
use portolan_mcp::{
    mac::KEY_LEN,
    wire::{ProbeState, ProbeStatus},
};

use super::{
    build::{
        self, BRIDGE, DRAINING_SINCE, RELAY, RELEASE, ROLL, ROLLED_BACK, SERVER, SERVING_SINCE, STEP, STEP_SINCE,
        annotation,
    },
    diagnosis::{self, Failing},
    references::Kind,
    rollout::{Existing, MadeBy, Step},
    tool_changes::{Changes, ToolSet},
};
use crate::{
    analysis::Known,
    canaries::{Fault, Standing},
    loaded::{Complaint, Programmed, Sending},
};

/// The bytes of a MAC key; never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mac(pub(super) [u8; KEY_LEN]);

impl fmt::Debug for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Mac(..)")
    }
}

/// What the reads found.
#[derive(Debug)]
pub(super) struct Observed {
    /// ConfigMaps and Secrets that the spec names; `None` for one that does not exist.
    pub(super) contents: BTreeMap<(Kind, String), Option<Content>>,
    /// Access modes of the claims that the spec names; `None` for one that does not exist.
    pub(super) claims: BTreeMap<String, Option<Vec<String>>>,
    /// The MAC key: the one there is, or a new one.
    pub(super) mac: Mac,
    /// Deployments of the server's revisions, without those on their way out.
    pub(super) deployments: Vec<Deployment>,
    /// Autoscalers of its revisions; none where what pods use does not decide.
    pub(super) autoscalers: Vec<HorizontalPodAutoscaler>,
    /// The templates that were kept of its revisions.
    pub(super) templates: Vec<ControllerRevision>,
    /// The server's pods, those that are going away too, by name.
    pub(super) pods: Vec<Pod>,
    /// What the probe of each pod found last, by the pod's uid. One that was not asked, or has not answered, is absent.
    pub(super) probes: BTreeMap<String, ProbeStatus>,
    /// Tool definitions that are stored.
    pub(super) tools: Vec<ConfigMap>,
    /// Tool definitions that are to be stored, by revision.
    pub(super) definitions: BTreeMap<String, Definitions>,
    /// The server's URL at each gateway that selects it, by `namespace/name` of the gateway.
    pub(super) endpoints: Vec<(String, String)>,
    /// Whether gateways serve the server as it is now, by where they were asked to send new sessions.
    pub(super) programmed: BTreeMap<Sending, Programmed>,
    /// What gateways say of pods whose calls fail one after the other, by uid of the pod.
    pub(super) failing: BTreeMap<String, Complaint>,
    /// Where pods stand with their known-answer checks, by uid; a check that cannot be made; `None` where the spec has none.
    pub(super) canaries: Option<Result<BTreeMap<String, Standing>, BadCheck>>,
    /// What was found of a revision that takes a share of new sessions.
    pub(super) compared: Known,
    /// How many pods the server is to have.
    pub(super) replicas: i32,
    /// When the reads began.
    pub(super) now: Timestamp,
}

/// The content of a ConfigMap or Secret, as far as anyone here needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// Its keys.
    pub(super) keys: BTreeSet<String>,
    /// Digest of keys and values.
    pub(super) digest: [u8; 32],
}

/// Tool definitions of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definitions {
    /// The bridge's hash of them.
    pub(super) hash: String,
    /// A JSON array.
    pub(super) json: String,
}

impl Observed {
    /// The revisions as the rollout sees them.
    pub(super) fn revisions(&self) -> Vec<Existing> {
        self.deployments.iter().filter_map(|deployment| self.revision(deployment)).collect()
    }

    /// The Deployment of a revision.
    pub(super) fn deployment(&self, revision: &str) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| deployment.metadata.name.as_deref() == Some(revision))
    }

    /// The autoscaler of a revision.
    pub(super) fn autoscaler(&self, revision: &str) -> Option<&HorizontalPodAutoscaler> {
        self.autoscalers.iter().find(|autoscaler| autoscaler.metadata.name.as_deref() == Some(revision))
    }

    /// The template that was kept of a revision.
    pub(super) fn template(&self, revision: &str) -> Option<&ControllerRevision> {
        self.templates.iter().find(|template| template.metadata.name.as_deref() == Some(revision))
    }

    /// Pods of a revision by name.
    pub(super) fn pods_of<'a>(&'a self, revision: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.pods.iter().filter(move |pod| revision_of(pod) == Some(revision))
    }

    /// Pods that run and belong to no revision there is.
    pub(super) fn strays(&self) -> impl Iterator<Item = &Pod> {
        let is_known = |pod: &Pod| revision_of(pod).is_some_and(|revision| self.deployment(revision).is_some());
        self.pods.iter().filter(move |pod| !has_ended(pod) && !is_known(pod))
    }

    /// What the probe of a pod found last.
    pub(super) fn probe(&self, pod: &Pod) -> Option<&ProbeStatus> {
        self.probes.get(pod.metadata.uid.as_deref()?)
    }

    /// Whether the server in the pod answers: it takes sessions, and its probe, which knows before the kubelet, has found nothing
    /// else.
    pub(super) fn answers(&self, pod: &Pod) -> bool {
        takes_sessions(pod) && self.probe(pod).is_none_or(|probe| probe.state != ProbeState::Failing)
    }

    /// Whether the server in the pod answers what it is known to have to answer, as far as that is asked.
    pub(super) fn is_verified(&self, pod: &Pod) -> bool {
        match &self.canaries {
            None => self.answers(pod),
            Some(_) => self.answers(pod) && self.standing(pod) == Some(&Standing::Passed),
        }
    }

    /// Where a pod stands with its known-answer checks, while they are made.
    pub(super) fn standing(&self, pod: &Pod) -> Option<&Standing> {
        self.canaries.as_ref()?.as_ref().ok()?.get(pod.metadata.uid.as_deref()?)
    }

    /// How the tools of the revision `to` differ from those of `from` where someone may rely on those.
    pub(super) fn tool_changes(&self, from: &str, to: &str) -> Option<Changes> {
        let hashes = (self.tools_hash(from), self.tools_hash(to));
        if hashes.0.is_some() && hashes.0 == hashes.1 {
            return None;
        }
        match (self.tool_set(from), self.tool_set(to)) {
            // Nobody relies on what there is not, or what nobody knows.
            (Some(before), _) if before.is_empty() => None,
            (None, _) if hashes.0.is_none() => None,
            (Some(before), Some(after)) => before.changes(&after),
            _ if hashes.1.is_some() => Some(Changes::TooMany),
            _ => Some(Changes::Unknown),
        }
    }

    /// The hash of a revision's definitions.
    fn tools_hash(&self, revision: &str) -> Option<&str> {
        let fresh = self.definitions.get(revision).map(|definitions| definitions.hash.as_str());
        fresh.or_else(|| build::stored_hash(self.stored_tools(revision)?))
    }

    fn stored_tools(&self, revision: &str) -> Option<&ConfigMap> {
        let name = build::tools_name(revision);
        self.tools.iter().find(|stored| stored.metadata.name.as_ref() == Some(&name))
    }

    /// The tools of a revision, as far as they are known.
    fn tool_set(&self, revision: &str) -> Option<ToolSet> {
        if let Some(definitions) = self.definitions.get(revision) {
            return ToolSet::parse(&definitions.json);
        }
        let has_none = |probe: &ProbeStatus| probe.state == ProbeState::Ready && probe.tools.is_none();
        self.stored_tools(revision).and_then(ToolSet::stored).or_else(|| {
            let mut probes = self.pods_of(revision).filter_map(|pod| self.probe(pod));
            probes.any(has_none).then(ToolSet::default)
        })
    }

    /// Pods of a revision that answer their probes, and fail known-answer checks.
    pub(super) fn failing_checks<'a>(&'a self, revision: &'a str) -> impl Iterator<Item = (&'a Pod, &'a [Fault])> {
        let faults = |pod: &'a Pod| Some((pod, self.standing(pod)?.faults())).filter(|(_, faults)| !faults.is_empty());
        self.pods_of(revision).filter(|pod| self.answers(pod)).filter_map(faults)
    }

    /// Whether the Deployment of a revision gave up waiting for its pods.
    pub(super) fn has_given_up(&self, revision: &str) -> bool {
        self.deployment(revision).is_some_and(gave_up)
    }

    /// What is wrong with a revision that takes calls, besides what the calls tell: that none of its pods answers, or none of them calls.
    pub(super) fn trouble(&self, revision: &str) -> Option<String> {
        match diagnosis::failing(self.answering(revision)) {
            Failing::All(diagnosis) => Some(diagnosis.message),
            _ if self.answering(revision).next().is_none() => {
                let silent = self.pods_of(revision).map(|pod| (pod, self.probe(pod)));
                // What only comes up is no trouble.
                let why = diagnosis::worst(silent).filter(|why| why.reason != reasons::PENDING)?;
                Some(format!("none of its replicas answers: {}", why.message))
            }
            _ => None,
        }
    }

    /// Pods of a revision that answer as far as their probes know, each with what a gateway says of it where calls fail.
    pub(super) fn answering<'a>(&'a self, revision: &'a str) -> impl Iterator<Item = (&'a Pod, Option<&'a Complaint>)> {
        let complaint = |pod: &Pod| self.failing.get(pod.metadata.uid.as_deref()?);
        self.pods_of(revision).filter(|pod| self.answers(pod)).map(move |pod| (pod, complaint(pod)))
    }

    /// Whether gateways send new sessions there.
    pub(super) fn programmed(&self, sending: &Sending) -> Programmed {
        match self.programmed.get(sending) {
            Some(programmed) => programmed.clone(),
            None if self.endpoints.is_empty() => Programmed::NoGateway,
            None => Programmed::Waiting("no gateway replica knows yet which revision serves".into()),
        }
    }

    fn revision(&self, deployment: &Deployment) -> Option<Existing> {
        let name = deployment.metadata.name.clone()?;
        let time = |key| annotation(deployment, key).and_then(|text| text.parse().ok());
        let pods: Vec<_> = self.pods_of(&name).filter(|pod| !has_ended(pod)).collect();
        let refuted = self.failing_checks(&name).next().is_some();
        Some(Existing {
            generation: annotation(deployment, labels::GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0),
            made_by: MadeBy {
                release: annotation(deployment, RELEASE).map(str::to_owned),
                is_roll: annotation(deployment, ROLL).is_some(),
            },
            serving_since: time(SERVING_SINCE),
            draining_since: time(DRAINING_SINCE),
            step: step(deployment),
            rolled_back: annotation(deployment, ROLLED_BACK).map(str::to_owned),
            replicas: deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
            verified: count(pods.iter().filter(|pod| self.is_verified(pod)).count()),
            refuted,
            pods: count(pods.len()),
            idle: is_idle(deployment),
            gave_up: gave_up(deployment),
            name,
        })
    }
}

fn step(deployment: &Deployment) -> Option<Step> {
    let index = annotation(deployment, STEP)?.parse().ok()?;
    Some(Step { index, since: annotation(deployment, STEP_SINCE)?.parse().ok()? })
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The revision that a pod belongs to.
pub(super) fn revision_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(labels::REVISION).map(String::as_str)
}

/// Whether the pod is ready and not told to end.
pub(super) fn takes_sessions(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && is_condition(pod, "Ready", "True")
}

/// Whether all of the pod's containers have ended for good.
pub(super) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the pod has that condition with that status.
pub(super) fn is_condition(pod: &Pod, type_: &str, status: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == type_ && condition.status == status)
}

/// Whether a bridge runs in the pod, so that it can be asked.
pub(super) fn runs_bridge(pod: &Pod) -> bool {
    let Some(container) = bridge_container(pod) else { return false };
    container.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// The container that the bridge runs in: its own beside an HTTP server, the relay's, the server's otherwise.
fn bridge_container(pod: &Pod) -> Option<&ContainerStatus> {
    container(pod, BRIDGE).or_else(|| server_container(pod))
}

/// The container whose log tells of the server: its own, or its relay's.
pub(super) fn server_container(pod: &Pod) -> Option<&ContainerStatus> {
    container(pod, SERVER).or_else(|| container(pod, RELAY))
}

/// The status of a container that is no init container.
pub(super) fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let containers = pod.status.as_ref()?.container_statuses.as_deref()?;
    containers.iter().find(|container| container.name == name)
}

/// Whether the Deployment's controller has seen its spec as it is, and counts no pods.
fn is_idle(deployment: &Deployment) -> bool {
    let status = deployment.status.as_ref();
    let seen = status.and_then(|status| status.observed_generation).unwrap_or_default();
    let pods = status.and_then(|status| status.replicas).unwrap_or_default();
    seen >= deployment.metadata.generation.unwrap_or_default() && pods == 0
}

fn gave_up(deployment: &Deployment) -> bool {
    let conditions = deployment.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| {
        condition.type_ == "Progressing" && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
    })
}

#[cfg(test)]
mod tests;
