//! What a gateway logs in a test.

use std::sync::{Arc, LazyLock, Mutex};

use serde_json::Value;
use tracing::subscriber::{DefaultGuard, NoSubscriber};

/// While there is only one subscriber, a line that a thread without it reaches first is off for every thread.
static ANOTHER: LazyLock<tracing::Dispatch> = LazyLock::new(|| tracing::Dispatch::new(NoSubscriber::new()));

/// Everything that this thread logs while this lives.
pub struct Log {
    bytes: Arc<Mutex<Vec<u8>>>,
    _guard: DefaultGuard,
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub fn capture() -> Self {
        LazyLock::force(&ANOTHER);
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let writer = bytes.clone();
        let subscriber =
            tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || Writer(writer.clone())).finish();
        Self { bytes, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// Every line so far.
    pub fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.bytes.lock().expect("no panic").clone()).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The access log so far.
    pub fn access(&self) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["target"] == "portolan::access").collect()
    }

    /// Whether a line with this message came.
    pub fn says(&self, message: &str) -> bool {
        self.lines().iter().any(|line| line["message"].as_str().is_some_and(|said| said.contains(message)))
    }
}
