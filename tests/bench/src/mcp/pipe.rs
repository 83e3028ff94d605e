//! A session on the standard input and output of a process of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Longest exchange.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) struct Lane {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Lane {
    pub(super) fn start(program: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .arg("stdio")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        let input = child.stdin.take().context("the process has no standard input")?;
        let output = child.stdout.take().context("the process has no standard output")?;
        Ok(Self { child, input, output: BufReader::new(output).lines() })
    }

    pub(super) async fn request(&mut self, request: String) -> anyhow::Result<String> {
        self.send(request).await?;
        let line = tokio::time::timeout(LIMIT, self.output.next_line()).await.context("no answer in time")??;
        line.context("the process ended")
    }

    pub(super) async fn send(&mut self, mut message: String) -> anyhow::Result<()> {
        message.push('\n');
        self.input.write_all(message.as_bytes()).await.context("the process does not read")
    }

    pub(super) async fn close(mut self) -> anyhow::Result<()> {
        drop(self.input);
        tokio::time::timeout(LIMIT, self.child.wait()).await.context("the process does not end")??;
        Ok(())
    }
}
