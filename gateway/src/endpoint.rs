//! Which server a path names.

/// The endpoint of all servers as one.
pub(crate) const ALL: &str = "/mcp";

/// The server behind `/{namespace}/{server}/mcp`, as `namespace/server`; `None` for every other path. Nothing is
/// decoded: names of Kubernetes objects need no escapes, so a path that has one names none.
pub(crate) fn route_of(path: &str) -> Option<&str> {
    let route = path.strip_prefix('/')?.strip_suffix("/mcp")?;
    let (namespace, server) = route.split_once('/')?;
    (!namespace.is_empty() && !server.is_empty() && !server.contains('/')).then_some(route)
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
}
