//! Tokens of service accounts: the API server says whose they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use moka::{Expiry, future::Cache};
use portolan_mcp::failure::{Failure, Kind};
use portolan_policy::identity::Identity;
use ring::digest;
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::metrics::Metrics;
use crate::state::unix_time;

/// The issuer of identities that the API server vouches for.
const ISSUER: &str = "kubernetes";

/// Longest time for which the API server's word is taken.
const MAX_AGE: Duration = Duration::from_secs(60);
/// Time for which a refusal is remembered: an endless loop of bad tokens costs the API server little, and a token
/// that becomes good is good soon.
const REFUSED_AGE: Duration = Duration::from_secs(5);
const MAX_ENTRIES: u64 = 10_000;
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// Reviews under way at once; callers past it wait, within the timeout.
const MAX_REVIEWS: usize = 32;
/// No token of an API server is longer.
const MAX_TOKEN: usize = 16 * 1024;

/// What the API server said.
#[derive(Clone, Debug)]
struct Verdict {
    identity: Option<Identity>,
    age: Duration,
}

struct ByAge;

impl Expiry<[u8; 32], Verdict> for ByAge {
    fn expire_after_create(&self, _: &[u8; 32], verdict: &Verdict, _: Instant) -> Option<Duration> {
        Some(verdict.age)
    }
}

/// Asks the API server about tokens, each once a minute at most.
pub(crate) struct Reviewer {
    api: Api<TokenReview>,
    verdicts: Cache<[u8; 32], Verdict>,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Reviewer {
    pub(crate) fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self {
            api: Api::all(client),
            verdicts: Cache::builder().max_capacity(MAX_ENTRIES).expire_after(ByAge).build(),
            places: Arc::new(Semaphore::new(MAX_REVIEWS)),
            metrics,
        }
    }

    /// Whose token it is. Callers with the same token share one review.
    pub(crate) async fn review(&self, token: &str, audiences: &[String]) -> Result<Identity, Failure> {
        if token.len() > MAX_TOKEN {
            return Err(not_accepted());
        }
        // Boxed, or every request would be as large as one that waits for a review.
        let verdict = Box::pin(self.verdicts.try_get_with(key(token, audiences), self.ask(token, audiences))).await;
        let verdict = verdict.map_err(|failure| Failure::clone(&failure))?;
        verdict.identity.ok_or_else(not_accepted)
    }

    async fn ask(&self, token: &str, audiences: &[String]) -> Result<Verdict, Failure> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(audiences.to_vec()) },
            ..TokenReview::default()
        };
        let asked = async {
            let _place = self.places.acquire().await;
            self.api.create(&PostParams::default(), &review).await
        };
        let answer = match tokio::time::timeout(REVIEW_TIMEOUT, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the API server did not review a token");
                return Err(self.unavailable());
            }
            Err(_) => {
                tracing::warn!("the API server did not review a token in time");
                return Err(self.unavailable());
            }
        };
        let identity = identity(answer, audiences);
        let outcome = if identity.is_some() { "Accepted" } else { "Refused" };
        self.metrics.token_reviews.with_label_values(&[outcome]).inc();
        let age = if identity.is_some() { age(token, unix_time()) } else { REFUSED_AGE };
        Ok(Verdict { identity, age })
    }

    fn unavailable(&self) -> Failure {
        self.metrics.token_reviews.with_label_values(&["Unavailable"]).inc();
        let message = "the API server cannot be asked about the token at the moment; try again";
        Failure::new(Kind::AuthenticatorUnavailable, message).retry_after(Duration::from_secs(1))
    }
}

fn not_accepted() -> Failure {
    super::refused("the token is not accepted; send one of a service account that names this gateway's audience")
}

/// Tokens are remembered by digest; other audiences make it another question.
fn key(token: &str, audiences: &[String]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in audiences.iter().map(String::as_str).chain([token]) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}

/// The identity that a review vouches for. An API server that ignores audiences answers without any: its word would
/// be about another audience, so it is not taken.
fn identity(review: TokenReview, audiences: &[String]) -> Option<Identity> {
    let status = review.status?;
    let meant_for_us = status.audiences.iter().flatten().any(|audience| audiences.contains(audience));
    if status.authenticated != Some(true) || !meant_for_us {
        return None;
    }
    let username = status.user?.username.filter(|username| !username.is_empty())?;
    Some(Identity::new(ISSUER, username))
}

/// How long a verdict holds: a minute, but never past the token's own end.
fn age(token: &str, now: Duration) -> Duration {
    #[derive(Deserialize)]
    struct Claims {
        exp: Option<u64>,
    }
    let claims = token.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Option<Claims> = claims.and_then(|claims| serde_json::from_slice(&claims).ok());
    let left = claims.and_then(|claims| claims.exp).map(|end| Duration::from_secs(end).saturating_sub(now));
    left.map_or(MAX_AGE, |left| left.min(MAX_AGE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};

    fn review(authenticated: bool, audiences: Option<&[&str]>, username: &str) -> TokenReview {
        let user = UserInfo { username: Some(username.into()), ..UserInfo::default() };
        let audiences = audiences.map(|audiences| audiences.iter().map(|audience| (*audience).into()).collect());
        let status = TokenReviewStatus { authenticated: Some(authenticated), audiences, user: Some(user), error: None };
        TokenReview { status: Some(status), ..TokenReview::default() }
    }

    #[test]
    fn a_token_counts_only_for_one_of_our_audiences() {
        let ours = ["portolan".to_owned()];
        assert_eq!(identity(review(true, Some(&["portolan"]), "a"), &ours), Some(Identity::new("kubernetes", "a")));
        assert_eq!(identity(review(true, Some(&["other"]), "a"), &ours), None);
        assert_eq!(identity(review(true, None, "a"), &ours), None);
        assert_eq!(identity(review(false, Some(&["portolan"]), "a"), &ours), None);
        assert_eq!(identity(review(true, Some(&["portolan"]), ""), &ours), None);
        assert_eq!(identity(TokenReview::default(), &ours), None);
    }

    #[test]
    fn a_verdict_never_outlives_its_token() {
        let token = |claims: &str| format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims));
        let now = Duration::from_secs(1_000);
        assert_eq!(age(&token(r#"{"exp":1010}"#), now), Duration::from_secs(10));
        assert_eq!(age(&token(r#"{"exp":5000}"#), now), MAX_AGE);
        assert_eq!(age(&token(r#"{"exp":900}"#), now), Duration::ZERO);
        assert_eq!(age("opaque", now), MAX_AGE);
    }

    #[test]
    fn the_same_token_for_other_audiences_is_another_question() {
        assert_ne!(key("t", &["a".into()]), key("t", &["b".into()]));
        assert_ne!(key("t", &["ab".into()]), key("bt", &["a".into()]));
    }
}
