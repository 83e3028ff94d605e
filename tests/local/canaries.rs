//! Known answers on one machine: `portolan canary` against `portolan dev`, and agents that ask or do not.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use nix::sys::signal::Signal;
use portolan_tests::dev::Dev;
use portolan_tests::paths;
use portolan_tests::thirdparty::{Place, server};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// A running `portolan dev` with one server.
struct World {
    dev: Dev,
    folder: TempDir,
    name: String,
    url: String,
}

impl World {
    async fn start(manifest: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let name = manifest["metadata"]["name"].as_str().expect("a name").to_owned();
        std::fs::write(folder.path().join("server.yaml"), manifest.to_string()).expect("written");
        let mut dev = Dev::start_logging(folder.path());
        let url = dev.ready(&name).await;
        Self { dev, folder, name, url }
    }

    /// The server of the example, as it stands there.
    async fn of_example(change: impl FnOnce(&mut Value)) -> Self {
        let text = std::fs::read_to_string(paths::repo("examples/canary/mcpserver.yaml")).expect("the example");
        let mut manifest: Value = serde_saphyr::from_str(&text).expect("YAML");
        manifest["spec"]["container"]["command"][0] = paths::binary("portolan").display().to_string().into();
        change(&mut manifest);
        Self::start(&manifest).await
    }

    /// `portolan canary` with these words.
    async fn canary(&self, words: &[&str]) -> Output {
        let folder = self.folder.path().to_str().expect("text");
        let (first, rest) = words.split_first().expect("a subcommand");
        let mut command = Command::new(paths::binary("portolan"));
        command.args(["canary", first, "-f", folder, "--url", &self.url]).args(rest);
        command.stdin(Stdio::null()).output().await.expect("it runs")
    }

    /// `portolan canary agent` with this command for the agent.
    async fn agent(&self, agent: &[&str]) -> Output {
        let log = self.dev.log().to_str().expect("text");
        let words = [&["agent", "--server", &self.name, "--access-log", log, "--"], agent].concat();
        self.canary(&words).await
    }

    async fn end(self) {
        assert!(self.dev.end(Signal::SIGTERM).await.success());
    }
}

fn python() -> String {
    paths::repo("target/thirdparty/python/clients/bin/python").display().to_string()
}

fn script(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("local/agents").join(name).display().to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn the_checks_of_the_example_pass_and_one_that_expects_something_else_fails() {
    let world = World::of_example(|_| {}).await;
    let passed = world.canary(&["run", &world.name]).await;
    let shown = text(&passed.stdout);
    assert!(passed.status.success(), "{passed:?}");
    assert!(shown.starts_with("CHECK          RESULT  TOOK") && shown.matches(" passed ").count() == 2, "{shown}");
    world.end().await;

    let world = World::of_example(|manifest| {
        manifest["spec"]["canaryChecks"]["checks"][1]["expect"]["cel"] = "text.contains('saint of animals')".into();
    })
    .await;
    let failed = world.canary(&["run", &world.name]).await;
    assert_eq!(failed.status.code(), Some(2), "{failed:?}");
    let shown = text(&failed.stdout);
    assert!(
        shown.contains("FAILED") && shown.contains("expected text.contains('saint of animals') to be true"),
        "{shown}"
    );
    assert!(text(&failed.stderr).contains("1 of 2 canary checks failed"), "{failed:?}");
    let failed = world.canary(&["run", &world.name, "-o", "json"]).await;
    let told: Value = serde_json::from_slice(&failed.stdout).expect("JSON");
    assert_eq!((&told[0]["result"], &told[1]["result"]), (&json!("passed"), &json!("failed")), "{told}");
    assert_eq!(told[1]["cause"], "Wrong");
    world.end().await;
}

#[tokio::test]
async fn an_agent_that_asks_is_told_from_one_that_answers_from_memory_and_from_one_that_does_not_listen() {
    let (reader, dreamer, python) = (script("reader.py"), script("dreamer.py"), python());
    let document = |manifest: &mut Value| {
        manifest["spec"]["canaryChecks"] = json!({
            "document": "SaintAnthony",
            "checks": [{"name": "there", "resource": {"uri": "canary://saint-anthony"}, "expect": {"contains": ["cow"]}}],
        });
    };
    let scratch = tempfile::tempdir().expect("a folder");
    let mut time = server("time", Place::Local(&scratch.path().display().to_string())).manifest("default", "time");
    document(&mut time);
    // By a tool of the server's own, and as a resource of one that has none.
    for world in [World::of_example(|_| {}).await, World::start(&time).await] {
        let read = world.agent(&[&python, &reader, "{question}", "{url}"]).await;
        assert!(read.status.success(), "{}: {read:?}", world.name);
        assert!(text(&read.stdout).contains("automated cow milking"), "{}: {read:?}", world.name);
        assert!(text(&read.stderr).contains("OK: the agent read the document"), "{}: {read:?}", world.name);

        let made_up = world.agent(&[&python, &dreamer]).await;
        assert_eq!(made_up.status.code(), Some(2), "{}: {made_up:?}", world.name);
        let said = text(&made_up.stderr);
        assert!(said.contains("made its answer up: the gateway has recorded no call"), "{}: {said}", world.name);
        let deaf = world.agent(&["env", "AGENT_FORGETS=1", &python, &reader, "{question}"]).await;
        assert_eq!(deaf.status.code(), Some(2), "{}: {deaf:?}", world.name);
        let said = text(&deaf.stderr);
        assert!(said.contains("asked the server, and its answer has nothing of what it was told"), "{said}");
        world.end().await;
    }
}

#[tokio::test]
async fn what_cannot_be_asked_says_what_to_do() {
    let scratch = tempfile::tempdir().expect("a folder");
    let time = server("time", Place::Local(&scratch.path().display().to_string())).manifest("default", "time");
    let world = World::start(&time).await;
    for (words, code, said) in [
        (vec!["run", "time"], 1, "has no canary checks"),
        (vec!["run", "nobody"], 1, "there is no MCPServer default/nobody in the files"),
        (vec!["agent", "--server", "time", "--", "true"], 1, "write spec.canaryChecks.document: SaintAnthony"),
    ] {
        let output = world.canary(&words).await;
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        assert!(text(&output.stderr).contains(said), "{words:?}: {output:?}");
    }
    world.end().await;

    let world = World::of_example(|_| {}).await;
    for (agent, said) in
        [(vec!["/there/is/no/such/agent"], "does not start"), (vec!["false"], "ended with exit status: 1")]
    {
        let output = world.agent(&agent).await;
        assert!(!output.status.success() && text(&output.stderr).contains(said), "{output:?}");
    }
    let gone = Path::new("/there/is/no/such/log");
    let output = world
        .canary(&["agent", "--server", "canary", "--access-log", gone.to_str().expect("text"), "--", "echo", "a saint"])
        .await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = text(&output.stderr);
    assert!(
        said.contains("the gateway's record cannot be read") && said.contains("has nothing of the document"),
        "{said}"
    );
    world.end().await;
}
