//! May this caller use this route: the one function where rules about callers go.

use crate::identity::Identity;

/// The route that a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Namespace of the server.
    pub namespace: &'a str,
    /// Name of the server.
    pub server: &'a str,
}

/// Leave to go on. Only [`authorize`] makes one, so that nothing is forwarded without having been decided.
#[derive(Debug)]
#[must_use]
pub struct Permit(());

/// A refusal. The caller is told what it would be told of a route that does not exist.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the caller may not use this route")]
pub struct Denial;

/// Decides whether `identity` may use `target`.
///
/// A route exists on a gateway because the gateway's selector chose it, and whoever the gateway's authentication lets
/// in may use each of its routes: there is no narrower rule to write yet.
///
/// # Errors
/// The caller may not.
pub fn authorize(_identity: &Identity, _target: Target<'_>) -> Result<Permit, Denial> {
    Ok(Permit(()))
}
