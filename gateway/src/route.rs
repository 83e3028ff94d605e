//! A request that was let in, with what it was let in to.

use http::request::Parts;
use portolan_policy::{authorize::Permit, identity::Identity};
use portolan_snapshot::snapshot::Snapshot;

use crate::state::Entry;

/// What is asked, by whom, of which route.
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a Parts,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) entry: &'a Entry,
    pub(crate) caller: &'a Identity,
    /// That it was decided: without one nothing can be forwarded.
    #[expect(dead_code, reason = "held as the proof")]
    pub(crate) permit: Permit,
}
