//! What goes in comes out with every byte as it was, in either direction, but for the ids that are replaced on purpose.

#![allow(clippy::expect_used, reason = "a panic is the report")]

use bytes::Bytes;
use portolan_mcp::envelope::{Id, Message, Meta};
use portolan_mcp::scan::scan;
use portolan_mcp::session::{
    Accepted, Limits, Output, Session, with_id, with_progress_token_asked, with_progress_token_told,
};
use portolan_mcp::sse;
use proptest::prelude::*;

mod messages;

/// A session that keeps whatever these tests send.
fn session() -> Session {
    Session::new(Limits { replay_bytes: 1 << 20, queued_bytes: 1 << 20, ..Limits::default() })
}

fn accept(session: &mut Session, body: &Bytes) -> (Accepted, Vec<Output>) {
    let mut out = Vec::new();
    let message = Message::parse(body).expect("a message");
    (session.accept(&message, body, &mut out).expect("is taken"), out)
}

fn write(session: &mut Session, line: &Bytes) -> Vec<Output> {
    let mut out = Vec::new();
    session.server_line(line, &mut out).expect("a message");
    out
}

fn open(session: &mut Session, last: Option<&str>) -> Vec<Output> {
    let mut out = Vec::new();
    session.open(last, &mut out).expect("is kept");
    out
}

/// The message of the only event in `out`.
fn message(out: &[Output]) -> Bytes {
    let [Output::Event(event)] = out else { panic!("{out:?}") };
    event.message.clone()
}

/// A request and its answer.
fn exchange() -> impl Strategy<Value = (Bytes, Bytes)> {
    messages::id().prop_flat_map(|id| {
        (messages::request(id.clone()), messages::answer(id)).prop_map(|(asked, told)| (asked.into(), told.into()))
    })
}

fn notification() -> impl Strategy<Value = Bytes> {
    messages::notification().prop_map(Bytes::from)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_message_passes_the_scan((asked, told) in exchange(), note in notification()) {
        for body in [&asked, &told, &note] {
            prop_assert_eq!(scan(body), Ok(()), "{:?}", body);
        }
    }

    #[test]
    fn what_a_client_sends_reaches_the_server_as_it_was_written((asked, _) in exchange(), note in notification()) {
        let mut session = session();
        prop_assert_eq!(accept(&mut session, &asked).1, [Output::ToServer(asked.clone())]);
        prop_assert_eq!(accept(&mut session, &note).1, [Output::ToServer(note.clone())]);
    }

    #[test]
    fn an_answer_reaches_its_client_as_it_was_written_and_again_on_a_new_connection((asked, told) in exchange()) {
        let mut session = session();
        let Accepted::Call(attachment) = accept(&mut session, &asked).0 else { panic!("a call") };
        prop_assert_eq!(&message(&write(&mut session, &told)), &told);
        prop_assert_eq!(&message(&open(&mut session, Some(&attachment.event_id()))), &told);
    }

    #[test]
    fn what_a_server_says_by_itself_reaches_its_client_now_or_when_it_comes(note in notification(), is_open: bool) {
        let mut session = session();
        let out = if is_open {
            open(&mut session, None);
            write(&mut session, &note)
        } else {
            prop_assert_eq!(write(&mut session, &note), []);
            open(&mut session, None)
        };
        prop_assert_eq!(&message(&out), &note);
        prop_assert_eq!(&message(&open(&mut session, Some("0-0"))[1..]), &note);
    }

    #[test]
    fn a_servers_request_and_its_clients_answer_pass_as_they_were_written((asked, told) in exchange()) {
        let mut session = session();
        open(&mut session, None);
        prop_assert_eq!(&message(&write(&mut session, &asked)), &asked);
        prop_assert_eq!(accept(&mut session, &told).1, [Output::ToServer(told.clone())]);
    }

    #[test]
    fn an_id_that_was_replaced_and_put_back_leaves_no_trace((asked, told) in exchange(), own in any::<u64>()) {
        let Ok(Message::Request(request)) = Message::parse(&asked) else { panic!("a request") };
        let own = Id::number(own);
        for body in [&asked, &told] {
            let replaced = with_id(body, &own).expect("has an id");
            prop_assert_eq!(with_id(&replaced, &request.id), Some(body.clone()));
        }
    }

    #[test]
    fn a_token_that_was_replaced_and_put_back_leaves_no_trace((asked, _) in exchange(), own in any::<u64>()) {
        let Ok(Message::Request(request)) = Message::parse(&asked) else { panic!("a request") };
        let token = request.params.and_then(Meta::of).and_then(|meta| meta.progress_token).expect("has a token");
        let replaced = with_progress_token_asked(&asked, &Id::number(own)).expect("has a token");
        prop_assert_eq!(with_progress_token_asked(&replaced, &token), Some(asked.clone()));
        let progress = format!(
            r#"{{"method":"notifications/progress", "params" : {{"progress":1.0,"progressToken": {own}}}, "jsonrpc":"2.0"}}"#
        );
        let told = with_progress_token_told(progress.as_bytes(), &token).expect("has a token");
        prop_assert_eq!(with_progress_token_told(&told, &Id::number(own)), Some(Bytes::from(progress)));
    }

    #[test]
    fn a_message_in_an_event_is_the_message((_, told) in exchange()) {
        let events = sse::Decoder::new(1 << 20).push(&sse::encode(Some("1-1"), &told)).expect("fits");
        prop_assert_eq!(events, [told.to_vec()]);
    }
}
