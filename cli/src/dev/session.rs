//! One run of `dev`: the loop that turns files and what servers tell into what the gateway serves.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portolan_gateway::{Bound, Bounds, Config, Drain, Source};
use portolan_mcp::mac::MacKey;
use portolan_snapshot::Inputs;
use tokio::sync::{mpsc, watch};

use super::files::{Files, Objects};
use super::fleet::Fleet;
use super::inputs::{self, Identity};
use super::keys::NoRandomness;
use super::loaded::{self, Loaded};
use super::output::Printer;
use super::revision::Event;
use super::rows::{Row, rows};
use super::watch::FileWatch;
use super::{DevArgs, cluster_only, toolsets};
use crate::exit::{Exit, Failure, note};
use crate::shutdown;

/// Revisions' news on their way; more of them wait at their senders.
const EVENTS: usize = 256;
/// How long calls in flight are waited for when `dev` ends.
const FAREWELL: Duration = Duration::from_secs(1);

impl From<NoRandomness> for Failure {
    fn from(error: NoRandomness) -> Self {
        Self::new(Exit::Negative, error.to_string())
    }
}

/// Serves until a signal asks to end.
pub(super) async fn run(args: &DevArgs) -> Result<(), Failure> {
    let shutdown = shutdown::on_signals()?;
    let mut files = Files::new(args.file.clone());
    let mut watch = FileWatch::new(&files.directories())
        .map_err(|error| Failure::new(Exit::Negative, format!("the files cannot be watched: {error}")))?;
    let bound = Bound::new(gateway_config(args.listen))
        .await
        .map_err(|error| Failure::usage(error.to_string()).hint("--listen 127.0.0.1:0 takes any free port"))?;
    let (events, mut news) = mpsc::channel(EVENTS);
    let (publish, latest) = watch::channel(None);
    let identity = Identity::new()?;
    let mut loaded = follow_gateway(&bound, &identity)?;
    let listen = bound.address().unwrap_or(args.listen);
    let stopped = shutdown.clone();
    let gateway = tokio::spawn(bound.run(Source::Channel(latest), async move { stopped.cancelled().await }));

    let mut dev = Dev {
        listen,
        identity,
        fleet: Fleet::new(events, args.allow_private_host.clone()),
        objects: Objects::default(),
        printer: Printer::new(args.output),
        publish,
        inputs: None,
        problems: Vec::new(),
    };
    dev.load(&mut files)?;
    dev.publish();
    note(&format!("Listening on http://{listen}. Ctrl-C ends it."));
    loop {
        dev.print(&loaded)?;
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = watch.changed() => dev.load(&mut files)?,
            Some(event) = news.recv() => dev.hear(event, &mut news)?,
            changed = loaded.changed() => if changed.is_err() { break },
        }
        dev.publish();
    }
    note("Ending every server.");
    // Revisions that end still tell so; nobody needs to hear it.
    drop(news);
    dev.fleet.end().await;
    match gateway.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::new(Exit::Negative, error.to_string())),
        Err(error) => Err(Failure::new(Exit::Negative, format!("the gateway failed: {error}"))),
    }
}

fn gateway_config(listen: SocketAddr) -> Config {
    Config {
        listen,
        // For the stream alone: it says what is loaded.
        admin: Some((Ipv4Addr::LOCALHOST, 0).into()),
        bounds: Bounds::default(),
        drain: Drain { delay: Duration::ZERO, timeout: FAREWELL },
    }
}

fn follow_gateway(bound: &Bound, identity: &Identity) -> Result<Loaded, Failure> {
    let (Some(admin), Some(key)) = (bound.admin_address(), MacKey::new(&identity.stream)) else {
        return Err(Failure::new(Exit::Negative, "the gateway has no admin port"));
    };
    let (sender, loaded) = watch::channel(None);
    tokio::spawn(loaded::follow(admin, key, sender));
    Ok(loaded)
}

/// State of one run.
struct Dev {
    listen: SocketAddr,
    identity: Identity,
    fleet: Fleet,
    objects: Objects,
    printer: Printer,
    publish: watch::Sender<Option<Arc<Inputs>>>,
    inputs: Option<Arc<Inputs>>,
    /// What is wrong with the files, as it was last told.
    problems: Vec<String>,
}

impl Dev {
    /// Reads the files and turns towards what they say.
    fn load(&mut self, files: &mut Files) -> Result<(), Failure> {
        let loaded = files.load();
        self.objects = loaded.objects;
        let unresolved = self.fleet.apply(&self.objects)?;
        let (_, credentials) = inputs::inputs(&self.identity, &self.objects, &self.fleet);
        let wrong = loaded.problems.into_iter().chain(unresolved).chain(credentials);
        let wrong = wrong.chain(toolsets::problems(&self.objects));
        let wrong = wrong.map(|problem| problem.to_string());
        let ignored = loaded.ignored.into_iter().chain(cluster_only::fields(&self.objects));
        self.problems = wrong.chain(ignored.map(|problem| format!("warning: {problem}"))).collect();
        self.problems.extend(loaded.consequences);
        self.problems.extend(self.nobody_admitted());
        self.problems.extend(toolsets::endpoints(&self.objects, self.listen));
        self.printer.notes(&self.problems);
        Ok(())
    }

    /// A gateway whose every method needs a cluster lets nobody in, nor does one that cannot be read: that is said, not
    /// worked around.
    fn nobody_admitted(&self) -> Option<String> {
        let Some((name, gateway)) = &self.objects.gateway else {
            let file = self.objects.unread_gateway.as_ref()?.display();
            return Some(format!("warning: nobody is admitted until {file} is right: it may say who is"));
        };
        let authentication = &gateway.object.spec.authentication;
        let nobody = authentication.anonymous.is_none() && authentication.api_keys.is_empty();
        nobody.then(|| {
            let path = "spec.authentication";
            let message = format!(
                "MCPGateway {name} admits nobody here: service accounts need a cluster; add apiKeys, or `anonymous: {{}}`"
            );
            format!("warning: {}", gateway.origin.problem(path, message))
        })
    }

    /// Takes in what revisions tell: all that is there.
    fn hear(&mut self, event: Event, more: &mut mpsc::Receiver<Event>) -> Result<(), Failure> {
        self.fleet.hear(event)?;
        while let Ok(event) = more.try_recv() {
            self.fleet.hear(event)?;
        }
        Ok(())
    }

    /// Gives the gateway what is true now.
    fn publish(&mut self) {
        let (inputs, _) = inputs::inputs(&self.identity, &self.objects, &self.fleet);
        let same = self.inputs.as_ref().is_some_and(|last| is_same(last, &inputs));
        if !same {
            let inputs = Arc::new(inputs);
            self.inputs = Some(inputs.clone());
            self.publish.send_replace(Some(inputs));
        }
    }

    fn rows(&self, loaded: &Loaded) -> Vec<Row> {
        let report = loaded.borrow();
        self.inputs.as_ref().map(|inputs| rows(&self.fleet, inputs, report.as_ref(), self.listen)).unwrap_or_default()
    }

    fn print(&mut self, loaded: &Loaded) -> Result<(), Failure> {
        let rows = self.rows(loaded);
        self.printer.rows(&rows)?;
        let gateway = self.inputs.as_ref().map(|inputs| &inputs.gateway.spec.authentication);
        self.printer.client_configuration(&rows, gateway.is_some_and(|gateway| gateway.anonymous.is_some()))
    }
}

fn is_same(one: &Inputs, other: &Inputs) -> bool {
    one.gateway == other.gateway
        && one.servers == other.servers
        && one.toolsets == other.toolsets
        && one.slices == other.slices
        && one.namespaces == other.namespaces
        && one.secret == other.secret
}
