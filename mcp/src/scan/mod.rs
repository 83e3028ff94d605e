//! The strict scan: whether a body means one thing to every JSON parser.
//!
//! Parsers differ in what they make of repeated keys, lone surrogates, huge numbers or `Method` beside `method`; a gateway
//! that decides by one reading and forwards to a server that takes the other can be smuggled past. So a body is read
//! once, without recursion, before anything acts on it, and what is forwarded is exactly what was read (RFC 8259; RFC
//! 7493 §2 for what it leaves open).

mod fault;
mod keys;
mod text;

pub use fault::{Fault, ScanError};

use keys::{Members, Role};
use text::{literal, number, string};

/// Deepest nesting of arrays and objects.
pub const MAX_DEPTH: usize = 64;

/// Scans a body.
///
/// # Errors
/// Says what is wrong with it, and at which byte.
pub fn scan(body: &[u8]) -> Result<(), ScanError> {
    let text = std::str::from_utf8(body).map_err(|error| ScanError::new(Fault::NotUtf8, error.valid_up_to()))?;
    Scanner { text, at: 0, open: Vec::new() }.run()
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Arrays and objects around the place that is read, outermost first.
    open: Vec<Open<'a>>,
}

struct Open<'a> {
    /// Nothing was read in it yet, so it may end without a comma.
    fresh: bool,
    /// The keys of an object; `None` in an array.
    members: Option<Members<'a>>,
}

impl<'a> Scanner<'a> {
    fn run(&mut self) -> Result<(), ScanError> {
        self.skip_space();
        self.value(Role::Envelope)?;
        while let Some(open) = self.open.last_mut() {
            let fresh = std::mem::replace(&mut open.fresh, false);
            let is_object = open.members.is_some();
            self.skip_space();
            match (self.peek(), is_object) {
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    self.open.pop();
                }
                (Some(b','), _) if !fresh => {
                    self.at += 1;
                    self.skip_space();
                    self.element(is_object)?;
                }
                (Some(_), _) if fresh => self.element(is_object)?,
                (found, _) => return Err(self.unexpected(found)),
            }
        }
        self.skip_space();
        if self.peek().is_some() { Err(self.fault(Fault::Trailing)) } else { Ok(()) }
    }

    fn element(&mut self, of_object: bool) -> Result<(), ScanError> {
        if of_object { self.member() } else { self.value(Role::Free) }
    }

    fn member(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.unexpected(self.peek()));
        }
        let key = string(self.text, &mut self.at)?.unescaped().map_err(|fault| ScanError::new(fault, start))?;
        let members = self.open.last_mut().and_then(|open| open.members.as_mut());
        let role = match members {
            Some(members) => members.take(key).map_err(|fault| ScanError::new(fault, start))?,
            None => Role::Free,
        };
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.unexpected(self.peek()));
        }
        self.at += 1;
        self.skip_space();
        self.value(role)
    }

    /// A scalar as a whole, or the beginning of an array or object; `role` is what an object here is.
    fn value(&mut self, role: Role) -> Result<(), ScanError> {
        match self.peek() {
            Some(b'{') => self.enter(Some(Members::new(role))),
            Some(b'[') => self.enter(None),
            Some(b'"') => string(self.text, &mut self.at).map(drop),
            Some(b'-' | b'0'..=b'9') => number(self.text, &mut self.at),
            Some(b't' | b'f' | b'n') => literal(self.text, &mut self.at),
            other => Err(self.unexpected(other)),
        }
    }

    fn enter(&mut self, members: Option<Members<'a>>) -> Result<(), ScanError> {
        if self.open.len() == MAX_DEPTH {
            return Err(self.fault(Fault::TooDeep));
        }
        self.at += 1;
        self.open.push(Open { fresh: true, members });
        Ok(())
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn unexpected(&self, found: Option<u8>) -> ScanError {
        self.fault(if found.is_some() { Fault::Unexpected } else { Fault::Unfinished })
    }

    fn fault(&self, fault: Fault) -> ScanError {
        ScanError::new(fault, self.at)
    }
}

#[cfg(test)]
mod tests;
