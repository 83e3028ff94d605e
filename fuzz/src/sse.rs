//! Server-sent events: however the bytes are cut the same events come out, and what is put between two events is one.

use portolan_mcp::sse::{Decoder, Follower, encode};

use crate::oracle::lines;

/// Enough for any input.
const ROOM: usize = 1 << 24;
/// A bound that inputs reach.
const TIGHT: usize = 48;

/// `stream` is what a server sends.
pub fn check(stream: &[u8]) {
    let events = events(stream);
    assert_eq!(decode(&[stream], ROOM).as_ref(), Some(&events));
    let bounded = decode(&[stream], TIGHT);
    let (longest, together) = sizes(stream);
    assert!(bounded.is_some() || together > TIGHT, "refused below the bound");
    assert!(bounded.is_none() || longest <= TIGHT, "a line longer than the bound was held");
    assert!(bounded.is_none() || bounded.as_ref() == Some(&events));
    let whole = follow(&[stream]);
    assert_eq!(whole, (has_data(stream), is_between_events(stream)));
    for size in [1, 2, 3, 7, 19] {
        let pieces: Vec<&[u8]> = stream.chunks(size).collect();
        assert_eq!(decode(&pieces, ROOM).as_ref(), Some(&events), "in pieces of {size}");
        assert_eq!(decode(&pieces, TIGHT).is_some(), bounded.is_some(), "in pieces of {size}");
        assert_eq!(follow(&pieces), whole, "in pieces of {size}");
    }
    between(stream);
    for data in events.iter().map(Vec::as_slice).chain([stream]) {
        let wanted = lines(data);
        let wanted = [wanted.0.as_slice(), &[wanted.1]].concat().join(&b'\n');
        for id in [None, Some("3-14")] {
            assert_eq!(decode(&[&encode(id, data)], ROOM), Some(vec![wanted.clone()]));
        }
    }
}

fn decode(pieces: &[&[u8]], limit: usize) -> Option<Vec<Vec<u8>>> {
    let mut decoder = Decoder::new(limit);
    let mut events = Vec::new();
    for piece in pieces {
        events.extend(decoder.push(piece).ok()?);
    }
    Some(events)
}

fn follow(pieces: &[&[u8]]) -> (bool, bool) {
    let mut follower = Follower::default();
    let mut has_data = false;
    for piece in pieces {
        has_data |= follower.push(piece);
    }
    (has_data, follower.is_between_events())
}

/// The data of every whole event.
fn events(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut events = Vec::new();
    let mut data: Option<Vec<u8>> = None;
    for line in lines(stream).0 {
        if line.is_empty() {
            events.extend(data.take());
        } else if let Some(value) = line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            data = Some(data.map_or_else(|| value.to_vec(), |data| [&data, value].join(&b'\n')));
        }
    }
    events
}

/// The longest line, and the most that all lines between two empty ones are together.
fn sizes(stream: &[u8]) -> (usize, usize) {
    let (mut lines, rest) = lines(stream);
    lines.push(rest);
    let longest = lines.iter().map(|line| line.len()).max().unwrap_or_default();
    let together = lines.split(|line| line.is_empty()).map(|lines| lines.iter().map(|line| line.len()).sum());
    (longest, together.max().unwrap_or_default())
}

fn has_data(stream: &[u8]) -> bool {
    let (lines, rest) = lines(stream);
    lines.iter().chain([&rest]).any(|line| line.starts_with(b"data:"))
}

fn is_between_events(stream: &[u8]) -> bool {
    let (lines, rest) = lines(stream);
    rest.is_empty() && lines.last().is_none_or(|line| line.is_empty())
}

/// Wherever a follower says that another event may be put, it arrives, and takes nothing from the others.
fn between(stream: &[u8]) {
    let mut follower = Follower::default();
    let own = encode(None, b"own");
    for at in 0..=stream.len().min(512) {
        if follower.is_between_events() {
            let before = decode(&[&stream[..at]], ROOM).expect("room");
            let with = decode(&[&stream[..at], &own], ROOM).expect("room");
            assert_eq!(with, [before, vec![b"own".to_vec()]].concat(), "put at {at}");
        }
        if let Some(byte) = stream.get(at) {
            follower.push(&[*byte]);
        }
    }
}
