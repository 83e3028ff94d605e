use super::*;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":"i","method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"elicitation":{}},"clientInfo":{"name":"c","version":"1"}}}"#;
const DISCOVERED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true}},"instructions":"do","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"2"}}}}"#;
const META: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}"#;

#[derive(Default)]
struct Fixture {
    translator: ToModern,
}

impl Fixture {
    fn open() -> Self {
        let mut fixture = Self::default();
        let asked = fixture.client(INITIALIZE);
        assert_eq!(
            asked,
            [format!(r#"> {{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{{"_meta":{{{META}}}}}}}"#)]
        );
        let told = fixture.server(DISCOVERED);
        assert_eq!(
            told,
            [
                r#"< {"jsonrpc":"2.0","id":"i","result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true}},"serverInfo":{"name":"s","version":"2"},"instructions":"do"}}"#
            ]
        );
        let listens = fixture.client(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        assert!(
            listens.len() == 1
                && listens[0].contains(
                    r#""id":2,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true}"#
                ),
            "{listens:?}"
        );
        assert_eq!(fixture.acknowledge(2), [""; 0]);
        fixture
    }

    fn acknowledge(&mut self, id: u64) -> Vec<String> {
        self.server(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{{}},"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#))
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
}

fn shown(step: &Step) -> String {
    match step {
        Step::ToServer(body) => format!("> {}", String::from_utf8_lossy(body)),
        Step::ToClient(body) => format!("< {}", String::from_utf8_lossy(body)),
        other => format!("{other:?}"),
    }
}

#[test]
fn every_request_says_what_the_session_said_once() {
    let mut fixture = Fixture::open();
    let sent = fixture.client(r#"{"id":7,"jsonrpc":"2.0","method":"tools/call","params":{"name":"t","n":1.50,"_meta":{"progressToken":"p"}}}"#);
    assert_eq!(
        sent,
        [format!(
            r#"> {{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{{"name":"t","n":1.50,"_meta":{{"progressToken":"p",{META}}}}}}}"#
        )]
    );
    let told = fixture
        .server(r#"{"jsonrpc":"2.0","id":3,"result":{"resultType":"complete","content":[ ],"structuredContent":[1]}}"#);
    assert_eq!(told, [r#"< {"jsonrpc":"2.0","id":7,"result":{"content":[ ]}}"#]);
    assert_eq!(
        fixture.client(r#"{"jsonrpc":"2.0","id":8,"method":"ping"}"#),
        [r#"< {"jsonrpc":"2.0","id":8,"result":{}}"#]
    );
    fixture.client(r#"{"jsonrpc":"2.0","id":8,"method":"logging/setLevel","params":{"level":"error"}}"#);
    let sent = fixture.client(r#"{"jsonrpc":"2.0","id":9,"method":"tools/list"}"#);
    assert!(sent[0].contains(r#""io.modelcontextprotocol/logLevel":"error""#), "{sent:?}");
    let failed = fixture.server(r#"{"jsonrpc":"2.0","id":4,"error":{"code":-1,"message":"m"}}"#);
    assert_eq!(failed, [r#"< {"jsonrpc":"2.0","id":9,"error":{"code":-1,"message":"m"}}"#]);
}

#[test]
fn tools_that_no_client_may_call_are_not_shown_and_a_result_of_a_call_is_not_looked_at() {
    let mut fixture = Fixture::open();
    let tool = r#"{"name":"u","inputSchema":{"properties":{"x":{"type":"number","x-mcp-header":"X"}}}}"#;
    let tools = format!(r#"{{"tools":[{tool},{{ "name":"f" }}]}}"#);
    fixture.client(r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#);
    let told = fixture.server(&format!(r#"{{"jsonrpc":"2.0","id":3,"result":{tools}}}"#));
    assert_eq!(told, [r#"< {"jsonrpc":"2.0","id":7,"result":{"tools":[{ "name":"f" }]}}"#]);
    fixture.client(r#"{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"f"}}"#);
    let told = fixture.server(&format!(r#"{{"jsonrpc":"2.0","id":4,"result":{tools}}}"#));
    assert_eq!(told, [format!(r#"< {{"jsonrpc":"2.0","id":8,"result":{tools}}}"#)]);
}

#[test]
fn a_result_that_asks_for_more_becomes_questions_and_a_second_request() {
    let mut fixture = Fixture::open();
    fixture.client(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#);
    let asked = fixture.server(r#"{"jsonrpc":"2.0","id":3,"result":{"resultType":"input_required","requestState":"s\u0041","inputRequests":{"a":{"method":"elicitation/create","params":{"mode":"url","url":"u"}},"b":{"method":"elicitation/create","params":{"message":"?"}}}}}"#);
    assert_eq!(
        asked,
        [
            r#"< {"jsonrpc":"2.0","id":"portolan-1","method":"elicitation/create","params":{"mode":"url","url":"u","elicitationId":"portolan-1"}}"#,
            r#"< {"jsonrpc":"2.0","id":"portolan-2","method":"elicitation/create","params":{"message":"?"}}"#,
        ]
    );
    assert_eq!(fixture.client(r#"{"jsonrpc":"2.0","id":"portolan-2","result":{"action":"accept"}}"#), [""; 0]);
    let again = fixture.client(r#"{"jsonrpc":"2.0","id":"portolan-1","error":{"code":-1,"message":"no"}}"#);
    assert!(again[0].contains(r#""id":4,"method":"tools/call","params":{"name":"t","inputResponses":{"b":{"action":"accept"},"a":{"action":"cancel"}},"requestState":"s\u0041""#), "{again:?}");
    assert_eq!(fixture.client(r#"{"jsonrpc":"2.0","id":"portolan-1","result":{}}"#), [""; 0]);
    let done = fixture.server(r#"{"jsonrpc":"2.0","id":4,"result":{"resultType":"complete","content":[]}}"#);
    assert_eq!(done, [r#"< {"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#]);
}

#[test]
fn a_server_that_asks_without_end_or_for_what_nobody_has_fails_the_call() {
    let mut fixture = Fixture::open();
    fixture.client(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#);
    let mut id = 3;
    let told = loop {
        let told = fixture.server(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","requestState":"s"}}}}"#
        ));
        id += 1;
        if told[0].starts_with('<') {
            break told;
        }
    };
    assert!(told[0].contains("again and again") && id > 30, "{told:?}");
    for asked in
        [r#"{"resultType":"input_required","inputRequests":{"a":{"method":"tools/call"}}}"#, r#"{"resultType":"task"}"#]
    {
        fixture.client(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#);
        let told = fixture.server(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{asked}}}"#));
        assert!(told.len() == 1 && told[0].contains("-32007"), "{told:?}");
        id += 1;
    }
    fixture.client(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#);
    fixture.server(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","inputRequests":{{"a":{{"method":"roots/list"}}}}}}}}"#));
    let told = fixture.client(r#"{"jsonrpc":"2.0","id":"portolan-1","error":{"code":-1,"message":"never"}}"#);
    assert!(told[0].contains(r#""id":7,"error""#) && told[0].contains("never"), "{told:?}");
}

#[test]
fn a_request_that_is_taken_back_is_taken_back_where_it_is() {
    let mut fixture = Fixture::open();
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#;
    fixture.client(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#);
    let told = fixture.client(cancelled);
    assert!(told[0].starts_with('>') && told[0].contains(r#""requestId":3"#), "{told:?}");
    fixture.client(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#);
    fixture.server(r#"{"jsonrpc":"2.0","id":4,"result":{"resultType":"input_required","inputRequests":{"a":{"method":"roots/list"}}}}"#);
    let told = fixture.client(cancelled);
    assert!(told[0].starts_with('<') && told[0].contains(r#""requestId":"portolan-1""#), "{told:?}");
    assert_eq!(fixture.client(cancelled), [""; 0]);
}

#[test]
fn a_session_hears_of_the_resources_it_watches_through_one_stream_at_a_time() {
    let mut fixture = Fixture::open();
    let listens = fixture.client(r#"{"jsonrpc":"2.0","id":7,"method":"resources/subscribe","params":{"uri":"a:b"}}"#);
    assert!(
        listens.len() == 1
            && listens[0].contains(r#""id":3"#)
            && listens[0].contains(r#""toolsListChanged":true,"resourceSubscriptions":["a:b"]"#),
        "{listens:?}"
    );
    // The old stream is heard until the new one has begun.
    let changed = |id: u64| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#
        )
    };
    assert_eq!(
        fixture.server(&changed(2)),
        [r#"< {"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{}}"#]
    );
    assert_eq!(fixture.server(&changed(3)), [""; 0]);
    let begun = fixture.acknowledge(3);
    assert!(
        begun[0].contains(r#""requestId":2"#) && begun[1] == r#"< {"jsonrpc":"2.0","id":7,"result":{}}"#,
        "{begun:?}"
    );
    assert_eq!(fixture.server(&changed(2)), [""; 0]);
    assert_eq!(fixture.server(&changed(3)).len(), 1);
    let again = fixture.client(r#"{"jsonrpc":"2.0","id":8,"method":"resources/subscribe","params":{"uri":"a:b"}}"#);
    assert_eq!(again, [r#"< {"jsonrpc":"2.0","id":8,"result":{}}"#]);
    let other = fixture.client(r#"{"jsonrpc":"2.0","id":9,"method":"resources/unsubscribe","params":{"uri":"a:b"}}"#);
    assert!(other[0].contains(r#""id":4"#) && other[1] == r#"< {"jsonrpc":"2.0","id":9,"result":{}}"#, "{other:?}");
    // One that the server refuses leaves the one before.
    fixture.client(r#"{"jsonrpc":"2.0","id":10,"method":"resources/subscribe","params":{"uri":"c:d"}}"#);
    let refused = fixture.server(r#"{"jsonrpc":"2.0","id":5,"error":{"code":-2,"message":"no"}}"#);
    assert_eq!(refused, [r#"< {"jsonrpc":"2.0","id":10,"error":{"code":-2,"message":"no"}}"#]);
    assert_eq!(fixture.server(&changed(3)).len(), 1);
    // What was refused is not watched, and is asked for again.
    let subscribe =
        |id: u64| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"resources/subscribe","params":{{"uri":"c:d"}}}}"#);
    let again = fixture.client(&subscribe(11));
    assert!(again.len() == 1 && again[0].contains(r#""id":6"#), "{again:?}");
    // Who asks for the same meanwhile is answered with the one before.
    assert_eq!(fixture.client(&subscribe(12)), [""; 0]);
    let begun = fixture.acknowledge(6);
    assert!(begun[1].contains(r#""id":11"#) && begun[2].contains(r#""id":12"#), "{begun:?}");
}

#[test]
fn whoever_stops_to_watch_before_it_began_is_answered_both_times() {
    let mut fixture = Fixture::default();
    fixture.client(INITIALIZE);
    fixture.server(&DISCOVERED.replace("true},\"resources", "false},\"resources"));
    assert_eq!(fixture.client(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), [""; 0]);
    let of = |id: u64, what: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"resources/{what}","params":{{"uri":"a:b"}}}}"#)
    };
    fixture.client(&of(7, "subscribe"));
    let told = fixture.client(&of(8, "unsubscribe"));
    assert!(told[0].contains(r#""requestId":2"#), "{told:?}");
    assert_eq!(told[1..], [r#"< {"jsonrpc":"2.0","id":7,"result":{}}"#, r#"< {"jsonrpc":"2.0","id":8,"result":{}}"#]);
    // What the server answers to the stream that nobody wants is for nobody.
    assert_eq!(fixture.server(r#"{"jsonrpc":"2.0","id":2,"result":{}}"#), [""; 0]);
}

#[test]
fn a_server_that_cannot_be_asked_who_it_is_opens_no_session() {
    let mut fixture = Fixture::default();
    fixture.client(INITIALIZE);
    let told = fixture.server(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"m"}}"#);
    assert_eq!(told, [r#"< {"jsonrpc":"2.0","id":"i","error":{"code":-32022,"message":"m"}}"#]);
    let mut fixture = Fixture::default();
    fixture.client(INITIALIZE);
    let mut out = Vec::new();
    assert_eq!(fixture.translator.refused(&Id::number(1), &mut out), None);
    assert!(shown(&out[0]).contains("-32005"), "{out:?}");
    let mut fixture = Fixture::open();
    fixture.client(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#);
    assert_eq!(fixture.translator.refused(&Id::number(3), &mut out), Some(Id::number(7)));
}
