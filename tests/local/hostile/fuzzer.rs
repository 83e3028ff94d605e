//! What no client of good will would send: `mcp-fuzzer`.
