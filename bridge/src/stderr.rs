//! A server's stderr: into our log line by line, with a bound on rate and length.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use crate::state::{State, lock};

/// Lines of one process that are logged within [`WINDOW`].
const MAX_LINES: u32 = 100;
const WINDOW: Duration = Duration::from_secs(1);
/// Longer lines are cut here.
const MAX_LINE: usize = 8 * 1024;
/// What is kept of the last line for reports.
const MAX_LAST: usize = 512;

/// The last line a process wrote to stderr, shortened.
pub(crate) type LastLine = Arc<Mutex<String>>;

/// Logs what `reader` gives until it ends.
pub(crate) async fn log(
    state: Arc<State>,
    name: Arc<Mutex<String>>,
    last: LastLine,
    mut reader: impl AsyncRead + Unpin,
) {
    let mut rate = Rate::new();
    let mut line = Vec::new();
    let mut chunk = vec![0; 4096];
    loop {
        let note = tokio::time::sleep_until(rate.window_ends());
        let read = tokio::select! {
            read = reader.read(&mut chunk) => read,
            () = note, if rate.dropped > 0 => {
                rate.next_window(&name);
                continue;
            }
        };
        let Ok(count @ 1..) = read else { break };
        for piece in chunk[..count].split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            line.extend_from_slice(&text[..text.len().min(MAX_LINE - line.len())]);
            if complete {
                take(&state, &name, &last, &mut rate, &mut line);
            }
        }
    }
    if !line.is_empty() {
        take(&state, &name, &last, &mut rate, &mut line);
    }
    rate.next_window(&name);
}

fn take(state: &State, name: &Mutex<String>, last: &LastLine, rate: &mut Rate, line: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(line).trim_end().to_owned();
    line.clear();
    if text.is_empty() {
        return;
    }
    shorten(&text, MAX_LAST).clone_into(&mut lock(last));
    if rate.admits(name) {
        let server = Some(&state.config.name).filter(|name| !name.is_empty());
        tracing::info!(target: "server::stderr", server, session = %lock(name), "{text}");
    } else {
        state.counters.dropped_stderr_lines.add(1);
    }
}

/// The beginning of `text`, at most `max` bytes, cut between characters.
pub(crate) fn shorten(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

struct Rate {
    since: Instant,
    admitted: u32,
    dropped: u64,
}

impl Rate {
    fn new() -> Self {
        Self { since: Instant::now(), admitted: 0, dropped: 0 }
    }

    fn window_ends(&self) -> Instant {
        self.since + WINDOW
    }

    fn admits(&mut self, name: &Mutex<String>) -> bool {
        if self.window_ends() <= Instant::now() {
            self.next_window(name);
        }
        self.admitted += 1;
        let admits = self.admitted <= MAX_LINES;
        self.dropped += u64::from(!admits);
        admits
    }

    fn next_window(&mut self, name: &Mutex<String>) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            tracing::warn!(session = %lock(name), "dropped {dropped} lines of stderr: more than {MAX_LINES} a second");
        }
        self.since = Instant::now();
        self.admitted = 0;
    }
}
