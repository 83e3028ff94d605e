"""A stdio MCP server that answers nothing before `notifications/initialized`, and tells by an error who does not wait.
A client that calls itself "test" waits for the file that is its first argument before `initialize` is answered."""

import json
import os
import sys
import time

initialized = False
for line in sys.stdin:
    message = json.loads(line)
    method, ident = message.get("method"), message.get("id")
    if method == "notifications/initialized":
        initialized = True
    if ident is None:
        continue
    if method == "initialize":
        while message["params"]["clientInfo"]["name"] == "test" and not os.path.exists(sys.argv[1]):
            time.sleep(0.01)
        server = {"name": "strict", "version": "1"}
        answer = {"result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": server}}
    elif not initialized:
        answer = {"error": {"code": -32600, "message": "this session is not open yet"}}
    elif method == "tools/list":
        answer = {"result": {"tools": []}}
    else:
        answer = {"result": {"content": [{"type": "text", "text": "answered"}]}}
    print(json.dumps({"jsonrpc": "2.0", "id": ident, **answer}), flush=True)
