use super::*;

mod steps;

fn request(id: &str, method: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}"#).into()
}

fn answer(id: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#).into()
}

fn notification(method: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#).into()
}

fn accept(session: &mut Session, body: &Bytes) -> (Result<Accepted, Refusal>, Vec<Output>) {
    let mut out = Vec::new();
    let message = Message::parse(body).expect("a message");
    let accepted = session.accept(&message, body, &mut out);
    (accepted, out)
}

fn call(session: &mut Session, id: &str) -> Attachment {
    match accept(session, &request(id, "tools/call")).0 {
        Ok(Accepted::Call(attachment)) => attachment,
        other => panic!("{other:?}"),
    }
}

fn line(session: &mut Session, line: &Bytes) -> Vec<Output> {
    let mut out = Vec::new();
    session.server_line(line, &mut out).expect("a message");
    out
}

fn open(session: &mut Session, last: Option<&str>) -> (Attachment, Vec<Output>) {
    let mut out = Vec::new();
    let attachment = session.open(last, &mut out).expect("a stream that is kept");
    (attachment, out)
}

fn streams(out: &[Output]) -> Vec<StreamId> {
    out.iter()
        .filter_map(|output| match output {
            Output::Event(event) => Some(event.stream),
            _ => None,
        })
        .collect()
}

#[test]
fn an_answer_goes_to_the_post_that_asked_with_its_bytes_untouched() {
    let mut session = Session::new(Limits::default());
    let (first, second) = (call(&mut session, "1"), call(&mut session, "\"b\""));
    let out = line(&mut session, &answer("\"b\""));
    let expected = Event {
        stream: second.stream,
        seq: 1,
        message: answer("\"b\""),
        failure: None,
        last: true,
        turn: Some(second.turn),
    };
    assert_eq!(out, [Output::Event(expected)]);
    assert_eq!(streams(&line(&mut session, &answer("1"))), [first.stream]);
    assert_eq!(line(&mut session, &answer("1")), [], "an answer that nobody waits for goes nowhere");
}

#[test]
fn an_event_that_was_under_way_when_its_stream_was_taken_over_is_for_the_earlier_hold_only() {
    let mut session = Session::new(Limits::default());
    let first = call(&mut session, "1");
    let log = notification("notifications/message");
    let under_way = line(&mut session, &log);
    let (second, replayed) = open(&mut session, Some(&first.event_id()));
    let is_for = |out: &[Output], hold| out.iter().any(|o| matches!(o, Output::Event(event) if event.is_for(&hold)));
    assert!(is_for(&under_way, first) && !is_for(&under_way, second));
    assert!(is_for(&replayed, second) && !is_for(&replayed, first));
}

#[test]
fn a_stream_that_is_no_longer_kept_is_refused_and_the_standing_one_stays_with_its_holder() {
    let mut session = Session::new(Limits { replay_events: 1, ..Limits::default() });
    let (standing, _) = open(&mut session, None);
    let (first, second) = (call(&mut session, "1"), call(&mut session, "2"));
    line(&mut session, &answer("1"));
    line(&mut session, &answer("2"));
    let mut out = Vec::new();
    assert_eq!(session.open(Some(&first.event_id()), &mut out), Err(UnknownStream));
    assert_eq!(out, []);
    let news = line(&mut session, &notification("notifications/tools/list_changed"));
    assert!(matches!(&news[..], [Output::Event(event)] if event.is_for(&standing)));
    assert_eq!(session.open(Some(&second.event_id()), &mut out), Err(UnknownStream), "the news took its place");
}

#[test]
fn who_comes_back_for_an_answer_that_is_too_large_to_be_kept_is_told_that_it_is_lost() {
    let mut session = Session::new(Limits { replay_bytes: 600, ..Limits::default() });
    let first = call(&mut session, "1");
    let large: Bytes = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"text":"{}"}}}}"#, "x".repeat(600)).into();
    assert!(matches!(&line(&mut session, &large)[..], [Output::Event(event)] if event.message == large));
    let (_, replayed) = open(&mut session, Some(&first.event_id()));
    let [Output::Event(event)] = &replayed[..] else { panic!("{replayed:?}") };
    assert_eq!((event.failure, event.last), (Some(Kind::ServerUnreachable), true));
    assert!(
        matches!(Message::parse(&event.message), Ok(Message::Response { id: Some(id), .. }) if id == Id::number(1))
    );
}

#[test]
fn a_call_that_its_client_takes_back_ends_at_once_and_a_late_answer_goes_nowhere() {
    let mut session = Session::new(Limits::default());
    let first = call(&mut session, "1");
    let cancel = cancelled(&Id::number(1));
    let (accepted, out) = accept(&mut session, &cancel);
    assert_eq!((accepted, out.first()), (Ok(Accepted::Done), Some(&Output::ToServer(cancel.clone()))));
    assert!(
        matches!(&out[1..], [Output::Event(event)] if event.is_for(&first) && event.failure == Some(Kind::Cancelled))
    );
    assert_eq!((session.in_flight(), line(&mut session, &answer("1"))), (0, vec![]));
    assert_eq!(accept(&mut session, &cancel).1, [Output::ToServer(cancel)], "that of nothing under way only passes");
}

#[test]
fn an_id_that_is_in_flight_is_refused() {
    let mut session = Session::new(Limits::default());
    call(&mut session, "1");
    let (refused, out) = accept(&mut session, &request("1.0", "tools/call"));
    assert_eq!((refused, out), (Err(Refusal::DuplicateId), vec![]));
}

#[test]
fn a_server_request_goes_to_get_then_to_the_newest_post_then_waits() {
    let mut session = Session::new(Limits::default());
    assert_eq!(line(&mut session, &request("1", "roots/list")), []);
    let first = call(&mut session, "10");
    let second = call(&mut session, "11");
    let out = line(&mut session, &request("2", "roots/list"));
    assert_eq!(streams(&out), [second.stream]);
    session.closed(second);
    let out = line(&mut session, &request("3", "roots/list"));
    assert_eq!(streams(&out), [first.stream]);
    open(&mut session, None);
    assert_eq!(streams(&line(&mut session, &request("4", "roots/list"))), [StreamId::GET]);
}

#[test]
fn a_waiting_server_request_leaves_on_the_next_stream_of_any_kind() {
    let mut session = Session::new(Limits::default());
    line(&mut session, &request("1", "roots/list"));
    line(&mut session, &notification("notifications/tools/list_changed"));
    let (accepted, out) = accept(&mut session, &request("10", "tools/call"));
    let Ok(Accepted::Call(attachment)) = accepted else { panic!("{accepted:?}") };
    assert_eq!(streams(&out), [attachment.stream], "the request, not the notification");
    assert_eq!(streams(&open(&mut session, None).1), [StreamId::GET], "the notification");
}

#[test]
fn a_waiting_server_request_leaves_on_a_stream_that_is_resumed() {
    let mut session = Session::new(Limits::default());
    let first = call(&mut session, "10");
    session.closed(first);
    assert_eq!(line(&mut session, &request("1", "roots/list")), []);
    let (resumed, out) = open(&mut session, Some(&first.event_id()));
    assert_eq!((resumed.stream, streams(&out)), (first.stream, vec![first.stream]));
}

#[test]
fn only_answers_to_what_the_server_asked_reach_it() {
    let mut session = Session::new(Limits::default());
    open(&mut session, None);
    line(&mut session, &request("7", "sampling/createMessage"));
    assert_eq!(accept(&mut session, &answer("8")), (Ok(Accepted::Done), vec![]));
    assert_eq!(accept(&mut session, &answer("7")).1, [Output::ToServer(answer("7"))]);
    assert_eq!(accept(&mut session, &answer("7")).1, [], "twice is once");
}

#[test]
fn what_was_asked_on_the_stream_of_a_call_is_answered_after_that_call_too() {
    let mut session = Session::new(Limits { server_requests: 1, ..Limits::default() });
    call(&mut session, "10");
    call(&mut session, "11");
    // It belongs to the first call, which the server does not say.
    line(&mut session, &request("7", "sampling/createMessage"));
    line(&mut session, &answer("11"));
    // It does not count any more.
    assert_eq!(line(&mut session, &request("8", "sampling/createMessage")).len(), 1);
    assert_eq!(accept(&mut session, &answer("7")).1, [Output::ToServer(answer("7"))]);
    assert_eq!(accept(&mut session, &answer("7")).1, [], "twice is once");
    line(&mut session, &answer("10"));
    let cancelled = cancelled(&Id::number(8));
    assert_eq!(streams(&line(&mut session, &cancelled)), [], "it waits for a stream");
    assert_eq!(accept(&mut session, &answer("8")).1, [], "it was taken back");
}

#[test]
fn progress_follows_its_token_and_other_notifications_the_only_call() {
    let mut session = Session::new(Limits::default());
    let body: Bytes =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":"p"}}}"#.into();
    let Ok(Accepted::Call(first)) = accept(&mut session, &body).0 else { panic!("a call") };
    let log = notification("notifications/message");
    assert_eq!(streams(&line(&mut session, &log)), [first.stream]);
    call(&mut session, "2");
    let progress: Bytes =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":1}}"#.into();
    assert_eq!(streams(&line(&mut session, &progress)), [first.stream]);
    assert_eq!(line(&mut session, &log), [], "two calls and no GET stream: it waits");
    assert_eq!(streams(&open(&mut session, None).1), [StreamId::GET]);
    line(&mut session, &answer("1"));
    assert_eq!(line(&mut session, &progress), [], "nobody waits for progress of an answered call");
}

#[test]
fn a_queue_that_nobody_reads_is_bounded_and_counted() {
    let mut session = Session::new(Limits { queued: 2, ..Limits::default() });
    for _ in 0..5 {
        line(&mut session, &notification("notifications/message"));
    }
    assert_eq!(session.take_dropped(), 3);
    let out = line(&mut session, &request("1", "roots/list"));
    assert!(matches!(&out[..], [Output::ToServer(error)] if error.starts_with(b"{\"jsonrpc\":\"2.0\",\"id\":1,")));
    assert_eq!(session.take_dropped(), 1);
}

#[test]
fn a_call_that_is_given_up_is_answered_cancelled_and_its_late_answer_dropped() {
    let mut session = Session::new(Limits::default());
    let attachment = call(&mut session, "5");
    let mut out = Vec::new();
    let failure = Failure::new(Kind::RequestTimeout, "too slow");
    assert!(session.give_up(attachment.stream, &failure, &mut out));
    let [Output::Event(event), Output::ToServer(cancel)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((event.failure, event.last), (Some(Kind::RequestTimeout), true));
    assert!(String::from_utf8_lossy(cancel).contains(r#""requestId":5"#));
    assert_eq!(accept(&mut session, &request("5", "x")).0, Err(Refusal::DuplicateId), "its answer may still come");
    assert_eq!(line(&mut session, &answer("5")), []);
    assert!(accept(&mut session, &request("5", "x")).0.is_ok());
}

#[test]
fn a_call_that_the_server_did_not_take_is_answered_and_its_id_is_free_again() {
    let mut session = Session::new(Limits::default());
    let (attachment, other) = (call(&mut session, "5"), call(&mut session, "6"));
    let mut out = Vec::new();
    let failure = Failure::new(Kind::BadServerReply, "not taken");
    session.refused(&IdKey::from(&crate::envelope::Id::number(5)), &failure, &mut out);
    let [Output::Event(event)] = &out[..] else { panic!("the server needs not be told: {out:?}") };
    assert_eq!((event.stream, event.failure, event.last), (attachment.stream, Some(Kind::BadServerReply), true));
    assert!(session.is_open(other.stream));
    session.refused(&IdKey::from(&crate::envelope::Id::number(5)), &failure, &mut out);
    assert_eq!(out.len(), 1, "it is refused once");
    assert!(accept(&mut session, &request("5", "x")).0.is_ok());
}

#[test]
fn a_newer_get_takes_over_and_the_older_ones_goodbye_does_no_harm() {
    let mut session = Session::new(Limits::default());
    let (older, _) = open(&mut session, None);
    let (_, out) = open(&mut session, None);
    assert_eq!(out, [Output::Close(StreamId::GET)]);
    session.closed(older);
    assert_eq!(streams(&line(&mut session, &notification("notifications/message"))), [StreamId::GET]);
}

#[test]
fn a_broken_stream_is_resumed_where_it_was() {
    let mut session = Session::new(Limits::default());
    let attachment = call(&mut session, "1");
    let out = line(&mut session, &notification("notifications/message"));
    let [Output::Event(seen)] = &out[..] else { panic!("{out:?}") };
    session.closed(attachment);
    assert_eq!(line(&mut session, &answer("1")), []);
    let (_, out) = open(&mut session, Some(&seen.id()));
    let [Output::Event(resumed)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((resumed.stream, resumed.seq, resumed.last), (attachment.stream, 2, true));
    let (_, out) = open(&mut session, Some(&resumed.id()));
    assert_eq!(out, [Output::Close(attachment.stream)], "nothing is left of it");
}

#[test]
fn a_client_that_saw_nothing_but_the_beginning_of_a_stream_resumes_from_there() {
    let mut session = Session::new(Limits::default());
    let attachment = call(&mut session, "1");
    session.closed(attachment);
    line(&mut session, &answer("1"));
    let (resumed, out) = open(&mut session, Some(&attachment.event_id()));
    assert_eq!((resumed.stream, streams(&out).len()), (attachment.stream, 1), "the answer");
    // The standing stream begins where it stands, not at its first event.
    open(&mut session, None);
    line(&mut session, &notification("notifications/message"));
    let (fresh, _) = open(&mut session, None);
    assert_eq!(fresh.event_id(), "0-1");
    session.closed(fresh);
    line(&mut session, &notification("notifications/message"));
    let (_, out) = open(&mut session, Some(&fresh.event_id()));
    assert_eq!(streams(&out), [StreamId::GET], "only what came after it");
    let (ahead, _) = open(&mut session, Some("0-99"));
    assert_eq!(ahead.event_id(), "0-2", "a number that was never sent");
}

#[test]
fn when_the_server_is_gone_every_call_is_answered() {
    let mut session = Session::new(Limits::default());
    call(&mut session, "1");
    call(&mut session, "2");
    open(&mut session, None);
    let mut out = Vec::new();
    session.end(&Failure::new(Kind::ServerExited, "gone"), &mut out);
    assert_eq!(streams(&out).len(), 2);
    assert_eq!(out.last(), Some(&Output::Close(StreamId::GET)));
}

/// What goes to the server, in order.
fn to_server(out: Vec<Output>) -> Vec<Bytes> {
    let lines = out.into_iter().filter_map(|output| match output {
        Output::ToServer(line) => Some(line),
        _ => None,
    });
    lines.collect()
}

#[test]
fn what_comes_before_a_session_is_open_that_is_opened_in_its_clients_stead_waits_for_that() {
    let mut session = Session::opened_in_stead(Limits::default());
    let (early, note) = (request("1", "tools/call"), notification("notifications/roots/list_changed"));
    assert_eq!(to_server(accept(&mut session, &early).1), [""; 0], "nobody has asked to open it yet");
    let initialize = request("0", "initialize");
    assert_eq!(to_server(accept(&mut session, &initialize).1), [initialize]);
    assert_eq!(to_server(accept(&mut session, &note).1), [""; 0]);
    let out = line(&mut session, &answer("0"));
    assert!(matches!(out.last(), Some(Output::Event(event)) if event.last), "its own answer comes last: {out:?}");
    assert_eq!(to_server(out), [Bytes::from_static(INITIALIZED), early, note]);
    let late = request("2", "tools/call");
    assert_eq!(to_server(accept(&mut session, &late).1), [late], "nothing waits in an open session");
}

#[test]
fn no_more_waits_for_a_session_to_open_than_may() {
    let mut session = Session::opened_in_stead(Limits { queued: 1, ..Limits::default() });
    let initialize = request("0", "initialize");
    assert!(accept(&mut session, &initialize).0.is_ok());
    assert!(accept(&mut session, &request("1", "tools/call")).0.is_ok());
    assert_eq!(accept(&mut session, &request("2", "tools/call")).0, Err(Refusal::TooManyCalls));
    assert!(accept(&mut session, &notification("notifications/roots/list_changed")).0.is_ok());
    assert_eq!(session.take_dropped(), 1);
    assert_eq!(
        to_server(line(&mut session, &answer("0"))).len(),
        2,
        "the end of the handshake, and the call that waited"
    );
}

#[test]
fn a_session_whose_initialize_fails_is_to_be_ended_though_nobody_waits_for_the_answer() {
    let error = Bytes::from_static(br#"{"jsonrpc":"2.0","id":0,"error":{"code":-32000,"message":"no"}}"#);
    let failure = Failure::new(Kind::RequestTimeout, "late");
    let key = IdKey::from(&crate::envelope::Id::number(0));
    for hangs_up in [false, true] {
        let begun = || {
            let mut session = Session::new(Limits::default());
            let Ok(Accepted::Call(attachment)) = accept(&mut session, &request("0", "initialize")).0 else {
                panic!("a request has an answer")
            };
            if hangs_up {
                session.closed(attachment);
            }
            (session, attachment.stream)
        };
        let (mut refusing, _) = begun();
        assert_eq!(line(&mut refusing, &error).last(), Some(&Output::NeverOpened));
        let (mut late, stream) = begun();
        let mut out = Vec::new();
        assert!(late.give_up(stream, &failure, &mut out));
        assert_eq!(out.pop(), Some(Output::NeverOpened));
        let (mut away, _) = begun();
        away.refused(&key, &failure, &mut out);
        assert_eq!(out.pop(), Some(Output::NeverOpened));
        let (mut open, _) = begun();
        assert!(!line(&mut open, &answer("0")).contains(&Output::NeverOpened));
    }
}

#[test]
fn a_call_that_nobody_wants_any_more_before_the_session_is_open_is_never_sent() {
    let mut session = Session::opened_in_stead(Limits::default());
    assert!(accept(&mut session, &request("\"open\"", "initialize")).0.is_ok());
    let (late, taken_back, wanted) = (call(&mut session, "1"), call(&mut session, "2"), request("3", "tools/call"));
    assert!(accept(&mut session, &wanted).0.is_ok());
    let mut out = Vec::new();
    assert!(session.give_up(late.stream, &Failure::new(Kind::RequestTimeout, "late"), &mut out));
    let cancel =
        Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#);
    out.extend(accept(&mut session, &cancel).1);
    assert_eq!(streams(&out), [late.stream, taken_back.stream], "both are answered");
    assert_eq!(to_server(line(&mut session, &answer("\"open\""))), [Bytes::from_static(INITIALIZED), wanted]);
    assert!(accept(&mut session, &request("1", "tools/call")).0.is_ok(), "its id is free: no late answer can come");
}

#[test]
fn what_waits_for_a_session_to_open_is_bounded_in_bytes() {
    let mut session = Session::opened_in_stead(Limits { queued_bytes: 40, ..Limits::default() });
    assert!(accept(&mut session, &request("\"open\"", "initialize")).0.is_ok());
    assert!(accept(&mut session, &request("1", "tools/call")).0.is_ok());
    assert_eq!(accept(&mut session, &request("2", "tools/call")).0, Err(Refusal::TooManyCalls));
}
