use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const EMPTY: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
const TRAILED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: a\r\n\r\n2\r\nok\r\n0\r\na: b\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
/// The rest never comes.
const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no";
/// More than any test has of requests or connections.
const MOST: usize = 16;
/// Reads a request, and closes without an answer.
const NONE: &str = "";

/// A pod that answers the requests of each connection in turn, then closes it. Tells which connection every request
/// came over, and when a connection is closed.
struct Pod {
    pool: Arc<Pool>,
    requests: mpsc::Receiver<usize>,
    closed: mpsc::Receiver<usize>,
}

impl Pod {
    async fn start(answers: &'static [&'static [&'static str]]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let pool = Arc::new(Pool::new(listener.local_addr().expect("an address")));
        let (request, requests) = mpsc::channel(MOST);
        let (close, closed) = mpsc::channel(MOST);
        tokio::spawn(async move {
            for (number, answers) in answers.iter().enumerate() {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (request, close) = (request.clone(), close.clone());
                tokio::spawn(async move {
                    converse(stream, answers, || request.try_send(number).expect("a test")).await;
                    close.try_send(number).expect("a test");
                });
            }
        });
        Self { pool, requests, closed }
    }

    /// Sends a request and reads its answer; says which connection it went over.
    async fn ask(&mut self) -> usize {
        let response = self.pool.send(Request::new(Full::default())).await.expect("an answer");
        response.into_body().collect().await.expect("a whole body");
        self.requests.recv().await.expect("a request")
    }
}

async fn converse(mut stream: TcpStream, answers: &[&str], mut heard: impl FnMut()) {
    for answer in answers {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        heard();
        stream.write_all(answer.as_bytes()).await.expect("a client");
        if *answer == HALF {
            // Until the client gives up.
            _ = stream.read_u8().await;
        }
    }
}

#[tokio::test]
async fn an_answer_that_was_read_leaves_its_connection_to_the_next_request() {
    let mut pod = Pod::start(&[&[WHOLE, EMPTY, CHUNKED, WHOLE, WHOLE]]).await;
    for _ in 0..5 {
        assert_eq!(pod.ask().await, 0);
    }
}

#[tokio::test]
async fn trailers_end_an_answer() {
    let mut pod = Pod::start(&[&[TRAILED, WHOLE]]).await;
    let mut request = Request::new(Full::default());
    request.headers_mut().insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    let mut body = pod.pool.send(request).await.expect("an answer").into_body();
    while !body.frame().await.expect("a frame").expect("goes on").is_trailers() {}
    assert_eq!(pod.requests.recv().await, Some(0));
    assert_eq!(pod.ask().await, 0);
}

#[tokio::test]
async fn an_answer_that_is_dropped_takes_its_connection_along() {
    let mut pod = Pod::start(&[&[HALF], &[WHOLE]]).await;
    let half = pod.pool.send(Request::new(Full::default())).await.expect("an answer");
    assert_eq!(pod.requests.recv().await, Some(0));
    drop(half);
    assert_eq!(pod.closed.recv().await, Some(0));
    assert_eq!(pod.ask().await, 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_passed_over() {
    let mut pod = Pod::start(&[&[WHOLE], &[WHOLE]]).await;
    assert_eq!(pod.ask().await, 0);
    let noticed = async {
        while pod.pool.idle().iter().any(|idle| idle.sender.is_ready()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), noticed).await.expect("its end is noticed");
    assert_eq!(pod.ask().await, 1);
}

#[tokio::test]
async fn a_request_that_was_sent_is_not_sent_again() {
    let mut pod = Pod::start(&[&[WHOLE, NONE], &[WHOLE]]).await;
    assert_eq!(pod.ask().await, 0);
    let lost = pod.pool.send(Request::new(Full::default())).await;
    assert!(matches!(lost, Err(Unanswered::Lost(_))), "{lost:?}");
    assert_eq!(pod.requests.recv().await, Some(0));
    assert!(pod.requests.try_recv().is_err(), "it went to another connection too");
}

#[tokio::test]
async fn a_connection_that_was_idle_for_long_is_not_used_again() {
    let mut pod = Pod::start(&[&[WHOLE, WHOLE, WHOLE], &[WHOLE]]).await;
    assert_eq!(pod.ask().await, 0);
    tokio::time::pause();
    tokio::time::advance(IDLE_TIMEOUT - Duration::from_millis(1)).await;
    tokio::time::resume();
    assert_eq!(pod.ask().await, 0);
    tokio::time::pause();
    tokio::time::advance(IDLE_TIMEOUT).await;
    tokio::time::resume();
    assert_eq!(pod.ask().await, 1);
    assert_eq!(pod.closed.recv().await, Some(0), "the other one is closed");
}

#[tokio::test]
async fn a_stream_has_a_connection_of_its_own() {
    let mut pod = Pod::start(&[&[WHOLE, WHOLE], &[WHOLE, WHOLE]]).await;
    assert_eq!(pod.ask().await, 0);
    let stream = pod.pool.open_stream(Request::new(Full::default())).await.expect("an answer");
    assert_eq!(pod.requests.recv().await, Some(1));
    stream.into_body().collect().await.expect("a whole body");
    assert_eq!(pod.closed.recv().await, Some(1), "it is closed behind the stream");
    assert_eq!(pod.ask().await, 0);
}

#[tokio::test]
async fn nobody_to_connect_to_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let pool = Arc::new(Pool::new(listener.local_addr().expect("an address")));
    drop(listener);
    let unsent = pool.send(Request::new(Full::default())).await;
    assert!(matches!(unsent, Err(Unanswered::Unsent(_))), "{unsent:?}");
}
