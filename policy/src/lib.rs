//! Pure decisions: who is calling, and may this call be made. No I/O, no clock, no runtime.
//!
//! An authenticator (the gateway's) turns a [`credential::Credential`] into an [`identity::Identity`] or an error;
//! everything after that decides on the identity alone.

pub mod api_key;
pub mod authorize;
pub mod credential;
pub mod hosts;
pub mod identity;
