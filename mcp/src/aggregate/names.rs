//! Names of tools, prompts and resources that say whose they are.
//!
//! A tool is `<namespace>__<server>__<tool>`: names of namespaces and servers have no underscores, so the first two pairs of
//! them are ours, whatever a tool is called. A resource is `<server>.<namespace>+<uri>`, which is a URI whose scheme says the
//! same: a server's name begins with a letter, and neither has a dot or a plus.

/// One of the servers behind an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member<'a> {
    /// The server's namespace.
    pub namespace: &'a str,
    /// Its name.
    pub server: &'a str,
}

/// Something of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned<'a> {
    /// Whose it is.
    pub member: Member<'a>,
    /// As its server calls it.
    pub own: &'a str,
}

const SEPARATOR: &str = "__";

impl<'a> Member<'a> {
    /// The member that a route `namespace/server` is.
    #[must_use]
    pub fn of_route(route: &'a str) -> Option<Self> {
        let (namespace, server) = route.split_once('/')?;
        Some(Self { namespace, server })
    }

    /// `namespace/server`.
    #[must_use]
    pub fn route(&self) -> String {
        format!("{}/{}", self.namespace, self.server)
    }

    /// The name of its tool or prompt `own`.
    #[must_use]
    pub fn name(&self, own: &str) -> String {
        format!("{}{SEPARATOR}{}{SEPARATOR}{own}", self.namespace, self.server)
    }

    /// The URI of its resource, or the template of several.
    #[must_use]
    pub fn uri(&self, own: &str) -> String {
        format!("{}.{}+{own}", self.server, self.namespace)
    }
}

impl<'a> Owned<'a> {
    /// Whose tool or prompt `name` is.
    #[must_use]
    pub fn of_name(name: &'a str) -> Option<Self> {
        let (namespace, rest) = name.split_once(SEPARATOR)?;
        let (server, own) = rest.split_once(SEPARATOR)?;
        let is_ours = !namespace.is_empty() && !server.is_empty() && !own.is_empty();
        is_ours.then_some(Self { member: Member { namespace, server }, own })
    }

    /// Whose resource `uri` is.
    #[must_use]
    pub fn of_uri(uri: &'a str) -> Option<Self> {
        let (scheme, own) = uri.split_once('+')?;
        let (server, namespace) = scheme.split_once('.')?;
        let is_ours = !namespace.is_empty() && !server.is_empty() && !own.is_empty();
        is_ours.then_some(Self { member: Member { namespace, server }, own })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_a_thing_is_called_its_server_is_found_from_its_name(
            namespace in "[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?",
            server in "[a-z]([-a-z0-9]{0,8}[a-z0-9])?",
            own in "[ -~é]{1,30}",
        ) {
            let member = Member { namespace: &namespace, server: &server };
            let owned = Owned { member, own: &own };
            let (name, uri) = (member.name(&own), member.uri(&own));
            prop_assert_eq!(Owned::of_name(&name), Some(owned));
            prop_assert_eq!(Owned::of_uri(&uri), Some(owned));
        }

        #[test]
        fn no_text_is_taken_for_what_it_is_not(text in ".{0,60}") {
            if let Some(owned) = Owned::of_name(&text) {
                prop_assert_eq!(owned.member.name(owned.own), text.clone());
            }
            if let Some(owned) = Owned::of_uri(&text) {
                prop_assert_eq!(owned.member.uri(owned.own), text);
            }
        }
    }
}
