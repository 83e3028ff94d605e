//! Holds and timers of calls.

use super::*;
use crate::process::tests::unguarded;

const CALLS: usize = 20;
/// Takes that many calls, waits for one message more, and answers them all.
const SERVER: &str = r#"
    for i in $(seq 20); do read -r call; done
    read -r cue
    for i in $(seq 20); do echo "{\"jsonrpc\":\"2.0\",\"id\":$i,\"result\":{}}"; done
    while read -r more; do :; done"#;

fn session() -> Arc<ClientSession> {
    session_with(SERVER)
}

fn session_with(server: &str) -> Arc<ClientSession> {
    let (state, process, stdout) = unguarded(server);
    let (link, inbox) = (Link::Process(process), Inbox::Process(stdout));
    let named = Named { key: SessionKey::generate().expect("random bytes"), owner: None, part: None };
    ClientSession::start(&state, named, link, inbox)
}

fn post(session: &Arc<ClientSession>, body: String, timeout: Duration) -> Posted {
    let body = Bytes::from(body);
    let message = Message::parse(&body).expect("a message");
    session.post(&message, &body, timeout).expect("it is taken")
}

fn call(session: &Arc<ClientSession>, id: usize, timeout: Duration) -> Reply {
    match post(session, format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call"}}"#), timeout) {
        Posted::Call(reply) => reply,
        Posted::Done => unreachable!("a request has an answer"),
    }
}

/// Holds and timers.
fn kept(session: &ClientSession) -> (usize, usize) {
    let inner = lock(&session.inner);
    (inner.outlets.len(), inner.timers.len())
}

async fn until_nothing_is_kept(session: &ClientSession) {
    let gone = async {
        while kept(session) != (0, 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("nothing is kept of a call that is over");
    assert!(lock(&session.inner).ended.is_none(), "an end would have let go of everything");
}

async fn end(session: &ClientSession) {
    session.end(ExitCause::Deleted, Failure::new(Kind::UnknownSession, "the test is over"));
    session.link.ended().await;
}

#[tokio::test]
async fn calls_whose_clients_hang_up_leave_nothing_behind_once_they_are_answered() {
    let session = session();
    let long = Duration::from_secs(600);
    let replies: Vec<Reply> = (1..=CALLS).map(|id| call(&session, id, long)).collect();
    assert_eq!(kept(&session), (CALLS, CALLS));
    drop(replies);
    assert_eq!(kept(&session), (0, CALLS), "the calls go on without their clients");
    post(&session, r#"{"jsonrpc":"2.0","method":"test/cue"}"#.to_owned(), long);
    until_nothing_is_kept(&session).await;
    end(&session).await;
}

#[tokio::test]
async fn calls_whose_clients_hang_up_leave_nothing_behind_once_they_time_out() {
    let session = session();
    let replies: Vec<Reply> = (1..=CALLS).map(|id| call(&session, id, Duration::from_millis(50))).collect();
    drop(replies);
    until_nothing_is_kept(&session).await;
    end(&session).await;
}

#[tokio::test]
async fn the_late_goodbye_of_a_connection_does_not_let_go_of_its_successor() {
    let session = session();
    let first = session.open(None).expect("open");
    let second = session.open(None).expect("open");
    drop(first);
    assert_eq!(kept(&session), (1, 0));
    drop(second);
    assert_eq!(kept(&session), (0, 0));
    end(&session).await;
}

#[tokio::test]
async fn a_session_whose_initialize_is_hung_up_on_ends_because_nobody_knows_it() {
    let session = session();
    let body = r#"{"jsonrpc":"2.0","id":0,"method":"initialize"}"#.to_owned();
    let opening = post(&session, body, Duration::from_secs(600));
    assert_eq!(kept(&session), (1, 1));
    drop(opening);
    let ended = tokio::time::timeout(Duration::from_secs(60), session.link.ended()).await;
    ended.expect("the session ends with its client");
    assert_eq!((kept(&session), session.state.exits.read()[0].cause), ((0, 0), ExitCause::NotInitialized));
}

#[tokio::test]
async fn a_server_may_answer_several_calls_at_once() {
    let answers = r#"
        read -r call; read -r call
        echo '[{"jsonrpc":"2.0","id":2,"result":{}}, {"jsonrpc":"2.0","id":1,"result":{}}]'
        while read -r more; do :; done"#;
    let session = session_with(answers);
    let long = Duration::from_secs(60);
    let replies = [call(&session, 1, long), call(&session, 2, long)];
    for (id, mut reply) in (1..).zip(replies) {
        let answer = reply.next().await.expect("an answer");
        let expected = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
        assert_eq!((answer.message, answer.last), (Bytes::from(expected), true));
    }
    end(&session).await;
}
