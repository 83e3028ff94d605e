//! Who is calling.

use ring::digest;

/// The issuer of [`Identity::anonymous`].
const ANONYMOUS: &str = "anonymous";

/// An authenticated caller. Issuer and subject together name it: two issuers may know the same subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Who vouches for the subject: `kubernetes`, `apikeys/<list>`, `anonymous`.
    pub issuer: Box<str>,
    /// The caller's name at the issuer.
    pub subject: Box<str>,
    /// The tenant, where the issuer names one.
    pub tenant: Option<Box<str>>,
}

/// SHA-256 over issuer, subject and tenant: what a session token is bound to.
pub type Principal = [u8; 32];

impl Identity {
    /// A caller that `issuer` knows as `subject`.
    #[must_use]
    pub fn new(issuer: impl Into<Box<str>>, subject: impl Into<Box<str>>) -> Self {
        Self { issuer: issuer.into(), subject: subject.into(), tenant: None }
    }

    /// The caller of a gateway that asks for no credential. All such callers are one identity.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::new(ANONYMOUS, ANONYMOUS)
    }

    /// The digest that stands for this caller. Each part is written with its length, so that no two callers
    /// have the same digest by moving a letter from one part to the next.
    #[must_use]
    pub fn principal(&self) -> Principal {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [Some(&self.issuer), Some(&self.subject), self.tenant.as_ref()] {
            match part {
                Some(part) => {
                    context.update(&(part.len() as u64).to_be_bytes());
                    context.update(part.as_bytes());
                }
                None => context.update(&u64::MAX.to_be_bytes()),
            }
        }
        let mut principal = [0; 32];
        principal.copy_from_slice(context.finish().as_ref());
        principal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_callers_never_share_a_principal() {
        let tenant = |tenant: Option<&str>| Identity { tenant: tenant.map(Into::into), ..Identity::new("a", "bc") };
        let callers = [
            Identity::new("a", "bc"),
            Identity::new("ab", "c"),
            Identity::new("abc", ""),
            Identity::new("kubernetes", "bc"),
            tenant(Some("")),
            tenant(Some("t")),
            Identity::anonymous(),
        ];
        let principals: std::collections::HashSet<_> = callers.iter().map(Identity::principal).collect();
        assert_eq!(principals.len(), callers.len());
        assert_eq!(tenant(None).principal(), callers[0].principal());
    }
}
