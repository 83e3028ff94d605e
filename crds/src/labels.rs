//! Labels and annotations on the objects that the operator makes.

/// Recommended label: what kind of program this is, [`SERVER_APP`] or [`GATEWAY_APP`].
pub const NAME: &str = "app.kubernetes.io/name";
/// Recommended label: the name of the owning `MCPServer` or `MCPGateway`.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Recommended label: the role of the object within its instance.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Recommended label: always [`MANAGER`] on what the operator owns.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Recommended label: always [`PRODUCT`].
pub const PART_OF: &str = "app.kubernetes.io/part-of";

/// Value of [`MANAGED_BY`].
pub const MANAGER: &str = "portolan";
/// Value of [`PART_OF`].
pub const PRODUCT: &str = "portolan";

/// Value of [`NAME`] on children of an `MCPServer`.
pub const SERVER_APP: &str = "mcp-server";
/// Value of [`NAME`] on children of an `MCPGateway`.
pub const GATEWAY_APP: &str = "portolan-gateway";

/// Name of the `MCPServer` that a child, pod or EndpointSlice belongs to.
pub const SERVER: &str = "portolan.dev/server";
/// Name of the `MCPGateway` that a child belongs to.
pub const GATEWAY: &str = "portolan.dev/gateway";
/// Name of the revision (`<server>-<8 hex digits>`) that a Deployment, Service, pod or EndpointSlice belongs to.
pub const REVISION: &str = "portolan.dev/revision";

/// Annotation of a revision's objects: `metadata.generation` of the `MCPServer` that made it, a decimal integer.
pub const GENERATION: &str = "portolan.dev/generation";

/// Annotation of a revision's ControllerRevision: when the revision began to take all new sessions, RFC 3339.
pub const SERVED_SINCE: &str = "portolan.dev/served-since";

/// Annotation of a revision's ControllerRevision: the spec that asked for it last, as JSON, without what no revision is made of
/// ([`crate::MCPServerSpec::NOT_OF_A_REVISION`]).
pub const SPEC: &str = "portolan.dev/spec";

/// Prefixes that `spec.pod.labels` and `spec.pod.annotations` may not use: the operator's own, and one by which an
/// annotation could switch off AppArmor.
pub const RESERVED_PREFIXES: [&str; 3] =
    ["portolan.dev/", "app.kubernetes.io/", "container.apparmor.security.beta.kubernetes.io/"];
