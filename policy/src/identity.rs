//! Who is calling.

use std::fmt;
use std::sync::{Arc, LazyLock};

use ring::digest;

/// The issuer of [`Identity::operator`]: no method of a gateway is called so.
const OURSELVES: &str = "portolan.dev";
/// The issuer of [`Identity::anonymous`].
const ANONYMOUS: &str = "anonymous";

/// An authenticated caller. Issuer and subject together name it: two issuers may know the same subject. Clones are cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    issuer: Box<str>,
    subject: Box<str>,
    tenant: Option<Box<str>>,
    principal: Principal,
}

/// SHA-256 over issuer, subject and tenant: what a session token is bound to.
pub type Principal = [u8; 32];

impl Identity {
    /// A caller that `issuer` knows as `subject`.
    #[must_use]
    pub fn new(issuer: impl Into<Box<str>>, subject: impl Into<Box<str>>) -> Self {
        Self::of(issuer.into(), subject.into(), None)
    }

    fn of(issuer: Box<str>, subject: Box<str>, tenant: Option<Box<str>>) -> Self {
        let principal = principal([Some(&issuer), Some(&subject), tenant.as_deref()]);
        Self(Arc::new(Parts { issuer, subject, tenant, principal }))
    }

    /// The same caller as one of `tenant`.
    #[must_use]
    pub fn in_tenant(&self, tenant: impl Into<Box<str>>) -> Self {
        Self::of(self.0.issuer.clone(), self.0.subject.clone(), Some(tenant.into()))
    }

    /// The caller of a gateway that asks for no credential. All such callers are one identity.
    #[must_use]
    pub fn anonymous() -> Self {
        static ANYONE: LazyLock<Identity> = LazyLock::new(|| Identity::new(ANONYMOUS, ANONYMOUS));
        ANYONE.clone()
    }

    /// The operator, which asks servers what it knows the answer to.
    #[must_use]
    pub fn operator() -> Self {
        static OPERATOR: LazyLock<Identity> = LazyLock::new(|| Identity::new(OURSELVES, "operator"));
        OPERATOR.clone()
    }

    /// Who vouches for the subject: `kubernetes`, `apikeys/<list>`, `anonymous`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The caller's name at the issuer.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The tenant, where the issuer names one.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.0.tenant.as_deref()
    }

    /// The digest that stands for this caller.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.0.principal
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { issuer, subject, tenant, .. } = &*self.0;
        f.debug_struct("Identity").field("issuer", issuer).field("subject", subject).field("tenant", tenant).finish()
    }
}

/// Each part is written with its length, so that no two callers have the same digest by moving a letter from one part to
/// the next.
fn principal(parts: [Option<&str>; 3]) -> Principal {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_callers_never_share_a_principal() {
        let one = Identity::new("a", "bc");
        let callers = [
            Identity::new("a", "bc"),
            Identity::new("ab", "c"),
            Identity::new("abc", ""),
            Identity::new("kubernetes", "bc"),
            one.in_tenant(""),
            one.in_tenant("t"),
            Identity::anonymous(),
        ];
        let principals: std::collections::HashSet<_> = callers.iter().map(Identity::principal).collect();
        assert_eq!(principals.len(), callers.len());
        assert_eq!(one.principal(), callers[0].principal());
    }
}
