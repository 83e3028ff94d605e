//! What goes on beside the calls that are measured: other callers of the same gateway, and a server that they share with
//! nobody.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, ensure};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::super::candidates::Stand;
use super::super::idle::Held;
use super::super::load::{Client, Target, Tool, Work};

/// Callers of a server that is in trouble.
const CALLERS: usize = 256;
/// Callers that read nothing: their server has every answer whole in memory.
const READERS: usize = 64;
/// What each of them asks for; far more than sockets hold.
const UNREAD: Tool = Tool::Blob(4 << 20);
/// Connections that say a byte now and then.
const SLOW: usize = 1000;
/// How often they do, and how often a caller asks again that was told of an error.
const PACE: Duration = Duration::from_secs(1);
const SESSIONS: usize = 10_000;
const STREAMS: usize = 2000;
/// A caller of the era without sessions, so that the troubled server is asked for nothing but the call.
const CALL: Work = Work { tool: Tool::Echo, sse: false, modern: true };

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing: how far two looks at the same differ.
    Nothing,
    /// A server takes calls and never answers.
    Hangs,
    /// A server ends every connection on which it was asked.
    Resets,
    /// A server answers with what is no HTTP.
    Garbage,
    /// Callers of a server leave unread what it answers.
    Unread,
    /// Clients that never end the head of a request.
    SlowHeads,
    /// Clients that never end the body of a request.
    SlowBodies,
    /// Clients that do nothing.
    Idle,
}

impl Trouble {
    pub(super) const ALL: [Self; 8] = [
        Self::Nothing,
        Self::Hangs,
        Self::Resets,
        Self::Garbage,
        Self::Unread,
        Self::SlowHeads,
        Self::SlowBodies,
        Self::Idle,
    ];

    pub(super) fn name(self) -> String {
        match self {
            Self::Nothing => "nothing".into(),
            Self::Hangs => format!("{CALLERS} calls to a server that never answers"),
            Self::Resets => format!("{CALLERS} callers a second of a server that resets connections"),
            Self::Garbage => format!("{CALLERS} callers a second of a server that answers garbage"),
            Self::Unread => format!("{READERS} callers that leave answers of 4 MiB unread"),
            Self::SlowHeads => format!("{SLOW} clients that send a byte of a head a second"),
            Self::SlowBodies => format!("{SLOW} clients that send a byte of a body a second"),
            Self::Idle => format!("{SESSIONS} idle sessions and {STREAMS} open streams"),
        }
    }

    /// Begins, in front of `stand`, whose second server is behind `troubled`; it ends when what is returned is dropped.
    ///
    /// # Errors
    /// Not what was meant to go on goes on.
    pub(super) async fn begin(self, stand: &Stand, troubled: &Target) -> anyhow::Result<Going> {
        let mut going = Going::default();
        match self {
            Self::Nothing => {}
            Self::Hangs => going.callers(troubled, wait).await?,
            Self::Resets | Self::Garbage => going.callers(troubled, ask_again).await?,
            Self::Unread => {
                for _ in 0..READERS {
                    let work = Work { tool: UNREAD, ..CALL };
                    let mut client = Client::open_narrow(troubled, work).await?;
                    going.unread.push(client.begin(work).await?);
                    going.clients.push(client);
                }
            }
            Self::SlowHeads => going.dribble(&stand.through, head(&stand.through)).await?,
            Self::SlowBodies => {
                let whole = format!("{}content-length: 4096\r\n\r\n", head(&stand.through));
                going.dribble(&stand.through, whole).await?;
            }
            Self::Idle => {
                for (held, count) in [(Held::Sessions, SESSIONS), (Held::Streams, STREAMS)] {
                    let open = held.open(&stand.through, count).await?;
                    going.clients.extend(open.clients);
                    going.unread.extend(open.streams);
                }
            }
        }
        Ok(going)
    }

    /// Serves at `listener` as the troubled server does.
    pub(super) async fn serve(self, listener: TcpListener) {
        let mut served = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            served.spawn(self.answer(stream));
            while served.try_join_next().is_some() {}
        }
    }

    /// Until its client has gone; an error of its connection is the end of it, too.
    async fn answer(self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut head = [0; 8192];
        while stream.read(&mut head).await? > 0 {
            match self {
                Self::Garbage => stream.write_all(b"!? 200 fine\r\n\r\n").await?,
                Self::Resets => return stream.set_zero_linger(),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What goes on, until it is dropped.
#[derive(Default)]
pub(super) struct Going {
    tasks: JoinSet<anyhow::Result<()>>,
    clients: Vec<Client>,
    unread: Vec<Incoming>,
}

impl Going {
    async fn callers<F>(&mut self, troubled: &Target, call: fn(Client, Duration) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        for number in 0..CALLERS {
            self.tasks.spawn(call(Client::open(troubled, CALL).await?, spread(number, CALLERS)));
        }
        Ok(())
    }

    /// Clients that send `start`, and then a byte at a time.
    async fn dribble(&mut self, target: &Target, start: String) -> anyhow::Result<()> {
        for number in 0..SLOW {
            let mut stream = TcpStream::connect(target.address).await?;
            stream.write_all(start.as_bytes()).await?;
            self.tasks.spawn(async move {
                tokio::time::sleep(spread(number, SLOW)).await;
                // Until it is cut off.
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(PACE).await;
                }
                Ok(())
            });
        }
        Ok(())
    }

    /// Holds what went on against what was meant to.
    ///
    /// # Errors
    /// A caller was told what it should not have been.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.tasks.try_join_next() {
            ended??;
        }
        Ok(())
    }
}

/// An answer would be the end of the trouble.
async fn wait(mut client: Client, after: Duration) -> anyhow::Result<()> {
    tokio::time::sleep(after).await;
    let told = client.begin(CALL).await;
    anyhow::bail!("the server that never answers was answered for: {told:?}")
}

async fn ask_again(mut client: Client, after: Duration) -> anyhow::Result<()> {
    tokio::time::sleep(after).await;
    loop {
        let failed = client.fails(CALL).await.context("a call to the troubled server")?;
        ensure!(failed, "the troubled server gave a result");
        tokio::time::sleep(PACE).await;
    }
}

/// When one of so many begins, so that not all of them do something at the same moment of each second.
fn spread(number: usize, of: usize) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    PACE.mul_f64(number as f64 / of as f64)
}

/// The head of a call, without its end.
fn head(target: &Target) -> String {
    let Target { address, path, key, .. } = target;
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n{key}")
}
