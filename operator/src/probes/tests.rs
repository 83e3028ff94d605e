use std::{net::Ipv4Addr, pin::pin};

use futures::StreamExt;
use portolan_mcp::wire::ProbeState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

const KEY: [u8; KEY_LEN] = [7; KEY_LEN];
const WELL: &str = r#"{"state":"Ready"}"#;
const ILL: &str = r#"{"state":"Failing","reason":"ProbeTimeout","message":"silence"}"#;

/// Speaks as a bridge's admin port does, at an address of its own.
struct Port {
    listener: TcpListener,
    pod: Address,
}

impl Port {
    async fn open(host: u8) -> Self {
        let pod = pod(host);
        let listener = TcpListener::bind((pod.ip, wire::ADMIN_PORT)).await.unwrap();
        Self { listener, pod }
    }

    /// Takes a connection and answers its request with a first line.
    async fn tell(&self, first: &str) -> Connection {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("GET /v1/probe ") && head.contains("portolan-pod: uid-"), "{head}");
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut connection = Connection(stream);
        connection.say(first).await;
        connection
    }
}

struct Connection(TcpStream);

impl Connection {
    async fn say(&mut self, line: &str) {
        self.0.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }
}

fn pod(host: u8) -> Address {
    Address { uid: format!("uid-{host}"), ip: Ipv4Addr::new(127, 87, 1, host).into() }
}

fn server() -> Key {
    ("tools".to_owned(), "everything".to_owned())
}

fn probes() -> (Probes, Requeue) {
    let woken = Requeue::default();
    (Probes::new(woken.clone(), Metrics::new().unwrap()), woken)
}

/// Streams that are held.
fn held(probes: &Probes) -> usize {
    probes.lock().values().map(HashMap::len).sum()
}

#[tokio::test]
async fn a_server_is_woken_when_a_verdict_changes_and_neither_by_a_heartbeat_nor_by_a_connection_made_anew() {
    let (probes, woken) = probes();
    let mut woken = pin!(woken.stream("tools"));
    let port = Port::open(1).await;
    let pods = [port.pod.clone()];
    let server = server();
    let (found, mut connection) = tokio::join!(probes.of(&server, &pods, KEY), port.tell(WELL));
    assert_eq!(found["uid-1"].state, ProbeState::Ready);
    assert_eq!(woken.next().await, Some(server.clone()));

    connection.say("").await;
    drop(connection);
    drop(port.tell(WELL).await);
    // It connects anew once it has read what the one before said.
    let mut connection = port.tell(WELL).await;
    assert!(futures::poll!(woken.next()).is_pending());
    connection.say(ILL).await;
    assert_eq!(woken.next().await, Some(server.clone()));
    assert_eq!(probes.of(&server, &pods, KEY).await["uid-1"].message, "silence", "it was woken for this");
}

#[tokio::test]
async fn a_bridge_is_asked_once_for_each_key_and_not_at_all_when_its_pod_is_no_longer_one_of_them() {
    let (probes, _) = probes();
    let port = Port::open(2).await;
    let pods = [port.pod.clone()];
    let server = server();
    let (_, mut connection) = tokio::join!(probes.of(&server, &pods, KEY), port.tell(WELL));
    probes.of(&server, &pods, KEY).await;
    assert_eq!(held(&probes), 1);
    let (found, mut other) = tokio::join!(probes.of(&server, &pods, [8; KEY_LEN]), port.tell(ILL));
    assert_eq!(found["uid-2"].message, "silence");
    assert_eq!(connection.0.read(&mut [0]).await.unwrap(), 0, "the stream with the old key is closed");
    assert!(probes.of(&server, &[], KEY).await.is_empty());
    assert_eq!(held(&probes), 0);
    assert_eq!(other.0.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_bridge_that_is_never_reached_is_no_verdict_and_is_given_up_with_a_last_look() {
    let (probes, woken) = probes();
    let mut woken = pin!(woken.stream("tools"));
    assert!(probes.of(&server(), &[pod(3)], KEY).await.is_empty());
    probes.sweep();
    assert_eq!(held(&probes), 1, "it is tried again");
    assert_eq!(woken.next().await, Some(server()));
    while held(&probes) > 0 {
        tokio::task::yield_now().await;
        probes.sweep();
    }
}

#[tokio::test]
async fn what_a_bridge_said_is_believed_for_a_while_after_it_fell_silent_and_no_longer() {
    let (probes, woken) = probes();
    let mut woken = pin!(woken.stream("tools"));
    let port = Port::open(4).await;
    let pods = [port.pod.clone()];
    let server = server();
    let (_, connection) = tokio::join!(probes.of(&server, &pods, KEY), port.tell(WELL));
    assert_eq!(woken.next().await, Some(server.clone()));
    drop((connection, port));
    assert_eq!(probes.of(&server, &pods, KEY).await.len(), 1, "that a connection broke is no news");
    tokio::time::pause();
    let silent = Instant::now();
    assert_eq!(woken.next().await, Some(server.clone()), "someone must look again");
    assert!(silent.elapsed() > GRACE / 2, "{:?}", silent.elapsed());
    assert!(probes.of(&server, &pods, KEY).await.is_empty());
}
