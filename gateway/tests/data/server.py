"""A stdio MCP server: `echo` answers its arguments, `say` sends two log messages after its answer (behind what its argument `who` says), `ask` asks the client first, `die` ends the process, `sleep` never answers."""

import json
import os
import sys


def write(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "say", "ask", "die", "sleep")]
asked = None
for line in sys.stdin:
    message = json.loads(line)
    method, ident, params = message.get("method"), message.get("id"), message.get("params", {})
    if method == "initialize":
        info = {"name": "fixture", "version": "1"}
        write({"id": ident, "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}})
    elif method == "tools/list":
        write({"id": ident, "result": {"tools": TOOLS}})
    elif method == "tools/call" and params["name"] == "echo":
        write({"id": ident, "result": {"content": [], "structuredContent": params["arguments"]}})
    elif method == "tools/call" and params["name"] == "say":
        write({"id": ident, "result": {"content": []}})
        for data in ("first", "second"):
            data = params["arguments"].get("who", "") + data
            write({"method": "notifications/message", "params": {"level": "info", "data": data}})
    elif method == "tools/call" and params["name"] == "ask":
        asked = ident
        write({"id": "question", "method": "elicitation/create", "params": {"message": "?", "requestedSchema": {}}})
    elif method == "tools/call" and params["name"] == "die":
        os._exit(3)
    elif ident == "question" and "result" in message:
        write({"id": asked, "result": {"content": [], "structuredContent": message["result"]}})
