//! Why a pod does not answer, from what the kubelet and the bridge in it say. Pure.
//!
//! A diagnosis says the same while the cause is the same: it leaves out the kubelet's back-off times, and a container
//! that is being restarted is judged by how it ended.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodSpec},
};
use portolan_crds::conditions::reasons;
use portolan_mcp::wire::{ProbeReason, ProbeStatus};

use super::{
    build::{RELAY, SERVER},
    observed::{is_condition, server_container},
};
use crate::{loaded::Complaint, refusal::refusal};

/// Longest piece of a server's output in a message, in characters.
const QUOTE_CHARS: usize = 240;

/// A cause, in the words of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Diagnosis {
    /// Condition reason.
    pub(super) reason: &'static str,
    /// What is wrong with which pod, and the command that shows more.
    pub(super) message: String,
}

/// The most telling cause among `pods` that do not answer, each with what its probe found; `None` when there are none.
pub(super) fn worst<'a>(pods: impl Iterator<Item = (&'a Pod, Option<&'a ProbeStatus>)>) -> Option<Diagnosis> {
    pods.filter(|(pod, _)| pod.metadata.deletion_timestamp.is_none())
        .map(|(pod, found)| diagnose(pod, found))
        // Pods come by name, and the first of equals is taken: the answer does not depend on chance.
        .min_by_key(|diagnosis| diagnosis.reason == reasons::PENDING)
}

/// What gateways say of pods whose probes are answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failing {
    /// Their calls are answered, or nobody calls.
    None,
    /// Calls fail one after the other at some of them; what there is to say.
    Some(String),
    /// They do at each of them.
    All(Diagnosis),
}

/// What gateways say of `pods`, each with what one of them says.
pub(super) fn failing<'a>(pods: impl Iterator<Item = (&'a Pod, Option<&'a Complaint>)>) -> Failing {
    let pods: Vec<_> = pods.collect();
    let mut failing = pods.iter().filter_map(|(pod, complaint)| Some((*pod, (*complaint)?)));
    let Some((pod, Complaint { replica, gateway, kind })) = failing.next() else { return Failing::None };
    let others = failing.count();
    let (namespace, name) = name_of(pod);
    let more = if others == 0 { String::new() } else { format!(" and {others} more") };
    let told = format!("calls fail one after the other ({kind}), says replica {replica} of gateway {gateway}");
    if others + 1 < pods.len() {
        return Failing::Some(format!("at pod {name}{more} {told}, which sends nothing new there for now"));
    }
    let logs = format!("kubectl logs -n {namespace} {name} -c {}", log_of(pod));
    let message = format!("pod {name}{more}: checks are answered, and {told}; calls still go there; see {logs}");
    Failing::All(Diagnosis { reason: reasons::CALLS_FAIL, message })
}

fn name_of(pod: &Pod) -> (&str, &str) {
    let metadata = &pod.metadata;
    (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// The container whose log tells of the server.
fn log_of(pod: &Pod) -> &str {
    server_container(pod).map_or(SERVER, |status| status.name.as_str())
}

/// Why a Deployment has no pods, when the API server refuses them.
pub(super) fn refused(deployment: &Deployment) -> Option<Diagnosis> {
    refusal(deployment).map(|message| Diagnosis { reason: reasons::FORBIDDEN, message })
}

/// Why one pod does not answer.
pub(super) fn diagnose(pod: &Pod, found: Option<&ProbeStatus>) -> Diagnosis {
    let probed = || found.and_then(probe);
    let found = unscheduled(pod)
        .or_else(|| waiting(pod))
        .or_else(|| ended(pod))
        .or_else(|| probed().filter(|found| found.reason != ProbeReason::Unreachable.as_str()))
        .or_else(|| ended_before(pod))
        .or_else(probed)
        .unwrap_or_else(starting);
    let (namespace, name) = name_of(pod);
    let command = match found.look {
        Look::Describe => format!("kubectl describe pod -n {namespace} {name}"),
        Look::Logs => format!("kubectl logs -n {namespace} {name} -c {}", log_of(pod)),
    };
    Diagnosis { reason: found.reason, message: format!("pod {name}: {}; see {command}", found.what) }
}

/// A cause before it is put into a sentence.
struct Found {
    reason: &'static str,
    what: String,
    look: Look,
}

/// What shows more.
enum Look {
    Describe,
    Logs,
}

fn starting() -> Found {
    Found { reason: reasons::PENDING, what: "it is starting".into(), look: Look::Describe }
}

fn unscheduled(pod: &Pod) -> Option<Found> {
    if !is_condition(pod, "PodScheduled", "False") {
        return None;
    }
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
    let what = format!("no node takes it: {}", condition.message.as_deref().unwrap_or("the scheduler gives no reason"));
    Some(Found { reason: reasons::POD_NOT_SCHEDULED, what, look: Look::Describe })
}

/// A container that the kubelet cannot start.
fn waiting(pod: &Pod) -> Option<Found> {
    all_containers(pod).find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let message = waiting.message.as_deref().unwrap_or_default();
        let describe = |reason, what| Some(Found { reason, what, look: Look::Describe });
        match waiting.reason.as_deref()? {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "ErrImageNeverPull"
            | "InvalidImageName"
            | "ImageInspectError"
            | "RegistryUnavailable" => describe(
                reasons::IMAGE_PULL_FAILED,
                format!("image {} cannot be pulled: {}", image(pod, status), pull_cause(message)),
            ),
            "CreateContainerConfigError" => describe(
                reasons::CONTAINER_CONFIG_ERROR,
                format!("container {} cannot be made: {message}", status.name),
            ),
            "CreateContainerError" | "RunContainerError" => {
                describe(reasons::SPAWN_FAILED, format!("container {} cannot be started: {message}", status.name))
            }
            _ => None,
        }
    })
}

/// `Back-off pulling image "x": ErrImagePull: CAUSE` and `CAUSE` are one cause.
fn pull_cause(message: &str) -> &str {
    const MARK: &str = "ErrImagePull: ";
    message.find(MARK).map_or(message, |at| &message[at + MARK.len()..])
}

/// The image as the spec has it: the kubelet's own name for it may be a digest.
fn image(pod: &Pod, status: &ContainerStatus) -> String {
    let of = |spec: &PodSpec| {
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        containers.filter(|container| container.name == status.name).find_map(|container| container.image.clone())
    };
    pod.spec.as_ref().and_then(of).unwrap_or_else(|| status.image.clone())
}

/// A container that is not running now and has run.
fn ended(pod: &Pod) -> Option<Found> {
    all_containers(pod).find_map(|status| {
        let state = status.state.as_ref()?;
        if let Some(terminated) = &state.terminated {
            let is_done = is_init(pod, status) && terminated.exit_code == 0;
            return (!is_done).then(|| end(status, terminated));
        }
        state.waiting.as_ref().and_then(|_| last_end(status))
    })
}

/// How a container that was started again had ended.
fn ended_before(pod: &Pod) -> Option<Found> {
    server_container(pod).and_then(last_end)
}

fn last_end(status: &ContainerStatus) -> Option<Found> {
    let terminated = status.last_state.as_ref().and_then(|state: &ContainerState| state.terminated.as_ref())?;
    Some(end(status, terminated))
}

fn end(status: &ContainerStatus, terminated: &ContainerStateTerminated) -> Found {
    let message = terminated.message.as_deref().unwrap_or_default();
    let name = &status.name;
    match terminated.reason.as_deref() {
        Some("StartError" | "ContainerCannotRun") => Found {
            reason: reasons::SPAWN_FAILED,
            what: format!("container {name} cannot be started: {message}"),
            look: Look::Describe,
        },
        Some("OOMKilled") => Found {
            reason: reasons::SERVER_EXITED,
            what: format!(
                "container {name} used more memory than its limit and was killed: {}",
                if name == RELAY {
                    "lower spec.sessions.maxPerReplica"
                } else {
                    "raise spec.container.resources.limits.memory"
                }
            ),
            look: Look::Logs,
        },
        _ => {
            let how = match terminated.signal.filter(|signal| *signal != 0) {
                Some(signal) => format!("was ended by signal {signal}"),
                None => format!("exited with code {}", terminated.exit_code),
            };
            Found {
                reason: reasons::SERVER_EXITED,
                what: format!("container {name} {how}{}", last_words(message)),
                look: Look::Logs,
            }
        }
    }
}

/// What the kept probe session found.
fn probe(found: &ProbeStatus) -> Option<Found> {
    let reason = found.reason?;
    Some(Found { reason: reason.as_str(), what: found.message.clone(), look: Look::Logs })
}

/// The bridge leaves its reason as JSON; of another process the kubelet keeps the last output.
fn last_words(output: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Termination {
        message: String,
    }
    if let Ok(Termination { message }) = serde_json::from_str(output) {
        return format!(": {message}");
    }
    match output.lines().rev().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => format!("; its last line: {}", line.chars().take(QUOTE_CHARS).collect::<String>()),
        None => " and wrote nothing".into(),
    }
}

fn all_containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let main = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    init.iter().chain(main)
}

fn is_init(pod: &Pod, status: &ContainerStatus) -> bool {
    let init = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    init.iter().any(|other| std::ptr::eq(other, status))
}

#[cfg(test)]
mod tests;
