//! Every class of case by which JSON parsers are known to differ (the classes of `nst/JSONTestSuite`, with cases of our
//! own), and what the strict scan says of it. Where RFC 8259 leaves a choice, the scan refuses what parsers read
//! differently and takes what all of them read alike.

use portolan_mcp::scan::{Fault, MAX_DEPTH, scan};

/// A class by what is in it, what the scan says of its cases, and the cases.
type Class = (&'static str, Option<Fault>, &'static [&'static [u8]]);

/// What RFC 8259 demands of every parser to take.
const TAKEN: &[Class] = &[
    ("array: empty", None, &[b"[]", b"[ ]", b"[[ ]\t ]"]),
    ("array: of one literal, string or number", None, &[b"[null]", b"[true]", b"[false]", b"[\"\"]", b"[7]"]),
    ("array: of values of every kind", None, &[b"[false, 2, \"3\", {}, [], null]", b"[0,null,null,0]"]),
    ("array: space before, within and behind", None, &[b" [3]", b"[3\n]", b"[3] ", b"[\"x\"]\n", b"\r\n[ 3 ,\t4 ]\t"]),
    ("number: integers and zeros of either sign", None, &[b"[6]", b"[-6]", b"[-1]", b"[0]", b"[-0]", b"[ 5]"]),
    ("number: fractions", None, &[b"[3.25]", b"[-0.5]", b"[0.0]"]),
    (
        "number: exponents of either case and sign",
        None,
        &[b"[7e3]", b"[7E3]", b"[7e+3]", b"[7E+3]", b"[7e-3]", b"[7E-3]", b"[0e2]", b"[0e+2]", b"[2.5e7]", b"[321e54]"],
    ),
    ("number: next to nothing", None, &[b"[-0.000000000000000000000000000000000000000000003]"]),
    ("object: empty", None, &[b"{}", b"{ \n }"]),
    (
        "object: one member and several",
        None,
        &[b"{\"k\":\"v\"}", b"{\"k\":\"v\", \"l\":\"w\"}", b"{\"k\":[]}", b"{\n\"k\" : 1\n}"],
    ),
    ("object: an empty key", None, &[b"{\"\":null}"]),
    ("object: NUL in a key", None, &[br#"{"left\u0000right": 1}"#]),
    ("object: extreme numbers", None, &[b"{ \"low\": -2.0e+30, \"high\": 2.0e+30 }"]),
    (
        "object: long strings",
        None,
        &[b"{\"a\":\"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\"}"],
    ),
    ("object: a string of escapes alone", None, &[br#"{"t":"\u0434\u0430\u043d\u043d\u044b\u0435"}"#]),
    ("object: keys that only Unicode normalization makes one", None, &["{\"ñ\":1,\"n\u{303}\":2}".as_bytes()]),
    ("string: empty, space, ASCII", None, &[b"\"\"", b"\" \"", b"[\"abc \"]", b"[ \"abc\"]"]),
    ("string: every escape of one letter", None, &[br#"["\t\r\n\f\b\/\\\""]"#, br#"["\""]"#]),
    ("string: an escaped backslash before what would be an escape", None, &[br#"["\\u0041"]"#, br#"["\\t"]"#]),
    (
        "string: escapes of one, two and three bytes of UTF-8",
        None,
        &[br#"["\u0041\u00e4\u20AC"]"#, br#"["\u002e"]"#, br#"["\u0153"]"#, br#"["\u0905"]"#],
    ),
    (
        "string: escaped controls, quote, backslash, space",
        None,
        &[br#"["\u0000"]"#, br#"["\u001f"]"#, br#"["a\u000Db"]"#, br#"["\u0022"]"#, br#"["\u005c"]"#, br#"["\u00a0"]"#],
    ),
    ("string: surrogate pairs in either case", None, &[br#"["\uD83D\ude80"]"#, br#"["\ud83d\udE80\uD83C\uDF0D"]"#]),
    ("string: the last surrogate pair", None, &[br#"["\udbff\udfff"]"#]),
    (
        "string: escaped noncharacters and unseen characters",
        None,
        &[
            br#"["\uffff"]"#,
            br#"["\uffFE"]"#,
            br#"["\ufdd5"]"#,
            br#"["\ud87f\udffe"]"#,
            br#"["\u200d"]"#,
            br#"["\u2063"]"#,
        ],
    ),
    (
        "string: UTF-8 of two, three and four bytes",
        None,
        &["[\"ø\"]".as_bytes(), "[\"語\"]".as_bytes(), "[\"£🚀\"]".as_bytes(), "[\"↯☃↯\"]".as_bytes()],
    ),
    (
        "string: noncharacters and unassigned ones in UTF-8",
        None,
        &["[\"\u{fffe}\"]".as_bytes(), "[\"\u{10ffff}\"]".as_bytes(), "[\"\u{2fffd}\"]".as_bytes()],
    ),
    ("string: separators that other languages end a line at", None, &["[\"\u{2028}\u{2029}\u{85}\"]".as_bytes()]),
    ("string: DEL, which needs no escape", None, &[b"[\"\x7f\"]", b"[\"b\x7fb\"]"]),
    ("string: what looks like comments", None, &[b"[\"x//y/*z*/#\"]"]),
    ("structure: a scalar alone", None, &[b"17", b"-0.25", b"true", b"false", b"null", b"\"abc\"", b"\"\""]),
    ("structure: a line break behind", None, &[b"[\"k\"]\n", b"{}\r\n"]),
];

/// What RFC 8259 demands of no parser to take.
const REFUSED: &[Class] = &[
    ("array: no comma", Some(Fault::Unexpected), &[b"[2 false]", b"[5[6]]", b"[\"a\"\"b\"]"]),
    ("array: a comma too many", Some(Fault::Unexpected), &[b"[\"\",]", b"[3,]", b"[3,,]", b"[3,,4]", b"[\"z\",,]"]),
    ("array: a comma first or alone", Some(Fault::Unexpected), &[b"[,3]", b"[,]", b"[  , \"\"]"]),
    ("array: another separator", Some(Fault::Unexpected), &[b"[\"\": 2]", b"[3:4]", b"[3;4]"]),
    ("array: no value", Some(Fault::Unexpected), &[b"[-]", b"[+]", b"[*]", b"[y"]),
    (
        "array: not closed",
        Some(Fault::Unfinished),
        &[b"[", b"[\"\"", b"[\"y\"", b"[2,", b"[2,\n2\n,2", b"[\"b\",\n5\n,2,", b"[{}", b"[2"],
    ),
    ("array: closed twice or followed", Some(Fault::Trailing), &[b"[\"y\"]]", b"[2]]", b"[\"\"],", b"[2]y", b"[][]"]),
    (
        "array: a vertical tab or a form feed as space",
        Some(Fault::Unexpected),
        &[b"[\x0b1]", b"[\"a\"\x0c]", b"[\"a\"\\f]"],
    ),
    ("literal: cut short or another word", Some(Fault::Unexpected), &[b"[tr]", b"[fal]", b"[nu]", b"[\"y\", trust]"]),
    ("literal: cut short by the end", Some(Fault::Unfinished), &[b"[ true, fa", b"[ false, t", b"[ true, nu"]),
    ("literal: in capitals", Some(Fault::Unexpected), &[b"[False]", b"[NULL]", b"[True]"]),
    ("number: a plus sign", Some(Fault::Unexpected), &[b"[+2]", b"[++2]", b"[2+3]"]),
    ("number: a leading zero", Some(Fault::Unexpected), &[b"[09]", b"[-09]", b"[-034]", b"[034]"]),
    (
        "number: no digit before or behind the point",
        Some(Fault::Unexpected),
        &[b"[.5]", b"[.-5]", b"[.5e-6]", b"[-.5]", b"[5.]", b"[-5.]", b"[5.e6]", b"[5.e+6]", b"[5.e-6]", b"[0.e6]"],
    ),
    ("number: two points", Some(Fault::Unexpected), &[b"[0.3.4]", b"[-3.0.]"]),
    (
        "number: no digit in the exponent",
        Some(Fault::Unexpected),
        &[
            b"[4e]", b"[4E]", b"[0e+]", b"[0E+]", b"[4.0e-]", b"[4.0e+]", b"[0.7e]", b"[8.e+]", b"[4eE5]", b"[0e+-5]",
            b"[4eb]",
        ],
    ),
    ("number: hexadecimal", Some(Fault::Unexpected), &[b"[0x7]", b"[0x7f]", b"[2.5T-30]", b"[2.5b-3]"]),
    ("number: grouped", Some(Fault::Unexpected), &[b"[2 000.0]", b"[2_000]"]),
    (
        "number: what is no number",
        Some(Fault::Unexpected),
        &[b"[Infinity]", b"[-Infinity]", b"[Inf]", b"[+Inf]", b"[-NaN]"],
    ),
    ("number: a literal's beginning", Some(Fault::Unexpected), &[b"[NaN]", b"[nan]"]),
    ("number: a minus alone", Some(Fault::Unexpected), &[b"[-bar]", b"[- 2]", b"[-]"]),
    ("number: letters behind", Some(Fault::Unexpected), &[b"[-2y]", b"[-321.321bar]"]),
    ("number: digits that are not ASCII", Some(Fault::Unexpected), &["[\u{ff17}]".as_bytes(), "[\u{667}]".as_bytes()]),
    ("number: broken UTF-8 within", Some(Fault::NotUtf8), &[b"[45\xe5]", b"[2e2\xe5]", b"[0\xe5]\n", b"[2e\xe5]"]),
    ("number: alone, and followed", Some(Fault::Trailing), &[b"3@", b"45\0", b"2]", b"0 0", b"012"]),
    ("object: no colon, or another sign", Some(Fault::Unexpected), &[b"{\"k\", 1}", b"{\"k\" v}", b"{\"k\" \"v\"}"]),
    ("object: a colon too many", Some(Fault::Unexpected), &[b"{\"k\"::\"v\"}"]),
    ("object: no key", Some(Fault::Unexpected), &[b"{:\"v\"}", b"{[: \"v\"}"]),
    (
        "object: a key that is no string",
        Some(Fault::Unexpected),
        &[b"{2:2}", b"{8888E8888:2}", b"{true:1,true:1}", b"{k: \"v\"}", b"{'k':1}", b"{k: 'v'}", "{🚀}".as_bytes()],
    ),
    ("object: no value", Some(Fault::Unexpected), &[b"{\"k\":}", b"{ \"k\" : \"v\", \"l\" }"]),
    (
        "object: a comma too many",
        Some(Fault::Unexpected),
        &[b"{\"k\":1,}", b"{\"k\":1,,,}", b"{\"k\":1,,\"l\":2}", b"{,}"],
    ),
    ("object: garbage behind a value", Some(Fault::Unexpected), &[b"{\"k\":\"v\" 45}"]),
    ("object: a comment within", Some(Fault::Unexpected), &[b"{\"k\":/*no*/\"v\"}", b"[/**/]", b"[//\n1]"]),
    ("object: broken UTF-8 in a key", Some(Fault::NotUtf8), &[b"{\"\xb7\":\"1\",}"]),
    (
        "object: not closed",
        Some(Fault::Unfinished),
        &[b"{", b"{\"k\"", b"{\"k\":", b"{\"k\":\"v", b"{\"k\":\"v\"", b"{\"k\": 1,", b"{\"k"],
    ),
    (
        "object: closed, and followed",
        Some(Fault::Trailing),
        &[
            b"{}}",
            b"{\"k\":1}#",
            b"{\"k\":1}#{}",
            b"{\"k\": 1} \"v\"",
            b"{\"k\":1}/**/",
            b"{\"k\":1}/**//",
            b"{\"k\":1}//",
            b"{\"k\":1}/",
        ],
    ),
    (
        "string: an escape that JSON does not know",
        Some(Fault::BadEscape),
        &[
            br#"["\x41"]"#,
            br#"["\q"]"#,
            br#"["\e"]"#,
            br#""\U0041""#,
            b"[\"\\\0\"]",
            b"[\"\\\t\"]",
            "[\"\\🚀\"]".as_bytes(),
        ],
    ),
    (
        "string: an escape of less than four digits, or of none",
        Some(Fault::BadEscape),
        &[br#"["\u00B"]"#, br#"["\uzzzz"]"#, br#"["\u"]"#, br#"["\u 041"]"#],
    ),
    ("string: an escaped end", Some(Fault::Unfinished), &[br#"["\"]"#, br#"["\\\"]"#, br#"["\"#]),
    (
        "string: half of a pair, and half an escape",
        Some(Fault::LoneSurrogate),
        &[
            br#"["\uD801\"]"#,
            br#"["\uD801\u"]"#,
            br#"["\uD801\u2"]"#,
            br#"["\uD801\u2y"]"#,
            br#"["\uD83D\uDe"]"#,
            br#"["\uD801\uD801\y"]"#,
        ],
    ),
    ("string: broken UTF-8 in or behind an escape", Some(Fault::NotUtf8), &[b"[\"\\u\xe5\"]", b"[\"\\\xe5\"]"]),
    (
        "string: a control character",
        Some(Fault::ControlCharacter),
        &[b"[\"b\0b\"]", b"[\"two\nlines\"]", b"[\"\t\"]", b"[\"\x1f\"]", b"[\"\r\"]"],
    ),
    (
        "string: no quotes, or others",
        Some(Fault::Unexpected),
        &[b"['one']", b"xyz", "[ø]".as_bytes(), br"[\t]", br#"[\u0020"xyz"]"#],
    ),
    ("string: a single quote mark", Some(Fault::Unfinished), &[b"\"", b"[\"xyz", b"[\"y", b"[\"xyz]"]),
    ("string: followed", Some(Fault::Trailing), &[b"\"\"y", b"\"a\"\"b\""]),
    ("structure: nothing", Some(Fault::Unfinished), &[b"", b" ", b"\n\t"]),
    ("structure: only a byte-order mark", Some(Fault::Unexpected), &[b"\xef\xbb\xbf"]),
    ("structure: a cut byte-order mark", Some(Fault::NotUtf8), &[b"\xef\xbb{}", b"\xe5", b"\xe9"]),
    (
        "structure: no JSON at all",
        Some(Fault::Unexpected),
        &[b"<html>", b"[<true>]", b"*", b"]", b"}", "ø".as_bytes(), "bø".as_bytes(), b"[\0]"],
    ),
    (
        "structure: one bracket closed by the other",
        Some(Fault::Unexpected),
        &[b"{]", b"[}", b"{,", b"{[", b"[,", b"['", b"{'k'"],
    ),
    ("structure: brackets that never close", Some(Fault::Unfinished), &[b"[{", b"[{\"a\":[{\"a\":"]),
    ("structure: an escape for a bracket", Some(Fault::BadEscape), &[br#"["\{["\{["\{"#]),
    (
        "structure: space that is none to JSON",
        Some(Fault::Unexpected),
        &["[\u{2060}]".as_bytes(), "[\u{feff}]".as_bytes(), "\u{3000}1".as_bytes(), b"[\x0c]", br#"[\u000D""]"#],
    ),
];

/// What RFC 8259 leaves open.
const LEFT_OPEN: &[Class] = &[
    ("number: so small that it is nothing to everyone", None, &[b"[321.654e-987]", b"[321e-20000000]", b"[2E-888]"]),
    (
        "number: larger than a double",
        Some(Fault::NumberOutOfRange),
        &[b"[-3e+8888]", b"[2.5e+8888]", b"[-321321e200000]", b"[321321e200000]", b"[0.7e00888888888888888888888]"],
    ),
    (
        "number: more digits than a double keeps, which are forwarded as they are",
        None,
        &[
            b"[-321321321321321321321321321321]",
            b"[300000000000000000000]",
            b"[-437462374673276894279832749832423479823246327846]",
            b"[9223372036854775807]",
            b"[9223372036854775808]",
            b"[-9223372036854775808]",
            b"[-9223372036854775809]",
            b"[20000000000000000777]",
            b"[2.000000000000000007]",
            b"[3.0]",
            b"[3E5]",
            b"[3000000000000000]",
        ],
    ),
    (
        "number: longer than any bound of a parser",
        Some(Fault::NumberTooLong),
        &[
            b"[-0.00000000000000000000000000000000000000000000000000000000000000000000000000000000000003]",
            b"[0.4e0066666666666666666666666666666666666666666666666666666666666666666666666666666666]",
        ],
    ),
    (
        "string: half of a surrogate pair, the first or the second, alone or in the wrong order",
        Some(Fault::LoneSurrogate),
        &[
            br#"["\uDABC"]"#,
            br#"["\ud801"]"#,
            br#"["\uD899\u2345"]"#,
            br#"["\uD801\t"]"#,
            br#"["\uDe80b"]"#,
            br#"["\ud801xyz"]"#,
            br#"["\uD801\uD801\t"]"#,
            br#"["\uD801\uD801"]"#,
            br#"["\ud801\ud801\ud801"]"#,
            br#"["\uDe80\uD83D"]"#,
            br#"["\uDFBB"]"#,
            br#"{"\uDFBB":1}"#,
        ],
    ),
    (
        "string: bytes that are no UTF-8",
        Some(Fault::NotUtf8),
        &[
            b"[\"\xfe\"]",
            b"[\"\x82\"]",
            b"[\"\xe4\"]",
            b"[a\xe4]",
            b"[\xfe]",
            b"[\"\xe6\x97\xa5\xd0\xfa\"]",
            b"[\"\xe0\xfe\"]",
            b"[\"\xf5\xbf\xbf\xbf\"]",
            b"[\"\xc1\xbf\"]",
            b"[\"\xf8\x88\x80\x80\x80\"]",
            b"[\"\xfc\x84\x80\x80\x80\x80\"]",
            b"[\"\xed\xa0\x81\"]",
            b"[\"\xed\xa0\x81\xed\xa0\x81\"]",
            b"[\"\xed\xa0\x81\xed\xa0\x81\xed\xa0\x81\"]",
        ],
    ),
    ("structure: a byte-order mark before a value", Some(Fault::Unexpected), &["\u{feff}[]".as_bytes()]),
    (
        "structure: UTF-16 of either order, with a byte-order mark",
        Some(Fault::NotUtf8),
        &[b"\xff\xfe[\0\"\0\xe4\0\"\0]\0", b"\xfe\xff\0[\0\"\0\xe4\0\"\0]"],
    ),
    ("structure: UTF-16 without one", Some(Fault::Unexpected), &[b"\0[\0\"\0x\0\"\0]", b"[\0\"\0x\0\"\0]\0"]),
    (
        "object: the same key twice, with one value or two, however it is written",
        Some(Fault::RepeatedKey),
        &[
            br#"{"k":"v","k":"v"}"#,
            br#"{"k":"v","k":"w"}"#,
            br#"{"k":0, "k":-0}"#,
            br#"{"k":1,"\u006b":2}"#,
            br#"[{"a":{"k":1,"l":2,"k":3}}]"#,
        ],
    ),
    ("string: NUL within", None, &[br#"["x\u0000y"]"#]),
];

#[test]
fn the_scan_has_a_verdict_on_every_class_of_json_that_parsers_differ_in() {
    for (class, verdict, cases) in [TAKEN, REFUSED, LEFT_OPEN].concat() {
        for case in cases {
            let found = scan(case).err().map(|error| error.fault);
            assert_eq!(found, verdict, "{class}: {}", String::from_utf8_lossy(case));
        }
    }
}

#[test]
fn whatever_is_no_json_to_a_common_parser_is_none_to_the_scan() {
    for (class, verdict, cases) in [TAKEN, REFUSED].concat() {
        for case in cases {
            let is_json = serde_json::from_slice::<serde_json::Value>(case).is_ok();
            assert_eq!(is_json, verdict.is_none(), "{class}: {}", String::from_utf8_lossy(case));
        }
    }
}

#[test]
fn a_hundred_thousand_brackets_are_refused_at_the_sixty_fifth() {
    for opening in ["[", "{\"k\":", "[{\"k\":"] {
        let refused = scan(opening.repeat(100_000).as_bytes()).expect_err("too deep");
        assert_eq!(refused.fault, Fault::TooDeep, "{opening}");
    }
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(scan(nested(MAX_DEPTH).as_bytes()), Ok(()));
    assert_eq!(scan(nested(500).as_bytes()).map_err(|error| error.at), Err(MAX_DEPTH));
}
