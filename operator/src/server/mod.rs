//! The reconciler of `MCPServer` objects.
