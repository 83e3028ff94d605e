//! Keys of objects: each once, and none that could be taken for one to which the protocol gives a meaning.

use std::{borrow::Cow, collections::HashSet};

use unicode_normalization::UnicodeNormalization;

use super::Fault;

/// Objects with more keys than this remember them by hash.
const FEW: usize = 16;

/// Members of a JSON-RPC message.
const OF_ENVELOPE: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
/// Members of `params` by which somebody on the way decides.
const OF_PARAMS: &[&str] = &[
    "_meta",
    "name",
    "arguments",
    "uri",
    "cursor",
    "ref",
    "argument",
    "level",
    "requestId",
    "progressToken",
    "protocolVersion",
    "capabilities",
    "clientInfo",
    "requestState",
    "inputResponses",
    "taskId",
    "task",
];
/// Members of `params._meta` by which somebody on the way decides.
const OF_META: &[&str] = &[
    "progressToken",
    "traceparent",
    "tracestate",
    "baggage",
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/logLevel",
    "io.modelcontextprotocol/subscriptionId",
];

/// Bytes of the longest reserved name.
const LONGEST: usize = longest(&[OF_ENVELOPE, OF_PARAMS, OF_META]);

const fn longest(mut lists: &[&[&str]]) -> usize {
    let mut longest = 0;
    while let [first, rest @ ..] = lists {
        let mut names = *first;
        while let [name, others @ ..] = names {
            if name.len() > longest {
                longest = name.len();
            }
            names = others;
        }
        lists = rest;
    }
    longest
}

/// What an object is to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The message.
    Envelope,
    /// Its `params`.
    Params,
    /// `params._meta`.
    Meta,
    /// Anything else: its keys are its sender's business.
    Free,
}

impl Role {
    fn reserved(self) -> &'static [&'static str] {
        match self {
            Self::Envelope => OF_ENVELOPE,
            Self::Params => OF_PARAMS,
            Self::Meta => OF_META,
            Self::Free => &[],
        }
    }

    /// What an object is that stands under `key`.
    fn under(self, key: &str) -> Self {
        match (self, key) {
            (Self::Envelope, "params") => Self::Params,
            (Self::Params, "_meta") => Self::Meta,
            _ => Self::Free,
        }
    }
}

/// The keys of one object as far as it was read.
pub(super) struct Members<'a> {
    role: Role,
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Members<'a> {
    pub(super) fn new(role: Role) -> Self {
        Self { role, few: Vec::new(), many: HashSet::new() }
    }

    /// Takes the next key, unescaped; what an object under it is.
    pub(super) fn take(&mut self, key: Cow<'a, str>) -> Result<Role, Fault> {
        if is_lookalike(&key, self.role.reserved()) {
            return Err(Fault::LookalikeKey);
        }
        let role = self.role.under(&key);
        if self.is_new(key) { Ok(role) } else { Err(Fault::RepeatedKey) }
    }

    fn is_new(&mut self, key: Cow<'a, str>) -> bool {
        if self.many.is_empty() {
            if self.few.contains(&key) {
                return false;
            }
            if self.few.len() < FEW {
                self.few.push(key);
                return true;
            }
            self.many.extend(self.few.drain(..));
        }
        self.many.insert(key)
    }
}

/// Whether a reader that ignores case, cuts at NUL or folds compatible characters would take `key` for a reserved one.
pub(super) fn is_lookalike(key: &str, reserved: &[&str]) -> bool {
    if reserved.is_empty() || reserved.contains(&key) {
        return false;
    }
    if key.bytes().all(|byte| byte.is_ascii_graphic()) {
        // As most keys are: nothing in it could be overlooked but case.
        return reserved.iter().any(|name| name.eq_ignore_ascii_case(key));
    }
    let up_to_nul = key.split('\0').next().unwrap_or_default();
    reads_as(key, reserved) || (up_to_nul.len() < key.len() && reads_as(up_to_nul, reserved))
}

/// Whether `key` is one of `reserved` without what readers may overlook: case, compatible forms, characters that nobody
/// sees, space around it.
fn reads_as(key: &str, reserved: &[&str]) -> bool {
    if key.is_ascii() {
        return is_one_of(key.chars().filter(|character| !is_unseen(*character)), reserved);
    }
    let seen = key.nfkc().filter(|character| !is_unseen(*character));
    // Upper case first: `ſ` has `S` as its upper case and no other lower case than itself.
    is_one_of(seen.flat_map(char::to_uppercase).flat_map(char::to_lowercase), reserved)
}

/// Whether the characters, in whatever case and with space around them, are one of `reserved`. Keys may be many and long:
/// nothing is allocated, and a key is given up at the first character that shows that it is none, for want of room at the
/// latest. Only characters that were not overlooked take room: a key of any length may read as a short name.
fn is_one_of(characters: impl Iterator<Item = char>, reserved: &[&str]) -> bool {
    let mut name = [0; LONGEST];
    let mut length = 0;
    let mut is_over = false;
    for character in characters {
        if character.is_whitespace() {
            is_over = length > 0;
            continue;
        }
        let (Ok(byte), false) = (u8::try_from(character), is_over) else { return false };
        let Some(place) = name.get_mut(length) else { return false };
        *place = byte;
        length += 1;
    }
    reserved.iter().any(|wanted| wanted.as_bytes().eq_ignore_ascii_case(&name[..length]))
}

/// Characters that nobody sees: controls, and those that only join, part or direct others.
pub(super) fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}
