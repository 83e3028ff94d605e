"""An MCP server of sessions (2025-11-25), which holds what it is sent against the protocol: it knows nothing of later eras."""

import json
import os
import queue
import threading
import uuid

from transport import Done, Failure, Pipe, hold, run, say

PREFIX = "io.modelcontextprotocol/"
TOOLS = ["ask", "change", "die", "echo", "log", "meta", "pid", "release", "wait"]


def text(value):
    return {"content": [{"type": "text", "text": value}]}


class Legacy:
    statuses = {-32600: 400}

    def __init__(self):
        self.sessions = {}
        self.answers = {}
        self.arrived = threading.Condition()
        self.released = threading.Event()
        self.client = None
        self.open_calls = {}

    # HTTP: sessions have names.

    def admit(self, message, headers):
        session = headers.get("mcp-session-id")
        if "mcp-method" in headers:
            raise Failure(-32600, "a client of sessions sends no such header")
        if message.get("method") == "initialize":
            return
        if session not in self.sessions:
            raise Failure(-32600, f"no session {session}")
        if headers.get("mcp-protocol-version") != "2025-11-25":
            raise Failure(-32600, "which revision was agreed upon?")

    def stand(self, handler, exchange):
        session = handler.headers.get("mcp-session-id")
        if session not in self.sessions:
            return handler.respond(404)
        exchange.open()
        say("the standing stream is open")
        while not exchange.is_gone() and session in self.sessions:
            try:
                exchange.send(self.sessions[session].get(timeout=0.02))
            except queue.Empty:
                continue
            except OSError:
                break

    def leave(self, handler):
        self.sessions.pop(handler.headers.get("mcp-session-id"), None)
        say("a session was ended")
        handler.respond(200)

    def stand_alone(self, exchange, message):
        """Says something that belongs to no call."""
        if isinstance(exchange, Pipe):
            exchange.send(message)
        for standing in self.sessions.values():
            standing.put(message)

    # What comes in.

    def heard(self, message):
        with self.arrived:
            self.answers[message["id"]] = message.get("result", message.get("error"))
            self.arrived.notify_all()

    def told(self, message, _):
        params = message.get("params", {})
        say(f"told {message['method']}")
        if message["method"] == "notifications/cancelled":
            call = self.open_calls.get(params["requestId"])
            if call is not None:
                call.set()

    def answer(self, message, exchange):
        method, params = message["method"], message.get("params", {})
        if any(name.startswith(PREFIX) for name in params.get("_meta", {})):
            raise Failure(-32602, "what is this in _meta?")
        match method:
            case "initialize":
                self.client = params
                say(f"opened for {json.dumps(params['clientInfo'])}")
                capabilities = {
                    "tools": {"listChanged": True},
                    "resources": {"subscribe": True, "listChanged": True},
                    "logging": {},
                }
                result = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "instructions": "be kind"}
                result["serverInfo"] = {"name": "legacy", "version": "3"}
                if not isinstance(exchange, Pipe):
                    session = str(uuid.uuid4())
                    self.sessions[session] = queue.Queue()
                    body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result})
                    exchange.handler.respond(200, body, {"Mcp-Session-Id": session})
                    raise Done
                return result
            case "ping":
                return {}
            case "tools/list":
                return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}
            case "resources/read":
                raise Failure(-32002, "no such resource", {"uri": params["uri"]})
            case "resources/subscribe" | "resources/unsubscribe" | "logging/setLevel":
                say(f"{method} {params.get('uri', params.get('level'))}")
                return {}
            case "tools/call" if params["name"] in TOOLS:
                return getattr(self, params["name"])(params.get("arguments", {}), exchange, params)
        raise Failure(-32601, f"{method} is no method of 2025-11-25")

    # Tools.

    def echo(self, arguments, *_):
        return text(arguments["message"])

    def pid(self, *_):
        return text(str(os.getpid()))

    def meta(self, _arguments, _exchange, params):
        return text(json.dumps({"client": self.client, "params": params}))

    def ask(self, _arguments, exchange, _params):
        ident = str(uuid.uuid4())
        say("asks")
        exchange.send({"id": ident, "method": "elicitation/create", "params": {"message": "How many?"}})
        with self.arrived:
            self.arrived.wait_for(lambda: ident in self.answers)
            return text(json.dumps(self.answers.pop(ident)))

    def wait(self, arguments, exchange, params):
        name, token = arguments["name"], params.get("_meta", {}).get("progressToken")
        taken_back = self.open_calls[exchange.ident] = threading.Event()
        if token is not None:
            progress = {"progressToken": token, "progress": 1, "message": name}
            exchange.send({"method": "notifications/progress", "params": progress})
        say(f"waits for {name}")
        while not self.released.wait(0.02):
            if taken_back.is_set():
                say(f"took back {name}")
                # As the protocol wants it, there is no answer; the stream stays as long as somebody reads it.
                if not isinstance(exchange, Pipe):
                    hold(exchange, threading.Event())
                    say(f"nobody waits for {name}")
                raise Done
        return text(name)

    def release(self, *_):
        self.released.set()
        return text("released")

    def log(self, _arguments, exchange, _params):
        exchange.send({"method": "notifications/message", "params": {"level": "info", "data": "logged"}})
        return text("logged")

    def change(self, arguments, exchange, _params):
        self.stand_alone(exchange, {"method": "notifications/tools/list_changed"})
        if "uri" in arguments:
            self.stand_alone(exchange, {"method": "notifications/resources/updated", "params": arguments})
        return text("changed")

    def die(self, *_):
        say("out of cheese")
        os._exit(7)


run(Legacy())
