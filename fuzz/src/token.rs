//! Session tokens, names of calls that wait, and what else clients send back as they got it: nothing opens that was not sealed, and what was sealed opens for its caller
//! at its place only.

use std::sync::LazyLock;

use portolan_mcp::aggregate::{Cursor, Member, Origin};
use portolan_mcp::mac::MacKey;
use portolan_mcp::parked::{Opened, Parked, ParkingKey};
use portolan_mcp::token::{Binding, Claims, KEY_LEN, Keyring, ManyClaims, SessionKey, TokenError};

const ALICE: Binding<'static> = Binding { principal: &[1; 32], route: "default/everything" };
const NOW: u64 = 1_000;

static RING: LazyLock<Keyring> =
    LazyLock::new(|| Keyring::new([[9; KEY_LEN].as_slice(), &[8; KEY_LEN]]).expect("two keys of the right length"));

/// A session that is named the same in every run.
fn claims(revision: &str, pod: Option<&str>) -> Claims {
    let session = SessionKey::parse("AAECAwQFBgcICQoLDA0ODw").expect("128 bits");
    Claims { session, revision: revision.into(), pod: pod.map(Into::into), issued: NOW - 1, expires: NOW + 1 }
}

static SEALED: LazyLock<String> =
    LazyLock::new(|| RING.seal(&claims("everything-0a1b2c3d", Some("uid")), ALICE).expect("seals"));

/// `input` is taken as a token, as changes of a good one, and as what a token says.
pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    assert!(RING.open(&text, ALICE, NOW).is_err(), "nobody sealed this");
    let _ = SessionKey::parse(&text).map(|key| assert_eq!(SessionKey::parse(key.as_str()), Some(key)));
    changed(input);
    says(&text);
    parked(&text);
    shown(&text);
}

/// `text` as what a client of several servers sends back: a token, a cursor, or what says where something comes from.
fn shown(text: &str) {
    assert!(RING.open_as::<ManyClaims>(text, ALICE, NOW).is_err(), "nobody sealed this");
    let session = SessionKey::parse("AAECAwQFBgcICQoLDA0ODw").expect("128 bits");
    let claims = ManyClaims { session, client: text.into(), expires: NOW + 1 };
    let token = RING.seal(&claims, ALICE).expect("seals");
    let opened = RING.open_as::<ManyClaims>(&token, ALICE, NOW);
    assert_eq!(opened, if token.len() > 1024 { Err(TokenError::Malformed) } else { Ok(claims) });
    assert_eq!(RING.open(&token, ALICE, NOW).ok(), None, "the session of one server is another thing");
    if let Some(cursor) = Cursor::parse(text) {
        assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
    }
    if let Some((origin, own)) = Origin::of(text) {
        assert_eq!(origin.marked(own), text);
    }
    if let Some((origin, id)) = Origin::of_id(text) {
        assert_eq!(Origin::of_id(&origin.marked(id.as_json())), Some((origin, id)));
    }
    let origin = Origin { member: Member { namespace: "n", server: "s" }, part: "p" };
    assert_eq!(
        Origin::of(&origin.marked(text)).filter(|_| !text.is_empty()),
        Some((origin, text)).filter(|_| !text.is_empty())
    );
}

static PARKING: LazyLock<ParkingKey> =
    LazyLock::new(|| MacKey::new(&[6; 32]).as_ref().and_then(ParkingKey::of).expect("a key of the right length"));

/// `text` as what a client presents, and as what it is given.
fn parked(text: &str) {
    let alice = SessionKey::of_caller(ALICE);
    assert!(!matches!(PARKING.open(text, &alice), Opened::Ours(_)), "nobody sealed this");
    let waits = Parked { pod: "uid".into(), call: text.into() };
    let state = PARKING.seal(&waits, &alice).expect("seals");
    let opened = PARKING.open(&state, &alice);
    // A server's own state is as long as it likes; ours is not.
    assert!(opened == Opened::Ours(waits) || (opened == Opened::Foreign && state.len() > 512), "{opened:?}");
    let bob = SessionKey::of_caller(Binding { principal: &[2; 32], ..ALICE });
    assert!(!matches!(PARKING.open(&state, &bob), Opened::Ours(_)));
    let behind = format!("{state}{text}");
    assert!(text.is_empty() || !matches!(PARKING.open(&behind, &alice), Opened::Ours(_)));
}

/// Pairs of place and character, put over a good token; or an end cut off, or something behind.
fn changed(input: &[u8]) {
    let mut token = SEALED.as_bytes().to_vec();
    for edit in input.chunks(2) {
        match *edit {
            [place, character] => {
                let place = usize::from(place) * token.len() / 256;
                token[place] = character;
            }
            [_] => token.truncate(token.len().saturating_sub(1).max(1)),
            _ => {}
        }
    }
    let token = String::from_utf8_lossy(&token);
    let opened = RING.open(&token, ALICE, NOW);
    assert_eq!(opened.is_ok(), *token == **SEALED, "{token}: {opened:?}");
    let longer = format!("{}{}", *SEALED, String::from_utf8_lossy(input));
    assert_eq!(RING.open(&longer, ALICE, NOW).is_ok(), input.is_empty(), "{longer}");
}

fn says(text: &str) {
    let (revision, pod) = text.split_once(' ').map_or((text, None), |(revision, pod)| (revision, Some(pod)));
    let claims = claims(revision, pod);
    let token = RING.seal(&claims, ALICE).expect("seals");
    if token.len() > 1024 {
        assert_eq!(RING.open(&token, ALICE, NOW), Err(TokenError::Malformed), "longer than any header");
        return;
    }
    assert_eq!(RING.open(&token, ALICE, NOW), Ok(claims));
    assert_eq!(RING.open(&token, ALICE, NOW + 1), Err(TokenError::Expired));
    let bob = Binding { principal: &[2; 32], ..ALICE };
    assert_eq!(RING.open(&token, bob, NOW), Err(TokenError::NotYours));
    if text != ALICE.route {
        assert_eq!(RING.open(&token, Binding { route: text, ..ALICE }, NOW), Err(TokenError::NotYours));
    }
    let other = Keyring::new([[7; KEY_LEN].as_slice()]).expect("a key");
    assert_eq!(other.open(&token, ALICE, NOW), Err(TokenError::UnknownKey));
}
