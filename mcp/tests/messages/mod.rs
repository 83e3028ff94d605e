//! Messages as peers may write them: unknown members, any order, numbers of thirty digits, escapes, space between tokens.

use proptest::prelude::*;

/// A JSON value, written in one of the many ways.
pub(crate) fn value() -> BoxedStrategy<String> {
    let scalar = prop_oneof![Just("null".to_owned()), Just("true".into()), Just("false".into()), number(), string()];
    scalar
        .prop_recursive(4, 24, 5, |inner| {
            let array = (prop::collection::vec(inner.clone(), 0..5), space())
                .prop_map(|(values, space)| format!("[{space}{}{space}]", values.join(&format!("{space},"))));
            prop_oneof![array, prop::collection::vec((string(), inner), 0..5).prop_flat_map(object)]
        })
        .boxed()
}

/// Numbers whose text says more than a double keeps.
fn number() -> BoxedStrategy<String> {
    "-?(0|[1-9][0-9]{0,29})(\\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?".boxed()
}

/// A string with what may stand in one, escaped or not.
fn string() -> BoxedStrategy<String> {
    let piece = prop_oneof![
        4 => "[ !#-\\[\\]-~]{1,6}",
        1 => "\\\\[\"\\\\/bfnrt]",
        1 => "\\\\u00[0-9a-fA-F]{2}",
        1 => Just("\\ud83d\\uDE80".to_owned()),
        1 => "[é漢🚀\u{2028}\u{200b}\u{7f}]",
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat())).boxed()
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(""), 1 => Just(" "), 1 => Just("\t"), 1 => Just("   ")]
}

/// An object of these members in this order. A number makes every key the only one of its kind.
fn object(members: Vec<(String, String)>) -> BoxedStrategy<String> {
    let spaces = prop::collection::vec(space(), members.len() + 1);
    spaces
        .prop_map(move |spaces| {
            let member = |(index, (key, value)): (usize, &(String, String))| {
                let space = spaces[index];
                format!("{space}{}x{index}\"{space}:{space}{value}{space}", &key[..key.len() - 1])
            };
            let members: Vec<String> = members.iter().enumerate().map(member).collect();
            format!("{{{}{}}}", members.join(","), spaces[spaces.len() - 1])
        })
        .boxed()
}

/// An object with the members `known` and some that nobody knows, in any order.
fn with_unknown(known: Vec<(&'static str, String)>) -> BoxedStrategy<String> {
    let unknown = prop::collection::vec(value(), 0..4).prop_map(|values| {
        let name = |(index, value)| (["x-vendor", "com.example/trace", "größe", "_x"][index], value);
        values.into_iter().enumerate().map(name).collect::<Vec<_>>()
    });
    (unknown, space())
        .prop_flat_map(move |(unknown, space)| {
            let members = [known.clone(), unknown].concat();
            Just(members).prop_shuffle().prop_map(move |members| {
                let member = |(name, value): &(&str, String)| format!("\"{name}\"{space}:{value}{space}");
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(&format!(",{space}")))
            })
        })
        .boxed()
}

/// An id of either type; a number that is no whole one among them.
pub(crate) fn id() -> BoxedStrategy<String> {
    prop_oneof![string(), "[1-9][0-9]{0,29}", Just("-0".to_owned()), Just("1.50".into()), Just("7e0".into())].boxed()
}

/// Parameters with whatever decides on the way: `_meta` with what it `says`, tokens, state.
fn params(says: &'static [(&'static str, &'static str)]) -> BoxedStrategy<String> {
    let meta = (id(), value()).prop_flat_map(move |(token, unknown)| {
        let trace = "\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"".to_owned();
        let known = vec![("progressToken", token), ("traceparent", trace), ("com.example/x", unknown)];
        let said = says.iter().map(|(name, value)| (*name, (*value).to_owned()));
        with_unknown(known.into_iter().chain(said).collect())
    });
    (meta, string(), value(), value())
        .prop_flat_map(|(meta, name, arguments, state)| {
            with_unknown(vec![("_meta", meta), ("name", name), ("arguments", arguments), ("requestState", state)])
        })
        .boxed()
}

/// Methods of the protocol, of extensions and of nobody.
fn method() -> BoxedStrategy<String> {
    prop::sample::select(vec![
        "\"tools/call\"",
        "\"tasks/get\"",
        "\"com.example/unknown\"",
        "\"tools\\/list\"",
        "\"ø\"",
    ])
    .prop_map(str::to_owned)
    .boxed()
}

/// A request with this id.
pub(crate) fn request(id: String) -> BoxedStrategy<String> {
    request_saying(id, &[])
}

/// A request of the sessionless era with this id.
#[allow(dead_code, reason = "each suite uses its part")]
pub(crate) fn modern_request(id: String) -> BoxedStrategy<String> {
    request_saying(id, &MODERN)
}

/// What every request of that era says of itself.
const MODERN: [(&str, &str); 2] = [
    ("io.modelcontextprotocol/protocolVersion", "\"2026-07-28\""),
    ("io.modelcontextprotocol/clientCapabilities", "{\"x-vendor\" : {\"n\":1.0}}"),
];

fn request_saying(id: String, says: &'static [(&'static str, &'static str)]) -> BoxedStrategy<String> {
    (method(), params(says))
        .prop_flat_map(move |(method, params)| {
            with_unknown(vec![
                ("jsonrpc", "\"2.0\"".into()),
                ("id", id.clone()),
                ("method", method),
                ("params", params),
            ])
        })
        .boxed()
}

/// A notification that nobody acts upon.
pub(crate) fn notification() -> BoxedStrategy<String> {
    (method(), params(&[]))
        .prop_flat_map(|(method, params)| {
            with_unknown(vec![("jsonrpc", "\"2.0\"".into()), ("method", method), ("params", params)])
        })
        .boxed()
}

/// The answer to the request with this id: a result of any kind, with content of types that nobody knows, or an error.
pub(crate) fn answer(id: String) -> BoxedStrategy<String> {
    let content = (string(), value())
        .prop_flat_map(|(kind, data)| with_unknown(vec![("type", kind), ("data", data)]))
        .prop_map(|block| format!("[{block}]"));
    let result = (content, string(), value()).prop_flat_map(|(content, kind, state)| {
        with_unknown(vec![("content", content), ("resultType", kind), ("requestState", state)])
    });
    let payload =
        prop_oneof![3 => result.prop_map(|result| ("result", result)), 1 => value().prop_map(|v| ("error", v))];
    payload
        .prop_flat_map(move |payload| with_unknown(vec![("jsonrpc", "\"2.0\"".into()), ("id", id.clone()), payload]))
        .boxed()
}
