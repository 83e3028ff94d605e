//! What a request presents as proof of who is calling.

use http::{HeaderMap, header::AUTHORIZATION};

use crate::api_key;

/// One credential. Its shape alone decides which method judges it, so that no credential is ever tried by two.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A Portolan API key.
    ApiKey(Box<str>),
    /// Any other bearer token.
    Token(Box<str>),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ApiKey(_) => "ApiKey(..)",
            Self::Token(_) => "Token(..)",
        })
    }
}

/// Why the `Authorization` header is no credential.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CredentialError {
    /// More than one header: which one counts would be a matter of who reads it.
    #[error("send the Authorization header once")]
    Repeated,
    /// Another scheme, or no scheme.
    #[error("write the header as \"Authorization: Bearer <token>\"")]
    NotBearer,
    /// Characters that no token has (RFC 6750 §2.1).
    #[error("the bearer token holds characters that no token has")]
    Malformed,
}

impl Credential {
    /// Reads the credential of a request; `None` where none is presented.
    ///
    /// # Errors
    /// Something is presented that is not exactly one bearer token.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, CredentialError> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(CredentialError::Repeated);
        }
        let text = value.to_str().map_err(|_| CredentialError::Malformed)?;
        let (scheme, token) = text.trim().split_once(' ').ok_or(CredentialError::NotBearer)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(CredentialError::NotBearer);
        }
        let token = token.trim_start_matches(' ');
        if !is_b64token(token) {
            return Err(CredentialError::Malformed);
        }
        Ok(Some(if token.starts_with(api_key::PREFIX) {
            Self::ApiKey(token.into())
        } else {
            Self::Token(token.into())
        }))
    }
}

/// RFC 6750 §2.1, `b64token`.
fn is_b64token(token: &str) -> bool {
    let body = token.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(values: &[&str]) -> Result<Option<Credential>, CredentialError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
        }
        Credential::from_headers(&headers)
    }

    #[test]
    fn the_prefix_alone_decides_which_method_judges_a_credential() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["Bearer ptl_abc"]), Ok(Some(Credential::ApiKey("ptl_abc".into()))));
        assert_eq!(read(&["bearer  eyJ.a.b=="]), Ok(Some(Credential::Token("eyJ.a.b==".into()))));
    }

    #[test]
    fn what_is_not_exactly_one_bearer_token_is_an_error_and_never_nothing() {
        assert_eq!(read(&["Bearer a", "Bearer a"]), Err(CredentialError::Repeated));
        for value in ["", "Bearer", "Basic dTpw", "Bearer ", "ptl_abc"] {
            assert_eq!(read(&[value]), Err(CredentialError::NotBearer), "{value:?}");
        }
        for value in ["Bearer a b", "Bearer a,b", "Bearer \u{e9}", "Bearer =="] {
            assert_eq!(read(&[value]), Err(CredentialError::Malformed), "{value:?}");
        }
    }

    #[test]
    fn a_credential_never_prints_itself() {
        let shown = format!("{:?}", read(&["Bearer ptl_secret"]));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
