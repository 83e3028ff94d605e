//! What a gateway's status says. Pure.

use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentStatus},
    core::v1::Pod,
};
use kube::ResourceExt;
use portolan_crds::{
    MCPGateway, MCPGatewayStatus,
    conditions::{reasons, types},
};

use super::{build::selector, child_name, dereference::Observed, url, validate::Validated};
use crate::{
    apply::{Applied, Resources},
    config::Config,
    refusal::refusal,
    status::{self, Fact, State},
};

/// The conditions that `Ready` needs, in the order in which they explain that it is not.
const REQUIRED: [&str; 5] =
    [types::ACCEPTED, types::RESOLVED_REFS, types::AVAILABLE, types::PROGRAMMED, types::PROGRESSING];

/// The status and the facts for its conditions.
pub(super) fn conclude(
    gateway: &MCPGateway,
    applied: &Resources<Applied>,
    validated: &Validated,
    observed: &Observed,
    config: &Config,
) -> (MCPGatewayStatus, Vec<Fact>) {
    let (namespace, name) = (applied.owner().namespace(), applied.owner().name());
    let deployment = applied.get::<Deployment>(&child_name(name)).unwrap_or_default();
    let counts = deployment.status.clone().unwrap_or_default();
    let wanted = gateway.spec.replicas;
    let rollout = rollout(&deployment, &counts, wanted);
    let mut facts = vec![
        validated.accepted.clone(),
        validated.resolved.clone(),
        available(&deployment, &counts, wanted, &observed.pods),
        programmed(gateway, observed),
    ];
    let ready = summarise(&facts, rollout.as_ref(), wanted);
    facts.push(match &rollout {
        Some(message) => Fact::yes(types::PROGRESSING, reasons::ROLLOUT_IN_PROGRESS, message.clone()),
        None => Fact::no(types::PROGRESSING, reasons::ROLLOUT_COMPLETE, "every pod runs the latest template"),
    });
    let broken = [&validated.accepted, &validated.resolved].into_iter().find(|fact| fact.state == State::False);
    facts.extend(match broken {
        Some(fact) => status::stuck(fact.reason, fact.message.clone()),
        None => status::progress((ready.state != State::True).then(|| (ready.reason, ready.message.clone()))),
    });
    facts.push(ready);
    let labels = selector(name).into_iter().map(|(label, value)| format!("{label}={value}"));
    let status = MCPGatewayStatus {
        replicas: counts.replicas.unwrap_or_default(),
        ready_replicas: counts.ready_replicas.unwrap_or_default(),
        selector: Some(labels.collect::<Vec<_>>().join(",")),
        servers: i32::try_from(observed.servers.len()).unwrap_or(i32::MAX),
        url: Some(url(config, namespace, name)),
        ..MCPGatewayStatus::default()
    };
    (status, facts)
}

/// `Progressing` is abnormal when true, so it counts towards `Ready` the other way round.
fn summarise(facts: &[Fact], rollout: Option<&String>, wanted: i32) -> Fact {
    let settled = match rollout {
        Some(message) => Fact::no(types::PROGRESSING, reasons::ROLLOUT_IN_PROGRESS, message.clone()),
        None => Fact::yes(types::PROGRESSING, reasons::ROLLOUT_COMPLETE, ""),
    };
    let facts: Vec<Fact> = facts.iter().cloned().chain([settled]).collect();
    status::summarise(&facts, &REQUIRED, format!("{wanted} replicas serve"))
}

/// What the rollout of the latest template waits for; `None` when it is complete.
fn rollout(deployment: &Deployment, counts: &DeploymentStatus, wanted: i32) -> Option<String> {
    let updated = counts.updated_replicas.unwrap_or_default();
    let all = counts.replicas.unwrap_or_default();
    if counts.observed_generation < deployment.metadata.generation || updated < wanted {
        return Some(format!("{updated} of {wanted} pods run the latest template"));
    }
    if all > updated {
        return Some(format!("{} pods of an earlier template still drain", all - updated));
    }
    let ready = counts.ready_replicas.unwrap_or_default();
    (ready < wanted).then(|| format!("{ready} of {wanted} pods are ready"))
}

fn available(deployment: &Deployment, counts: &DeploymentStatus, wanted: i32, pods: &[Pod]) -> Fact {
    let ready = counts.ready_replicas.unwrap_or_default();
    if ready > 0 {
        return Fact::yes(types::AVAILABLE, reasons::AVAILABLE, format!("{ready} of {wanted} pods are ready"));
    }
    let (reason, why) = (pods.iter().find_map(trouble))
        .or_else(|| Some((reasons::FORBIDDEN, refusal(deployment)?)))
        .unwrap_or((reasons::PENDING, "the pods have not become ready yet".into()));
    Fact::no(types::AVAILABLE, reason, format!("no pod is ready: {why}"))
}

/// What keeps a pod from starting.
fn trouble(pod: &Pod) -> Option<(&'static str, String)> {
    let status = pod.status.as_ref()?;
    let name = pod.name_any();
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        let message = condition.message.clone().unwrap_or_default();
        return Some((reasons::POD_NOT_SCHEDULED, format!("{name}: {message}")));
    }
    status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let message = waiting.message.clone().unwrap_or_default();
        match waiting.reason.as_deref()? {
            "ImagePullBackOff" | "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName" => {
                Some((reasons::IMAGE_PULL_FAILED, format!("{name}: {message}")))
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                Some((reasons::CONTAINER_CONFIG_ERROR, format!("{name}: {message}")))
            }
            "CrashLoopBackOff" => {
                Some((reasons::PENDING, format!("{name} keeps ending: see `kubectl logs {name} --previous`")))
            }
            _ => None,
        }
    })
}

/// Whether every ready replica has loaded the gateway's own object as it is now.
fn programmed(gateway: &MCPGateway, observed: &Observed) -> Fact {
    let generation = gateway.metadata.generation.unwrap_or_default();
    if observed.replicas.is_empty() {
        return Fact::no(types::PROGRAMMED, reasons::NOT_LOADED, "no replica is ready");
    }
    for (replica, report) in &observed.replicas {
        let lack = match report {
            None => Some("has not reported yet".to_owned()),
            Some(report) if gateway.metadata.uid.as_ref() != Some(&report.uid) => {
                Some("still has an object of that name that was deleted".to_owned())
            }
            Some(report) if report.generation != generation => {
                Some(format!("has loaded generation {}, not {generation} yet", report.generation))
            }
            Some(report) => report.problems.first().map(|problem| format!("reports: {problem}")),
        };
        if let Some(lack) = lack {
            return Fact::no(types::PROGRAMMED, reasons::NOT_LOADED, format!("replica {} {lack}", replica.name));
        }
    }
    let message = format!("{} replicas have loaded it", observed.replicas.len());
    Fact::yes(types::PROGRAMMED, reasons::PROGRAMMED, message)
}

#[cfg(test)]
mod tests;
