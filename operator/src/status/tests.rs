use super::*;

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn available() -> Fact {
    Fact::yes(types::AVAILABLE, reasons::AVAILABLE, "1 of 1 pods answer")
}

#[test]
fn the_time_of_transition_is_kept_while_the_status_is_and_moves_when_it_flips() {
    let (first, transitions) = merge(&[], &[available()], Some(1), time(100));
    assert_eq!(transitions.len(), 1);
    assert_eq!(first[0].last_transition_time.0, time(100));

    let other_words = Fact { message: "2 of 2 pods answer".into(), ..available() };
    let (second, transitions) = merge(&first, &[other_words], Some(2), time(200));
    assert_eq!(transitions, []);
    assert_eq!(second[0].last_transition_time.0, time(100));
    assert_eq!((second[0].message.as_str(), second[0].observed_generation), ("2 of 2 pods answer", Some(2)));

    let gone = Fact::no(types::AVAILABLE, reasons::SERVER_EXITED, "exit code 1");
    let (third, transitions) = merge(&second, &[gone], Some(2), time(300));
    assert_eq!(third[0].last_transition_time.0, time(300));
    assert!(transitions[0].flipped);
}

#[test]
fn another_reason_is_a_transition_without_a_flip() {
    let no = |reason| Fact::no(types::AVAILABLE, reason, "x");
    let (old, _) = merge(&[], &[no(reasons::PENDING)], Some(1), time(100));
    let (new, transitions) = merge(&old, &[no(reasons::NOT_MCP)], Some(1), time(200));
    assert_eq!(new[0].last_transition_time.0, time(100));
    assert!(!transitions[0].flipped);
}

#[test]
fn conditions_that_no_fact_speaks_of_stay() {
    let (old, _) = merge(&[], &[available()], Some(1), time(100));
    let accepted = Fact::no(types::ACCEPTED, reasons::INVALID, "x");
    let (new, _) = merge(&old, &[accepted], Some(2), time(200));
    assert_eq!(new[0], old[0]);
    assert_eq!(new.len(), 2);
}

#[test]
fn ready_is_what_the_first_required_condition_that_is_not_true_says() {
    let required = [types::ACCEPTED, types::AVAILABLE, types::PROGRAMMED];
    let accepted = Fact::yes(types::ACCEPTED, reasons::ACCEPTED, "");
    let waiting = Fact::no(types::PROGRAMMED, reasons::NOT_LOADED, "replica a");
    let facts = [accepted.clone(), available(), waiting];
    let ready = summarise(&facts, &required, "serves");
    assert_eq!((ready.type_, ready.state, ready.reason), (types::READY, State::False, reasons::NOT_LOADED));
    assert_eq!(summarise(&facts[..2], &required, "serves").state, State::Unknown);
    assert_eq!(summarise(&facts[..2], &required[..2], "serves").state, State::True);
}

fn server(status: Option<&MCPServerStatus>) -> portolan_crds::MCPServer {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "portolan.dev/v1alpha1", "kind": "MCPServer",
        "metadata": {"name": "a", "namespace": "b", "generation": 1},
        "spec": {"container": {"image": "i", "transport": "Stdio", "command": ["c"]}},
        "status": status,
    }))
    .unwrap()
}

#[test]
fn a_status_that_is_there_already_is_not_written() {
    let (wanted, transitions) = next(&server(None), None, MCPServerStatus::default(), &[available()]).unwrap();
    assert_eq!(transitions.len(), 1);
    assert_eq!(next(&server(Some(&wanted)), None, MCPServerStatus::default(), &[available()]), None);
}

#[test]
fn an_error_makes_its_condition_and_ready_false_and_stalled_only_when_someone_has_to_act() {
    let state = |error: &Error, type_: &str| {
        facts_of(error).into_iter().find(|fact| fact.type_ == type_).map(|fact| fact.state)
    };
    let stalled = Error::stalled(reasons::NOT_ENROLLED, "x").on(types::ACCEPTED);
    assert_eq!(state(&stalled, types::ACCEPTED), Some(State::False));
    assert_eq!(state(&stalled, types::READY), Some(State::False));
    assert_eq!(state(&stalled, types::STALLED), Some(State::True));
    assert_eq!(state(&stalled, types::RECONCILING), Some(State::False));
    let waiting = Error::waiting(std::time::Duration::from_secs(1), reasons::PENDING, "x");
    assert_eq!(state(&waiting, types::STALLED), Some(State::False));
    assert_eq!(state(&waiting, types::RECONCILING), Some(State::True));
}

#[test]
fn messages_are_cut_at_a_character_and_not_within_one() {
    assert_eq!(shorten("abc", 3), "abc");
    assert_eq!(shorten("äöü", 5), "ä…");
}

#[test]
fn a_first_touch_that_fails_writes_every_condition_and_a_later_one_keeps_what_was_known() {
    let error = Error::transient(reasons::API_SERVER_ERROR, "away");
    let facts = with_unknowns(&[], facts_of(&error));
    let (first, _) = merge(&[], &facts, Some(1), time(100));
    let mut written: Vec<&str> = first.iter().map(|condition| condition.type_.as_str()).collect();
    written.sort_unstable();
    let all = ["Accepted", "Available", "Programmed", "Progressing", "Ready", "Reconciling", "ResolvedRefs", "Stalled"];
    assert_eq!(written, all);

    let (known, _) = merge(&[], &[available()], Some(1), time(100));
    let facts = with_unknowns(&known, facts_of(&error));
    assert!(!facts.iter().any(|fact| fact.type_ == types::AVAILABLE));
}

#[test]
fn a_child_that_is_refused_makes_the_spec_not_accepted_and_hides_nothing_else() {
    let facts = || {
        vec![
            available(),
            Fact::yes(types::ACCEPTED, reasons::ACCEPTED, "the spec is valid"),
            Fact::no(types::STALLED, reasons::RECONCILING, "nothing needs a person"),
        ]
    };
    assert_eq!(overrule(facts(), None), facts());
    let refused = Error::stalled(reasons::INVALID, "requests must not exceed limits").on(types::ACCEPTED);
    let told = overrule(facts(), Some(&refused));
    let state = |type_| told.iter().filter(|fact| fact.type_ == type_).map(|fact| fact.state).collect::<Vec<_>>();
    assert_eq!(state(types::AVAILABLE), [State::True], "what serves goes on and is still looked at");
    assert_eq!(state(types::ACCEPTED), [State::False]);
    assert_eq!(state(types::READY), [State::False]);
    assert_eq!(state(types::STALLED), [State::True]);
}
