use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn verdict(body: impl AsRef<[u8]>) -> Option<(Fault, usize)> {
    scan(body.as_ref()).err().map(|ScanError { fault, at }| (fault, at))
}

fn fault(body: impl AsRef<[u8]>) -> Option<Fault> {
    verdict(body).map(|(fault, _)| fault)
}

#[test]
fn every_form_of_json_passes_as_it_is() {
    for body in [
        "0",
        "-0",
        " 10\n",
        "0.5",
        "1e9",
        "1E-9",
        "-1.25e+2",
        "true",
        "false",
        "null",
        "\"\"",
        "[]",
        "{}",
        " [ ] ",
        "\t{\r}\n",
        "[1,2,[3,{\"a\":[]}]]",
        r#"{"a":1,"b":{"a":1},"":2}"#,
        r#""\"\\\/\b\f\n\r\t\u0041""#,
        r#""\ud834\udd1e""#,
        "\"\u{7f}\u{2028}\u{feff}\u{10fffe}\"",
        r#"{"\u0000":1,"a\u0000":2}"#,
        "\"é\u{1d11e}\"",
    ] {
        assert_eq!(verdict(body), None, "{body}");
    }
}

#[test]
fn what_is_no_json_is_refused_where_it_stops_being_it() {
    for (body, at) in [
        ("\u{feff}{}", 0),
        ("'a'", 0),
        ("[1 2]", 3),
        ("[1,]", 3),
        ("[,1]", 1),
        ("[1,,2]", 3),
        ("[1:2]", 2),
        ("{1:2}", 1),
        ("{\"a\" 1}", 5),
        ("{\"a\"::1}", 5),
        ("{\"a\":1,}", 7),
        ("{\"a\",1}", 4),
        ("{a:1}", 1),
        ("[1}", 2),
        ("{\"a\":1]", 6),
        ("+1", 0),
        (".5", 0),
        ("1.e1", 2),
        ("[-]", 2),
        ("[1.]", 3),
        ("[1e]", 3),
        ("[1e+]", 4),
        ("[01]", 2),
        ("[-01]", 3),
        ("[0x1]", 2),
        ("[1_0]", 2),
        ("NaN", 0),
        ("Infinity", 0),
        ("[truE]", 1),
        ("[nul]", 1),
        ("\u{a0}1", 0),
        ("\u{c}1", 0),
        ("[1/**/]", 2),
        ("{}#", 2),
        ("[\u{ff11}]", 1),
        ("]", 0),
        ("[1\0]", 2),
    ] {
        let expected = if body == "{}#" { Fault::Trailing } else { Fault::Unexpected };
        assert_eq!(verdict(body), Some((expected, at)), "{body}");
    }
}

#[test]
fn a_body_that_ends_too_early_is_said_to() {
    for body in [
        "",
        " ",
        "[",
        "[1",
        "[1,",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "\"",
        "\"a",
        "\"\\",
        "-",
        "1.",
        "1e",
        "1e-",
        "tru",
        "n",
    ] {
        assert_eq!(fault(body), Some(Fault::Unfinished), "{body}");
    }
}

#[test]
fn nothing_may_follow_the_value() {
    for body in ["{} {}", "{}x", "[]]", "1 2", "\"a\"b", "{}\0", "nulll", "2]"] {
        assert_eq!(fault(body), Some(Fault::Trailing), "{body}");
    }
}

#[test]
fn strings_are_valid_text() {
    for (body, expected) in [
        (&b"\"\xff\""[..], Fault::NotUtf8),
        (b"\"\xc0\xaf\"", Fault::NotUtf8),
        (b"\"\xed\xa0\x80\"", Fault::NotUtf8),
        (b"{\"a\":\"\xe9\"}", Fault::NotUtf8),
        (b"\xff\xfe{\0}\0", Fault::NotUtf8),
        (b"\"\t\"", Fault::ControlCharacter),
        (b"\"\n\"", Fault::ControlCharacter),
        (b"\"\0\"", Fault::ControlCharacter),
        (br#""\a""#, Fault::BadEscape),
        (br#""\x41""#, Fault::BadEscape),
        (br#""\U0041""#, Fault::BadEscape),
        (br#""\u00g1""#, Fault::BadEscape),
        (br#""\u123""#, Fault::BadEscape),
        (br#""\u+123""#, Fault::BadEscape),
        (br#""\ud800""#, Fault::LoneSurrogate),
        (br#""\ud800x""#, Fault::LoneSurrogate),
        (br#""\ud800\n""#, Fault::LoneSurrogate),
        (br#""\ud800\ud800""#, Fault::LoneSurrogate),
        (br#""\udc00""#, Fault::LoneSurrogate),
        (br#"{"\udfaa":0}"#, Fault::LoneSurrogate),
    ] {
        assert_eq!(fault(body), Some(expected), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn numbers_are_bounded() {
    assert_eq!(fault("9".repeat(64)), None);
    assert_eq!(fault("9".repeat(65)), Some(Fault::NumberTooLong));
    assert_eq!(fault(format!("0.{}", "1".repeat(63))), Some(Fault::NumberTooLong));
    assert_eq!(fault("1.7976931348623157e308"), None);
    assert_eq!(fault("1e309"), Some(Fault::NumberOutOfRange));
    assert_eq!(fault("-1e999999"), Some(Fault::NumberOutOfRange));
    assert_eq!(fault("123e-10000000"), None, "next to nothing is nothing to every parser");
}

#[test]
fn nesting_is_bounded_and_never_recursed_into() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(fault(nested(MAX_DEPTH)), None);
    assert_eq!(verdict(nested(MAX_DEPTH + 1)), Some((Fault::TooDeep, MAX_DEPTH)));
    assert_eq!(fault("[{\"a\":".repeat(1_000_000)), Some(Fault::TooDeep));
}

#[test]
fn a_key_stands_once_however_it_is_written_and_wherever() {
    for body in [
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"é":1,"\u00e9":2}"#,
        r#"{"\ud834\udd1e":1,"𝄞":2}"#,
        r#"[{"x":{"y":[{"k":1,"l":2,"k":3}]}}]"#,
        r#"{"method":"a","method":"b"}"#,
        r#"{"params":{"arguments":{"deep":{"a":1,"a":2}}}}"#,
        r#"{"":1,"":2}"#,
    ] {
        assert_eq!(fault(body), Some(Fault::RepeatedKey), "{body}");
    }
    let many = |last: usize| {
        let keys: Vec<_> = (0..1000).chain([last]).map(|key| format!("\"k{key}\":0")).collect();
        format!("{{{}}}", keys.join(","))
    };
    assert_eq!(fault(many(1000)), None);
    for repeated in [0, 15, 16, 17, 999] {
        assert_eq!(fault(many(repeated)), Some(Fault::RepeatedKey), "k{repeated}");
    }
}

#[test]
fn no_key_looks_like_one_of_the_protocols() {
    for key in [
        "Method",
        "METHOD",
        "method\\u0000",
        "method\\u0000x",
        " method",
        "ｍethod",
        "meth\u{200b}od",
        "param\u{17f}",
        "jsonrpc\\t",
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","{key}":"x"}}"#);
        assert_eq!(fault(&body), Some(Fault::LookalikeKey), "{body}");
    }
    for key in ["Name", "argument\u{17f}", "URI", "requestid", "_META", "\\u0000name", "tas\u{212a}"] {
        let body = format!(r#"{{"method":"x","params":{{"{key}":1}}}}"#);
        assert_eq!(fault(&body), Some(Fault::LookalikeKey), "{body}");
    }
    for key in ["ProgressToken", "io.modelcontextprotocol/protocolversion", "io.modelcontextprotocol/clientinfo"] {
        let body = format!(r#"{{"params":{{"_meta":{{"{key}":1}}}}}}"#);
        assert_eq!(fault(&body), Some(Fault::LookalikeKey), "{body}");
    }
}

#[test]
fn unknown_members_and_the_senders_own_keys_pass() {
    for body in [
        r#"{"jsonrpc":"2.0","x-vendor":1,"größe":2,"methods":3}"#,
        r#"{"params":{"arguments":{"Name":1,"name":2,"NAME":3,"a\u0000":4},"names":[{"Method":1}]}}"#,
        r#"{"result":{"Method":1,"params":{"Name":1}}}"#,
        r#"[{"Method":1}]"#,
    ] {
        assert_eq!(fault(body), None, "{body}");
    }
}

#[test]
fn a_key_of_any_length_may_read_as_a_reserved_name() {
    let hidden = "\u{200b}".repeat(10_000);
    let space = " ".repeat(10_000);
    for key in
        [format!("meth{hidden}od"), format!("{space}method{space}"), format!("Method\\u0000{}", "x".repeat(10_000))]
    {
        assert_eq!(fault(format!("{{\"{key}\":1}}")), Some(Fault::LookalikeKey), "{}", key.len());
    }
    let longest = "io.modelcontextprotocol/clientCapabilities";
    let meta = |key: &str| fault(format!(r#"{{"params":{{"_meta":{{"{key}":1}}}}}}"#));
    assert_eq!(meta(longest), None);
    assert_eq!(meta(&longest.to_uppercase()), Some(Fault::LookalikeKey));
    assert_eq!(meta(&format!("{}x", longest.to_uppercase())), None);
}

const NAMES: &[&str] = &["id", "kid", "disk", "fi"];

/// What [`is_lookalike`](keys::is_lookalike) finds without a copy, found the slow way.
fn is_lookalike(key: &str, reserved: &[&str]) -> bool {
    use unicode_normalization::UnicodeNormalization;
    let fold = |key: &str| {
        let seen = key.nfkc().filter(|character| !keys::is_unseen(*character));
        let folded: String = seen.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect();
        folded.trim().to_owned()
    };
    let up_to_nul = key.split('\0').next().unwrap_or_default();
    !reserved.contains(&key)
        && [key, up_to_nul].map(fold).iter().any(|folded| reserved.iter().any(|name| name.eq_ignore_ascii_case(folded)))
}

/// Names, each character in one of the forms that fold to it, with what folding may take away around it.
fn near_names() -> impl Strategy<Value = String> {
    let between =
        ["", "", "", "", "", "\0", " ", "\t", "\u{a0}", "\u{200b}", "\u{feff}", "\u{301}", "\u{3000}", "é", "x"];
    let forms = |character| match character {
        'i' => ["i", "I", "\u{ff49}", "\u{131}", "\u{130}"],
        's' => ["s", "S", "\u{ff53}", "\u{17f}", "\u{24e2}"],
        'k' => ["k", "K", "\u{ff4b}", "\u{212a}", "\u{1d4c0}"],
        'd' => ["d", "D", "\u{ff44}", "\u{217e}", "\u{10d}"],
        _ => ["f", "F", "\u{ff46}", "\u{fb00}", "\u{1e1f}"],
    };
    let place = (prop::sample::select(between.to_vec()), 0..5usize, prop::sample::select(between.to_vec()));
    (prop::sample::select(NAMES.to_vec()), prop::collection::vec(place, 4)).prop_map(move |(name, places)| {
        let characters = name.chars().zip(places);
        characters.map(|(character, (before, form, after))| [before, forms(character)[form], after].concat()).collect()
    })
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |number| serde_json::Number::from_f64(number).map(Value::from)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{0,6}", inner, 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_lookalike_is_found_as_folding_finds_it(key in near_names()) {
        prop_assert_eq!(keys::is_lookalike(&key, NAMES), is_lookalike(&key, NAMES), "{:?}", key);
    }

    #[test]
    fn whatever_a_serializer_writes_passes(value in json()) {
        prop_assert_eq!(verdict(value.to_string()), None);
        prop_assert_eq!(verdict(serde_json::to_string_pretty(&value).unwrap()), None);
    }

    #[test]
    fn whatever_passes_is_json_to_a_common_parser(body in "[\\[\\]{}:,\"\\\\0-9eE+.truefalsn \\-u]{0,40}") {
        let common = serde_json::from_str::<Value>(&body);
        match fault(&body) {
            None => prop_assert!(common.is_ok(), "{}", body),
            // What is stricter here on purpose.
            Some(Fault::RepeatedKey | Fault::LookalikeKey | Fault::NumberTooLong) => {}
            Some(_) => prop_assert!(common.is_err(), "{}", body),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = scan(&body);
    }
}
