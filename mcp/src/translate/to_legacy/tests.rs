use super::*;
use crate::mac::MacKey;

const INTRODUCTION: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{}},"x":1.50}"#;
const OPENED: &str = r#"{"jsonrpc":"2.0","id":"portolan-1","result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{}},"serverInfo":{"name":"s","version":"1"}}}"#;

const ELICITS: &str = r#"{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}"#;
static ELICIT: Bytes = Bytes::from_static(ELICITS.as_bytes());

struct Fixture {
    translator: ToLegacy,
}

impl Fixture {
    fn new() -> (Self, Vec<Step>) {
        Self::of(SessionKey::generate().expect("random"))
    }

    fn of(caller: SessionKey) -> (Self, Vec<Step>) {
        let key = MacKey::new(&[7; 32]).as_ref().and_then(ParkingKey::of).expect("a key");
        let introduction = Introduction { info: "{}".into(), capabilities: r#"{"elicitation":{}}"#.into() };
        let mut out = Vec::new();
        let translator = ToLegacy::new(introduction, Parking { key, pod: "p".into(), caller }, &mut out);
        (Self { translator }, out)
    }

    fn open() -> Self {
        let (mut fixture, _) = Self::new();
        assert_eq!(fixture.server(OPENED), ["> notifications/initialized"]);
        fixture
    }

    fn client(&mut self, message: &str) -> Vec<String> {
        let mut out = Vec::new();
        self.translator.client_message(&Bytes::copy_from_slice(message.as_bytes()), &mut out).expect("a message");
        out.iter().map(shown).collect()
    }

    fn server(&mut self, message: &str) -> Vec<String> {
        let mut out = Vec::new();
        self.translator.server_message(&Bytes::copy_from_slice(message.as_bytes()), &mut out).expect("a message");
        out.iter().map(shown).collect()
    }

    fn call(&mut self, id: u64) -> Vec<String> {
        self.client(&call(id, ""))
    }

    /// What a client that was asked something is to hand back.
    fn state(told: &str) -> String {
        let answer: serde_json::Value = serde_json::from_str(told.trim_start_matches("< ")).expect("JSON");
        answer["result"]["requestState"].as_str().expect("a state").to_owned()
    }
}

fn call(id: u64, more: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t","_meta":{INTRODUCTION}{more}}}}}"#
    )
}

/// What is the same in every session of a parked call's name.
fn number_of(name: &str) -> &str {
    name.split('.').next().expect("a number")
}

fn parked(steps: &[Step]) -> Vec<Box<str>> {
    steps.iter().filter_map(|step| if let Step::Parked(name) = step { Some(name.clone()) } else { None }).collect()
}

/// A step in short: requests and notifications by their methods, others whole.
fn shown(step: &Step) -> String {
    let (way, body) = match step {
        Step::ToServer(body) => (">", body),
        Step::ToClient(body) => ("<", body),
        Step::Parked(name) => return format!("parked {}", number_of(name)),
        Step::Unparked(name) => return format!("unparked {}", number_of(name)),
    };
    let text = String::from_utf8_lossy(body);
    match Message::parse(body) {
        Ok(Message::Notification { method, .. }) if way == ">" => format!("{way} {method}"),
        _ => format!("{way} {text}"),
    }
}

#[test]
fn a_session_is_opened_with_what_the_caller_can_do_and_requests_wait_for_it() {
    let (mut fixture, asked) = Fixture::new();
    let [Step::ToServer(initialize)] = &asked[..] else { panic!("{asked:?}") };
    let initialize = String::from_utf8_lossy(initialize);
    assert!(initialize.contains(r#""capabilities":{"elicitation":{}}"#) && initialize.contains(LATEST_LEGACY));
    assert_eq!(fixture.call(1), [""; 0]);
    assert_eq!(fixture.call(2), [""; 0]);
    fixture.client(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#);
    let sent = r#"> {"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","_meta":{"x":1.50}}}"#;
    assert_eq!(fixture.server(OPENED), ["> notifications/initialized", sent]);
}

#[test]
fn a_server_that_opens_no_session_fails_the_requests_of_its_caller() {
    let (mut fixture, _) = Fixture::new();
    fixture.call(1);
    let failed = fixture.server(r#"{"jsonrpc":"2.0","id":"portolan-1","error":{"code":-1,"message":"no room"}}"#);
    assert!(
        failed[0].contains("no room") && failed[0].starts_with(r#"< {"jsonrpc":"2.0","id":1,"result""#),
        "{failed:?}"
    );
    // The next request asks again.
    assert!(fixture.call(2)[0].contains("initialize"));
    assert_eq!(fixture.call(3), [""; 0]);
    let opened = fixture.server(&OPENED.replace("portolan-1", "portolan-2"));
    assert_eq!(opened.len(), 3, "{opened:?}");
    assert_eq!(fixture.server(OPENED), [""; 0]);
    let (mut fixture, _) = Fixture::new();
    fixture.call(1);
    let mut out = Vec::new();
    assert_eq!(fixture.translator.refused(&Id::string("portolan-1"), &mut out), None);
    assert!(shown(&out[0]).contains("does not take"), "{out:?}");
    let mut fixture = Fixture::open();
    fixture.call(4);
    assert_eq!(fixture.translator.refused(&Id::number(4), &mut out), Some(Id::number(4)));
}

#[test]
fn results_say_that_they_are_complete_and_for_how_long() {
    let mut fixture = Fixture::open();
    fixture.call(1);
    let answer = fixture.server(r#"{"jsonrpc":"2.0","id":1,"result":{"content":[ ],"n":1e400}}"#);
    let server = r#""_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}"#;
    assert_eq!(
        answer,
        [format!(
            r#"< {{"jsonrpc":"2.0","id":1,"result":{{"content":[ ],"n":1e400,"resultType":"complete",{server}}}}}"#
        )]
    );
    fixture.client(&call(2, "").replace("tools/call", "tools/list"));
    let answer = fixture.server(r#"{"jsonrpc":"2.0","id":2,"result":{"tools":[],"_meta":{"y":1}}}"#);
    assert!(answer[0].contains(r#""ttlMs":0,"cacheScope":"private""#), "{answer:?}");
    assert!(answer[0].contains(r#""_meta":{"y":1,"io.modelcontextprotocol/serverInfo""#), "{answer:?}");
    let discovered = fixture.client(&call(3, "").replace("tools/call", "server/discover"));
    assert!(discovered[0].contains(r#""supportedVersions":["2026-07-28","2025-11-25""#), "{discovered:?}");
}

#[test]
fn what_the_server_asks_during_a_call_is_answered_in_a_second_round_on_any_id() {
    let mut fixture = Fixture::open();
    fixture.call(1);
    let asked = fixture.server(r#"{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{"message":"?"}}"#);
    assert!(asked[0].contains(r#""resultType":"input_required","inputRequests":{"create-1":{"method":"elicitation/create","params":{"message":"?"}}}"#), "{asked:?}");
    assert_eq!(asked[1], "parked 1");
    let state = Fixture::state(&asked[0]);
    let back = format!(r#","requestState":"{state}","inputResponses":{{"create-1":{{"action":"accept"}},"other":1}}"#);
    // Nobody else's method or name opens it.
    let refused = fixture.client(&call(5, &back).replace("\"t\"", "\"u\""));
    assert!(refused[0].contains("-32602"), "{refused:?}");
    let resumed = fixture.client(&call(6, &back));
    assert_eq!(resumed, ["unparked 1", r#"> {"jsonrpc":"2.0","id":"q","result":{"action":"accept"}}"#]);
    // It is good for once.
    assert!(fixture.client(&call(7, &back))[0].contains("-32602"));
    let progress = fixture
        .server(r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":2}}"#);
    assert!(progress[0].contains(r#""progressToken":6"#), "{progress:?}");
    let answer = fixture.server(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    assert!(answer[0].starts_with(r#"< {"jsonrpc":"2.0","id":6,"result""#), "{answer:?}");
    assert_eq!(fixture.translator.parked(), 0);
}

#[test]
fn questions_that_were_not_answered_are_asked_again() {
    let mut fixture = Fixture::open();
    fixture.call(1);
    let asked = fixture.server(r#"{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{}}"#);
    assert_eq!(fixture.server(r#"{"jsonrpc":"2.0","id":2,"method":"elicitation/create","params":{}}"#), [""; 0]);
    let back =
        |told: &str, answers: &str| format!(r#","requestState":"{}","inputResponses":{answers}"#, Fixture::state(told));
    let again = fixture.client(&call(2, &back(&asked[0], r#"{"create-1":{},"create-2":{}}"#)));
    // The second one was not told yet, so nobody can have answered it.
    assert_eq!((&*again[0], &*again[1]), ("unparked 1", r#"> {"jsonrpc":"2.0","id":1,"result":{}}"#));
    assert!(again[2].contains("create-2") && !again[2].contains("create-1"), "{again:?}");
    assert_eq!(again[3], "parked 2");
    // An answer of the server that came meanwhile is handed out; nobody will answer what it asked before that.
    let told = fixture.server(r#"{"jsonrpc":"2.0","id":1,"result":{"late":true}}"#);
    assert!(told.len() == 1 && told[0].starts_with(r#"> {"jsonrpc":"2.0","id":2,"error""#), "{told:?}");
    let done = fixture.client(&call(3, &back(&again[2], "{}")));
    assert!(done[1].starts_with(r#"< {"jsonrpc":"2.0","id":3,"result":{"late":true"#), "{done:?}");
}

#[test]
fn a_client_that_does_not_come_back_leaves_nothing_waiting() {
    let mut fixture = Fixture::open();
    fixture.call(1);
    let mut out = Vec::new();
    fixture.translator.server_message(&ELICIT, &mut out).expect("a message");
    let name = parked(&out).pop().expect("it is parked");
    out.clear();
    fixture.translator.expire("1", &mut out);
    assert_eq!((fixture.translator.parked(), out.len()), (1, 0), "that is the name in another session");
    fixture.translator.expire(&name, &mut out);
    let told: Vec<String> = out.iter().map(shown).collect();
    assert!(
        told[0].starts_with(r#"> {"jsonrpc":"2.0","id":"q","error""#) && told[1] == "> notifications/cancelled",
        "{told:?}"
    );
    assert_eq!(fixture.translator.parked(), 0);
}

#[test]
fn a_question_outlives_the_call_that_it_was_told_to() {
    let mut fixture = Fixture::open();
    fixture.call(1);
    fixture.call(2);
    // It belongs to the first call, which the server does not say.
    let asked = fixture.server(ELICITS);
    assert!(asked[0].contains(r#""id":2,"#), "{asked:?}");
    let answered = fixture.server(r#"{"jsonrpc":"2.0","id":2,"result":{}}"#);
    assert!(answered[0].contains(r#""id":1,"#) && answered[0].contains("create-1"), "{answered:?}");
    assert_eq!(answered[1], "parked 2");
    // With no call left, nobody can answer it.
    let answered = fixture.server(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    assert!(answered[0].starts_with(r#"> {"jsonrpc":"2.0","id":"q","error""#), "{answered:?}");
}

#[test]
fn whoever_comes_back_is_told_what_waits_for_others_that_may_not() {
    let mut fixture = Fixture::open();
    fixture.call(1);
    let asked = fixture.server(ELICITS);
    fixture.call(2);
    fixture.server(&ELICITS.replace("\"q\"", "\"r\""));
    // Both are parked, and the server asks in the middle of the first, which it does not say.
    assert_eq!(fixture.server(&ELICITS.replace("\"q\"", "\"s\"")), [""; 0]);
    let state = Fixture::state(&asked[0]);
    let back = format!(r#","requestState":"{state}","inputResponses":{{"create-1":{{}}}}"#);
    let told = fixture.client(&call(3, &back));
    assert_eq!(told[..2], ["unparked 1", r#"> {"jsonrpc":"2.0","id":"q","result":{}}"#]);
    assert!(told[2].contains(r#""id":3,"#) && told[2].contains("create-2") && told[3] == "parked 3", "{told:?}");
}

#[test]
fn a_parked_call_that_the_server_will_not_answer_waits_no_more() {
    let mut fixture = Fixture::open();
    fixture.call(1);
    let asked = fixture.server(ELICITS);
    let mut out = Vec::new();
    assert_eq!(fixture.translator.refused(&Id::number(1), &mut out), None, "its client has an answer");
    let told: Vec<String> = out.iter().map(shown).collect();
    assert!(told[0].contains(r#""id":"q","error""#) && told[1] == "unparked 1", "{told:?}");
    assert_eq!(fixture.translator.parked(), 0);
    let back = format!(r#","requestState":"{}""#, Fixture::state(&asked[0]));
    assert!(fixture.client(&call(2, &back))[0].contains("-32602"));
}

#[test]
fn the_name_of_a_parked_call_is_good_in_its_session_only() {
    let caller = SessionKey::generate().expect("random");
    let mut fixtures = [Fixture::of(caller.clone()).0, Fixture::of(caller).0];
    let states = fixtures.each_mut().map(|fixture| {
        fixture.server(OPENED);
        fixture.call(1);
        Fixture::state(&fixture.server(ELICITS)[0])
    });
    let back = |state: &str| format!(r#","requestState":"{state}","inputResponses":{{"create-1":{{}}}}"#);
    assert!(fixtures[0].client(&call(2, &back(&states[1])))[0].contains("-32602"));
    assert_eq!(fixtures[0].client(&call(3, &back(&states[0])))[0], "unparked 1");
}

#[test]
fn what_the_client_cannot_do_it_is_not_asked() {
    let mut fixture = Fixture::open();
    fixture.call(1);
    for (method, code) in [("sampling/createMessage", "-32601"), ("x/y", "-32601")] {
        let told = fixture.server(&format!(r#"{{"jsonrpc":"2.0","id":9,"method":"{method}"}}"#));
        assert!(told[0].starts_with("> ") && told[0].contains(code), "{told:?}");
    }
    assert_eq!(
        fixture.server(r#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#),
        [r#"> {"jsonrpc":"2.0","id":9,"result":{}}"#]
    );
    fixture.server(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    let told = fixture.server(r#"{"jsonrpc":"2.0","id":9,"method":"elicitation/create"}"#);
    assert!(told[0].contains("-32600"), "{told:?}");
}

#[test]
fn a_stream_of_notifications_hears_what_it_asked_for_and_no_more() {
    let mut fixture = Fixture::open();
    let listen = |id: u64, filter: &str| {
        let with = format!(r#","notifications":{filter}"#);
        call(id, &with).replace("tools/call", "subscriptions/listen")
    };
    let begun = fixture
        .client(&listen(1, r#"{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["a:/b"]}"#));
    assert!(
        begun[0].contains(r#""notifications":{"toolsListChanged":true,"resourceSubscriptions":["a:/b"]}"#),
        "{begun:?}"
    );
    assert!(begun[1].contains("resources/subscribe") && begun.len() == 2, "{begun:?}");
    assert_eq!(fixture.client(&listen(2, r#"{"resourceSubscriptions":["a:/b"]}"#)).len(), 1);
    let updated =
        fixture.server(r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:/b/c"}}"#);
    assert_eq!(updated.len(), 2, "{updated:?}");
    assert!(updated[0].contains(r#""io.modelcontextprotocol/subscriptionId":1"#), "{updated:?}");
    assert_eq!(
        fixture.server(r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:/bc"}}"#),
        [""; 0]
    );
    assert_eq!(fixture.server(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#).len(), 1);
    assert_eq!(fixture.server(r#"{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}"#), [""; 0]);
    let ended =
        |id: u64| format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#);
    assert_eq!(fixture.client(&ended(1)), [""; 0]);
    assert!(fixture.client(&ended(2))[0].contains("resources/unsubscribe"));
    assert!(fixture.client(&listen(3, "7"))[0].contains("-32602"));
}

#[test]
fn errors_of_an_earlier_revision_are_those_of_this_one() {
    let mut fixture = Fixture::open();
    fixture.call(1);
    let answer =
        fixture.server(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32002,"message":"no","data":{"uri":"x"}}}"#);
    assert_eq!(answer, [r#"< {"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no","data":{"uri":"x"}}}"#]);
    fixture.call(2);
    let answer = fixture.server(r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32042,"message":"visit","data":{"elicitations":[{"mode":"url","elicitationId":"e","url":"u","message":"m"}]}}}"#);
    let asked = r#"{"resultType":"input_required","inputRequests":{"url-0":{"method":"elicitation/create","params":{"mode":"url","url":"u","message":"m"}}}}"#;
    assert_eq!(answer, [format!(r#"< {{"jsonrpc":"2.0","id":2,"result":{asked}}}"#)]);
    for method in REMOVED {
        assert!(fixture.client(&call(3, "").replace("tools/call", method))[0].contains("-32601"));
    }
    assert!(fixture.client(&call(4, r#","requestState":"theirs""#))[0].contains("-32602"));
}

#[test]
fn the_level_of_log_messages_is_set_when_a_request_wants_another() {
    let mut fixture = Fixture::open();
    let loud = |id: u64| call(id, "").replace("\"x\":1.50", "\"io.modelcontextprotocol/logLevel\":\"debug\"");
    let sent = fixture.client(&loud(1));
    assert!(sent[0].contains(r#""method":"logging/setLevel","params":{"level":"debug"}"#), "{sent:?}");
    assert!(!sent[1].contains("_meta"), "{sent:?}");
    assert_eq!(fixture.client(&loud(2)).len(), 1);
    assert_eq!(fixture.call(3).len(), 1);
}
