//! Every read of a reconcile: what the spec names, what exists, and what bridges and gateways say.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, Deployment},
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret},
    },
    jiff::Timestamp,
};
use kube::ResourceExt;
use portolan_canary::{BadCheck, Protocol};
use portolan_crds::{MCPServer, MCPServerSpec, conditions::reasons, labels};
use portolan_mcp::{
    mac::{KEY_LEN, MacKey},
    revision::Era,
    wire::{ProbeState, ProbeStatus, ToolsFound},
};
use portolan_snapshot::inputs::secret_key;
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};

use super::{
    build::{self, SERVING_SINCE, STEP},
    known_answers,
    observed::{Content, Definitions, Mac, Observed, has_ended, revision_of, runs_bridge, takes_sessions},
    references::{self, Kind},
    rollout, summary,
    tool_changes::Changes,
};
use crate::{
    analysis::{Against, Between, Known, Readings},
    apply::Owner,
    bridge_client::Address,
    canaries::{Asked, Standing, Target},
    context::Ctx,
    error::Error,
    gateway,
    loaded::{Programmed, Sending},
    macs,
    requeue::Key,
    scaling,
};

/// How long a round of known-answer checks takes, usually.
const A_ROUND: Duration = Duration::from_secs(2);

/// Reads everything.
pub(super) async fn observe(server: &MCPServer, owner: &Owner, ctx: &Ctx) -> Result<Observed, Error> {
    let now = Timestamp::now();
    let namespace = owner.namespace();
    let selector = format!("{}={}", labels::SERVER, owner.name());
    let (contents, claims, deployments, autoscalers, templates, pods, tools) = futures::try_join!(
        contents(&server.spec, namespace, ctx),
        claims(&server.spec, namespace, ctx),
        ctx.cluster.list::<Deployment>(namespace, &selector),
        autoscalers(&server.spec, namespace, &selector, ctx),
        ctx.cluster.list::<ControllerRevision>(namespace, &selector),
        ctx.cluster.list::<Pod>(namespace, &selector),
        ctx.cluster.list::<ConfigMap>(namespace, &selector),
    )?;
    let deployments: Vec<_> = deployments
        .into_iter()
        .filter(|deployment| owner.owns(deployment) && deployment.metadata.deletion_timestamp.is_none())
        .collect();
    let autoscalers = autoscalers.into_iter().filter(|autoscaler| owner.owns(autoscaler)).collect();
    let templates = templates.into_iter().filter(|template| owner.owns(template)).collect();
    let mut pods = pods;
    pods.sort_by_key(ResourceExt::name_any);
    let mac = mac(server, owner, ctx).await?;
    // What gateways do is read before bridges are asked: a session that came before a gateway changed over is counted.
    let endpoints = ctx.gateways.endpoints_of(server);
    let programmed = programmed(server, &deployments, &pods, ctx);
    let (failing, traffic) = (ctx.loaded.failing(server), ctx.loaded.traffic(server));
    let remembered = summary::remembered(server).map(str::to_owned);
    let spec = &server.spec;
    let server = (namespace.to_owned(), owner.name().to_owned());
    let probes = ctx.probes.of(&server, &probed(&pods), mac.0).await;
    let canaries = canaries(&server, spec, &deployments, &pods, &probes, ctx);
    let definitions = definitions(&tools, &pods, &probes, mac, ctx).await;
    let mut observed = Observed {
        contents,
        claims,
        mac,
        deployments,
        autoscalers,
        templates,
        pods,
        probes,
        tools,
        definitions,
        endpoints,
        programmed,
        failing,
        canaries,
        compared: Known::default(),
        replicas: spec.replicas,
        now,
    };
    observed.replicas = replicas(&server, spec, remembered.as_deref(), &observed, ctx);
    observed.compared = compared(&server, spec, remembered.as_deref(), traffic, &observed, ctx);
    Ok(observed)
}

/// What autoscalers say; nothing where there are none.
async fn autoscalers(
    spec: &MCPServerSpec,
    namespace: &str,
    selector: &str,
    ctx: &Ctx,
) -> Result<Vec<HorizontalPodAutoscaler>, Error> {
    match &spec.autoscaling {
        Some(autoscaling) if autoscaling.is_by_usage() => ctx.cluster.list(namespace, selector).await,
        _ => Ok(Vec::new()),
    }
}

async fn contents(
    spec: &MCPServerSpec,
    namespace: &str,
    ctx: &Ctx,
) -> Result<BTreeMap<(Kind, String), Option<Content>>, Error> {
    let named: BTreeSet<_> =
        references::references(spec).into_iter().map(|reference| (reference.kind, reference.name)).collect();
    let mut contents = BTreeMap::new();
    for (kind, name) in named {
        let content = match kind {
            Kind::ConfigMap => ctx.cluster.get::<ConfigMap>(namespace, &name).await?.map(|found| config_map(&found)),
            Kind::Secret => ctx.cluster.get::<Secret>(namespace, &name).await?.map(|found| secret(&found)),
        };
        contents.insert((kind, name), content);
    }
    Ok(contents)
}

fn config_map(found: &ConfigMap) -> Content {
    let plain = found.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = found.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    content(plain.chain(binary).collect())
}

fn secret(found: &Secret) -> Content {
    content(found.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice())).collect())
}

fn content(entries: BTreeMap<&str, &[u8]>) -> Content {
    let mut context = digest::Context::new(&digest::SHA256);
    for (key, value) in &entries {
        for part in [key.as_bytes(), value] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    Content { keys: entries.into_keys().map(str::to_owned).collect(), digest }
}

async fn claims(
    spec: &MCPServerSpec,
    namespace: &str,
    ctx: &Ctx,
) -> Result<BTreeMap<String, Option<Vec<String>>>, Error> {
    let mut claims = BTreeMap::new();
    for name in references::claims(spec) {
        let claim = ctx.cluster.get::<PersistentVolumeClaim>(namespace, &name).await?;
        let modes = claim.map(|claim| claim.spec.and_then(|spec| spec.access_modes).unwrap_or_default());
        claims.insert(name, modes);
    }
    Ok(claims)
}

/// The server's key; if its Secret was deleted the one it had or the gateways' copy, so that running pods stay
/// reachable; a new one otherwise.
async fn mac(server: &MCPServer, owner: &Owner, ctx: &Ctx) -> Result<Mac, Error> {
    let known = ctx.macs.read(&ctx.cluster, owner.namespace(), owner.name(), owner.uid()).await?;
    if let Some(key) = known.and_then(|known| known.try_into().ok()) {
        return Ok(Mac(key));
    }
    if macs::has_run(server)
        && let Some(copy) = copy(server, owner, ctx).await?
    {
        return Ok(copy);
    }
    let mut key = [0; KEY_LEN];
    SystemRandom::new()
        .fill(&mut key)
        .map_err(|_| Error::transient(reasons::API_SERVER_ERROR, "the system gives no random numbers"))?;
    Ok(Mac(key))
}

async fn copy(server: &MCPServer, owner: &Owner, ctx: &Ctx) -> Result<Option<Mac>, Error> {
    let entry = secret_key::server(owner.namespace(), owner.name());
    for (gateway, _) in ctx.gateways.endpoints_of(server) {
        let Some((namespace, gateway)) = gateway.split_once('/') else { continue };
        let secret = ctx.cluster.get::<Secret>(namespace, &gateway::child_name(gateway)).await?;
        if let Some(key) = secret.and_then(|secret| key(&secret, &entry)) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

fn key(secret: &Secret, name: &str) -> Option<Mac> {
    secret.data.as_ref()?.get(name)?.0.as_slice().try_into().ok().map(Mac)
}

fn programmed(
    server: &MCPServer,
    deployments: &[Deployment],
    pods: &[Pod],
    ctx: &Ctx,
) -> BTreeMap<Sending, Programmed> {
    let written = server.status.as_ref().map(|status| Sending::of(&status.revisions));
    let alone = deployments.iter().map(|deployment| Sending::to(Some(&deployment.name_any())));
    alone
        .chain([Sending::to(None)])
        .chain(written)
        .map(|sending| {
            let serving = sending.serving.as_deref();
            let has_ready_pod =
                serving.is_some() && pods.iter().any(|pod| revision_of(pod) == serving && takes_sessions(pod));
            let programmed = ctx.loaded.programmed(server, &sending, has_ready_pod);
            (sending, programmed)
        })
        .collect()
}

/// How many pods the server is to have.
fn replicas(server: &Key, spec: &MCPServerSpec, remembered: Option<&str>, observed: &Observed, ctx: &Ctx) -> i32 {
    let Some(autoscaling) = &spec.autoscaling else {
        ctx.scaling.forget(server);
        return spec.replicas;
    };
    let revisions = observed.revisions();
    let serving = rollout::current(None, remembered, &revisions);
    let current = revisions.iter().find(|revision| serving == Some(&revision.name));
    let takes_some =
        |name: &str| Some(name) == serving || revisions.iter().any(|one| one.name == name && one.step.is_some());
    let holds = |pod: &&Pod| {
        let is_there = pod.metadata.deletion_timestamp.is_none() && runs_bridge(pod);
        is_there && revision_of(pod).is_some_and(takes_some)
    };
    let asked = scaling::Asked {
        bridges: observed.pods.iter().filter(holds).filter_map(address).collect(),
        key: MacKey::new(&observed.mac.0),
        gateways: observed.endpoints.iter().map(|(gateway, _)| gateway.clone()).collect(),
        is_up: serving.is_some_and(|serving| observed.pods_of(serving).any(|pod| observed.answers(pod))),
        is_changing: revisions.iter().any(|one| Some(one.name.as_str()) != serving && one.comes_up()),
    };
    // Between two revisions none may serve, and pods are there all the same.
    let current = current.map(|current| current.replicas).or_else(|| revisions.iter().map(|one| one.replicas).max());
    ctx.scaling.of(server, autoscaling, current, asked)
}

/// What speaks against the revision that takes a share of new sessions.
fn compared(
    server: &Key,
    spec: &MCPServerSpec,
    remembered: Option<&str>,
    traffic: Readings,
    observed: &Observed,
    ctx: &Ctx,
) -> Known {
    let Some(rollout) = &spec.rollout.canary else {
        ctx.analyses.forget(server);
        return Known::default();
    };
    let revisions = observed.revisions();
    let canary = revisions.iter().find(|revision| revision.step.is_some() && revision.draining_since.is_none());
    let serving = rollout::current(None, remembered, &revisions);
    let (Some(canary), Some(serving)) = (canary, serving) else {
        ctx.analyses.forget(server);
        return Known::default();
    };
    // Of what is stopped, or only about to start, nobody knows anything.
    if observed.replicas == 0 || canary.replicas == 0 {
        ctx.analyses.forget(server);
        return Known::default();
    }
    let changes = if spec.rollout.allow_tool_changes { None } else { observed.tool_changes(serving, &canary.name) };
    let changes = changes.filter(|changes| *changes != Changes::Unknown);
    let trouble = changes.map(|changes| format!("it has other tools than revision {serving} by now: {changes}"));
    // What both have is not the fault of one.
    let trouble = trouble.or_else(|| observed.trouble(&canary.name).filter(|_| observed.trouble(serving).is_none()));
    let between = Between { serving, canary: &canary.name, rule: &rollout.analysis };
    let wrong = known_answers::wrong_only_there(observed, serving, &canary.name);
    let round = spec.canary_checks.as_ref().map_or(Duration::ZERO, |checks| checks.interval.as_std() + A_ROUND);
    let against = Against { trouble, wrong: wrong.map(|why| (why, round)) };
    ctx.analyses.of(server, between, traffic, against, observed.now)
}

/// The pods whose probes matter: those that run and were not told to end. One that drains may be wanted again.
fn probed(pods: &[Pod]) -> Vec<Address> {
    let runs = |pod: &&Pod| runs_bridge(pod) && pod.metadata.deletion_timestamp.is_none();
    pods.iter().filter(runs).filter_map(address).collect()
}

/// Where the pods stand that were not told to end, once each has answered its probe.
fn canaries(
    server: &Key,
    spec: &MCPServerSpec,
    deployments: &[Deployment],
    pods: &[Pod],
    probes: &BTreeMap<String, ProbeStatus>,
    ctx: &Ctx,
) -> Option<Result<BTreeMap<String, Standing>, BadCheck>> {
    let Some(checks) = &spec.canary_checks else {
        ctx.canaries.forget(server);
        return None;
    };
    let serves = |pod: &Pod| {
        let deployment = deployments.iter().find(|deployment| Some(&*deployment.name_any()) == revision_of(pod));
        let has_served =
            |deployment| [SERVING_SINCE, STEP].iter().any(|key| build::annotation(deployment, key).is_some());
        deployment.is_some_and(has_served)
    };
    let target = |pod: &Pod| {
        let uid = pod.metadata.uid.clone()?;
        let found = probes.get(&uid).filter(|found| found.state == ProbeState::Ready && takes_sessions(pod));
        let protocol = found.map(|found| match found.server.as_ref().map(|server| server.era) {
            Some(Era::Modern) => Protocol::Sessionless,
            _ => Protocol::Sessions,
        });
        Some(Target { uid, protocol, serves: serves(pod) })
    };
    let there = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && !has_ended(pod));
    let targets: Vec<_> = there.filter_map(target).collect();
    Some(ctx.canaries.of(server, Asked { spec: checks, limit: spec.timeouts.request.as_std() }, &targets))
}

/// The pod's address, once it has one.
pub(super) fn address(pod: &Pod) -> Option<Address> {
    let ip = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    Some(Address { uid: pod.metadata.uid.clone()?, ip })
}

/// Definitions that are to be stored, by revision: those whose bridge has others than the ConfigMap.
async fn definitions(
    tools: &[ConfigMap],
    pods: &[Pod],
    probes: &BTreeMap<String, ProbeStatus>,
    mac: Mac,
    ctx: &Ctx,
) -> BTreeMap<String, Definitions> {
    let Some(key) = MacKey::new(&mac.0) else { return BTreeMap::new() };
    let mut seen = BTreeSet::new();
    let mut definitions = BTreeMap::new();
    for pod in pods.iter().filter(|pod| takes_sessions(pod)) {
        let probe = pod.metadata.uid.as_ref().and_then(|uid| probes.get(uid));
        let found = probe.and_then(|probe| probe.tools.as_ref());
        let (Some(revision), Some(found)) = (revision_of(pod), found) else { continue };
        let config_map = tools.iter().find(|config_map| config_map.name_any() == build::tools_name(revision));
        if !seen.insert(revision) || config_map.and_then(build::stored_hash) == Some(&found.hash) {
            continue;
        }
        let Some(address) = address(pod) else { continue };
        match ctx.bridges.tools(&address, &key).await {
            Ok(found) => definitions.extend(found.and_then(with_text).map(|found| (revision.to_owned(), found))),
            Err(error) => tracing::warn!(revision, %error, "tool definitions cannot be read; asked again later"),
        }
    }
    definitions
}

fn with_text(found: ToolsFound) -> Option<Definitions> {
    let json = found.definitions?.get().to_owned();
    Some(Definitions { hash: found.hash, json })
}
