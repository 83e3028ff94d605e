//! Who is calling: an identity or a failure, nothing else. Which method judges a credential follows from its shape.

mod api_key;
#[cfg(feature = "kube")]
pub(crate) mod token_review;

use http::HeaderMap;
use portolan_mcp::failure::{Failure, Kind};
use portolan_policy::{credential::Credential, identity::Identity};
use portolan_snapshot::snapshot::Authentication;

/// The methods that need more than the snapshot.
#[derive(Default)]
pub(crate) struct Authenticator {
    #[cfg(feature = "kube")]
    pub(crate) reviewer: Option<token_review::Reviewer>,
}

impl Authenticator {
    /// Decides who sent `headers`. A credential that is presented and not accepted never counts as none.
    pub(crate) async fn authenticate(
        &self,
        headers: &HeaderMap,
        allowed: &Authentication,
    ) -> Result<Identity, Failure> {
        let credential = Credential::from_headers(headers).map_err(|error| refused(&error.to_string()))?;
        match credential {
            None if allowed.anonymous => Ok(Identity::anonymous()),
            None => Err(refused("send a credential as \"Authorization: Bearer <token>\"")),
            Some(Credential::ApiKey(key)) => api_key::identify(&key, &allowed.api_keys),
            Some(Credential::Token(token)) if !allowed.audiences.is_empty() => {
                self.review(&token, &allowed.audiences).await
            }
            Some(Credential::Token(_)) => Err(refused("this gateway takes no tokens")),
        }
    }

    #[cfg(feature = "kube")]
    async fn review(&self, token: &str, audiences: &[String]) -> Result<Identity, Failure> {
        match &self.reviewer {
            Some(reviewer) => reviewer.review(token, audiences).await,
            None => Err(refused(NO_API_SERVER)),
        }
    }

    #[cfg(not(feature = "kube"))]
    #[expect(clippy::unused_async, reason = "with the feature it asks the API server")]
    async fn review(&self, _token: &str, _audiences: &[String]) -> Result<Identity, Failure> {
        Err(refused(NO_API_SERVER))
    }
}

const NO_API_SERVER: &str = "this gateway has no API server to ask about tokens of service accounts";

/// A 401 in words that say what to send, never what is known.
fn refused(message: &str) -> Failure {
    Failure::new(Kind::Unauthenticated, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, header::AUTHORIZATION};
    use portolan_policy::api_key::{ApiKeys, Hash};

    async fn decide(value: Option<&'static str>, allowed: &Authentication) -> Result<Identity, Kind> {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
        }
        Authenticator::default().authenticate(&headers, allowed).await.map_err(|failure| failure.kind)
    }

    #[tokio::test]
    async fn a_bad_credential_is_refused_even_where_none_is_needed() {
        let allowed = Authentication { anonymous: true, ..Authentication::default() };
        assert_eq!(decide(None, &allowed).await, Ok(Identity::anonymous()));
        for value in ["Bearer ptl_wrong", "Bearer token", "Basic dTpw", ""] {
            assert_eq!(decide(Some(value), &allowed).await, Err(Kind::Unauthenticated), "{value:?}");
        }
    }

    #[tokio::test]
    async fn nothing_lets_anyone_in_by_default() {
        let nobody = Authentication::default();
        for value in [None, Some("Bearer ptl_x"), Some("Bearer x")] {
            assert_eq!(decide(value, &nobody).await, Err(Kind::Unauthenticated));
        }
    }

    #[tokio::test]
    async fn an_api_key_is_its_entry() {
        let mut api_keys = ApiKeys::default();
        api_keys.insert(Hash::of("ptl_right"), Identity::new("apikeys/ci", "alice"));
        let allowed = Authentication { api_keys, ..Authentication::default() };
        assert_eq!(decide(Some("Bearer ptl_right"), &allowed).await, Ok(Identity::new("apikeys/ci", "alice")));
        assert_eq!(decide(Some("Bearer ptl_wrong"), &allowed).await, Err(Kind::Unauthenticated));
    }
}
