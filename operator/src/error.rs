//! What went wrong in a reconcile, and what to do about it: try again, wait, or stop until someone acts.

use std::time::Duration;

use portolan_crds::conditions::{reasons, types};

/// What to do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Try again with the object's backoff: the API server was away, a write lost a race.
    Transient,
    /// Nothing is wrong; look again after this long.
    Waiting(Duration),
    /// Nothing will change until someone acts on the message. Looked at again with the object's backoff, as nobody may
    /// tell when they did.
    Stalled,
}

impl Class {
    /// The class as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Waiting(_) => "waiting",
            Self::Stalled => "stalled",
        }
    }
}

/// An error of a reconcile: what a condition needs in order to explain it.
///
/// `reason` comes from [`portolan_crds::conditions::reasons`] and is bounded; `message` is for people and names objects.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Error {
    /// What to do.
    pub class: Class,
    /// The condition that this error makes `False`, besides `Ready`; `None` when it speaks of no condition in particular.
    pub condition: Option<&'static str>,
    /// Condition reason.
    pub reason: &'static str,
    /// Condition message: what is wrong and what to do next.
    pub message: String,
}

impl Error {
    /// An error that goes away by itself.
    pub fn transient(reason: &'static str, message: impl Into<String>) -> Self {
        Self { class: Class::Transient, condition: None, reason, message: message.into() }
    }

    /// Something else has to happen first; look again after `after`.
    pub fn waiting(after: Duration, reason: &'static str, message: impl Into<String>) -> Self {
        Self { class: Class::Waiting(after), condition: None, reason, message: message.into() }
    }

    /// Someone has to act.
    pub fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Self { class: Class::Stalled, condition: None, reason, message: message.into() }
    }

    /// The same error, making `condition` (one of [`portolan_crds::conditions::types`]) `False`.
    #[must_use]
    pub fn on(self, condition: &'static str) -> Self {
        Self { condition: Some(condition), ..self }
    }

    /// Whether the API server, or an admission policy in it, called what was written invalid: only another spec or
    /// policy changes that.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.class == Class::Stalled && self.reason == reasons::INVALID
    }

    /// An answer of the API server to `verb` on `what` (kind and name).
    #[must_use]
    pub fn api(verb: &str, what: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.is_conflict() => Self::transient(
                reasons::CONFLICT,
                format!("cannot {verb} {what}: someone else changed it meanwhile: {}", status.message),
            ),
            // The API server's own words name the field, so they are the instruction.
            kube::Error::Api(status) if status.code == 422 || status.code == 400 => {
                let error = Self::stalled(reasons::INVALID, format!("cannot {verb} {what}: {}", status.message));
                // A child that is refused was asked for by the spec.
                if matches!(verb, "apply" | "replace") { error.on(types::ACCEPTED) } else { error }
            }
            kube::Error::Api(status) if status.is_forbidden() => Self::transient(
                reasons::FORBIDDEN,
                format!("cannot {verb} {what}: the operator may not, or a quota is used up: {}", status.message),
            ),
            kube::Error::Api(status) => Self::transient(
                reasons::API_SERVER_ERROR,
                format!("cannot {verb} {what}: the API server says {}: {}", status.code, status.message),
            ),
            other => Self::transient(
                reasons::API_SERVER_ERROR,
                format!("cannot {verb} {what}: the API server cannot be reached: {other}"),
            ),
        }
    }
}
