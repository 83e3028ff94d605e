//! Which server or toolset a path names.

/// The endpoint of all servers as one.
pub(crate) const ALL: &str = "/mcp";

/// The server behind `/{namespace}/{server}/mcp`, as `namespace/server`; `None` for every other path. Nothing is
/// decoded: names of Kubernetes objects need no escapes, so a path that has one names none.
pub(crate) fn route_of(path: &str) -> Option<&str> {
    let route = path.strip_prefix('/')?.strip_suffix("/mcp")?;
    let (namespace, server) = route.split_once('/')?;
    (!namespace.is_empty() && !server.is_empty() && !server.contains('/')).then_some(route)
}

/// The toolset behind `/{namespace}/toolsets/{name}/mcp`, as `namespace/name`; with it what tokens are bound to there, which
/// no server's route is written like.
pub(crate) fn toolset_of(path: &str) -> Option<(String, &str)> {
    let route = path.strip_prefix('/')?.strip_suffix("/mcp")?;
    let (namespace, name) = route.split_once("/toolsets/")?;
    let is_one = |part: &str| !part.is_empty() && !part.contains('/');
    (is_one(namespace) && is_one(name)).then(|| (format!("{namespace}/{name}"), route))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_namespace_a_server_and_mcp_name_a_route() {
        assert_eq!(route_of("/default/everything/mcp"), Some("default/everything"));
        for path in
            ["/", "/mcp", "/default/mcp", "/default/a/b/mcp", "//a/mcp", "/a//mcp", "/a/b/mcp/", "/a/b", "a/b/mcp"]
        {
            assert_eq!(route_of(path), None, "{path}");
        }
    }

    #[test]
    fn a_toolset_is_between_its_namespace_and_mcp_and_is_no_servers_route() {
        let route = "default/toolsets/research";
        assert_eq!(toolset_of("/default/toolsets/research/mcp"), Some(("default/research".to_owned(), route)));
        assert_eq!(
            toolset_of("/toolsets/toolsets/toolsets/mcp"),
            Some(("toolsets/toolsets".into(), "toolsets/toolsets/toolsets"))
        );
        assert_eq!(route_of("/default/toolsets/research/mcp"), None);
        assert_eq!(route_of("/default/toolsets/mcp"), Some("default/toolsets"), "a server may be called so");
        for path in [
            "/mcp",
            "/default/toolsets/mcp",
            "/default/toolsets//mcp",
            "//toolsets/a/mcp",
            "/toolsets/a/mcp",
            "/a/toolsets/b/c/mcp",
            "/a/b/toolsets/c/mcp",
            "/a/toolsets/b",
            "/a/toolsets/b/mcp/",
        ] {
            assert_eq!(toolset_of(path), None, "{path}");
        }
    }
}
