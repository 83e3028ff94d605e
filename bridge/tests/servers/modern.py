"""An MCP server of the sessionless era (2026-07-28) and of no other, which holds everything that it is sent against the
protocol. Its tools misbehave when they are called."""

import base64
import json
import os
import sys
import threading

from transport import Done, Failure, Post, hold, run, say

REVISION = "2026-07-28"
PREFIX = "io.modelcontextprotocol/"
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
MODERN = ["server/discover", "tools/list", "tools/call", "resources/read", "subscriptions/listen"]
SCHEMA = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
FORM = {"message": "How many?", "mode": "form", "requestedSchema": {"type": "object", "properties": {}}}


def text(value, **more):
    return {"resultType": "complete", "content": [{"type": "text", "text": value}], **more}


def decoded(value):
    if value and value.startswith("=?base64?") and value.endswith("?="):
        return base64.b64decode(value[9:-2]).decode()
    return value


class Modern:
    statuses = {-32601: 404, -32020: 400, -32021: 400, -32022: 400}

    def __init__(self):
        self.released = threading.Event()
        self.listeners = {}
        self.listening = threading.Lock()

    # What comes in, held against the protocol.

    def check(self, message):
        meta = message.get("params", {}).get("_meta", {})
        if meta.get(PREFIX + "protocolVersion") != REVISION:
            raise Failure(-32022, "Unsupported protocol version", {"supported": [REVISION], "requested": "other"})
        if not isinstance(meta.get(PREFIX + "clientCapabilities"), dict):
            raise Failure(-32602, "no client capabilities")
        return meta

    def admit(self, message, headers):
        """Headers say what the body says."""
        if "method" not in message:
            raise Failure(-32600, "nobody was asked anything")
        if "mcp-session-id" in headers:
            raise Failure(-32020, "there are no sessions")
        params = message.get("params", {})
        wanted = {"mcp-protocol-version": REVISION, "mcp-method": message["method"]}
        if message["method"] in NAMED:
            wanted["mcp-name"] = params[NAMED[message["method"]]]
        if params.get("name") == "route":
            wanted["mcp-param-region"] = params["arguments"]["region"]
        for name, value in wanted.items():
            if decoded(headers.get(name)) != value:
                raise Failure(-32020, f"{name} is {headers.get(name)!r} where the body says {value!r}")

    def heard(self, message):
        say(f"an answer that nobody waits for: {json.dumps(message)}")

    def told(self, message, _):
        say(f"told {message['method']}")
        if message["method"] == "notifications/test/change":
            self.tool_change(message["params"])

    def stand(self, handler, _):
        say("somebody asked for a standing stream")
        handler.respond(405)

    def leave(self, handler):
        handler.respond(405)

    # What is answered.

    def answer(self, message, exchange):
        method, params = message["method"], message.get("params", {})
        if method not in MODERN:
            raise Failure(-32601, f"{method} is no method of {REVISION}")
        meta = self.check(message)
        cached = {"resultType": "complete", "ttlMs": 1000, "cacheScope": "public"}
        match method:
            case "server/discover":
                capabilities = {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}}
                info = {PREFIX + "serverInfo": {"name": "modern", "version": "7"}}
                own = {"supportedVersions": [REVISION], "capabilities": capabilities, "instructions": "be kind"}
                return {**cached, **own, "_meta": info}
            case "tools/list":
                names = sorted(name[5:] for name in dir(self) if name.startswith("tool_"))
                return {**cached, "tools": [{"name": name, "inputSchema": SCHEMA} for name in names]}
            case "resources/read":
                return {**cached, "contents": [{"uri": params["uri"], "text": "x"}]}
            case "subscriptions/listen":
                return self.listen(params["notifications"], exchange)
            case "tools/call":
                tool = getattr(self, f"tool_{params['name']}", None)
                if tool is None:
                    raise Failure(-32602, "no such tool")
                return tool(params.get("arguments", {}), exchange, params, meta)

    def notify(self, exchange, method, **params):
        meta = {PREFIX + "subscriptionId": exchange.ident}
        exchange.send({"method": f"notifications/{method}", "params": {**params, "_meta": meta}})

    def listen(self, wanted, exchange):
        if "none:/such" in wanted.get("resourceSubscriptions", []):
            raise Failure(-32601, "it does not listen for that")
        if "refuse:/it" in wanted.get("resourceSubscriptions", []):
            raise Failure(-32602, "that resource is nobody's to watch")
        # Nothing comes on a stream before it is acknowledged, and nothing after that is missed.
        with self.listening:
            self.notify(exchange, "subscriptions/acknowledged", notifications=wanted)
            self.listeners[exchange] = wanted
        say(f"listens for {json.dumps(wanted)}")
        hold(exchange, threading.Event())
        del self.listeners[exchange]
        say(f"no longer listens for {json.dumps(wanted)}")
        raise Done

    # Tools.

    def tool_echo(self, arguments, *_):
        return text(arguments["message"])

    def tool_pid(self, *_):
        return text(str(os.getpid()))

    def tool_meta(self, _arguments, _exchange, _params, meta):
        return text(json.dumps(meta))

    def tool_route(self, arguments, *_):
        return text(arguments["region"])

    def tool_fail(self, arguments, *_):
        raise Failure(arguments["code"], "as you wish")

    def tool_wait(self, arguments, exchange, _params, meta):
        token, name = meta.get("progressToken"), arguments["name"]
        if token is not None:
            progress = {"progressToken": token, "progress": 1, "message": name}
            exchange.send({"method": "notifications/progress", "params": progress})
        say(f"waits for {name}")
        if hold(exchange, self.released):
            return text(name)
        say(f"took back {name}")
        raise Done

    def tool_release(self, *_):
        self.released.set()
        return text("released")

    def tool_ask(self, _arguments, _exchange, params, meta):
        if params.get("requestState") == "state of round 1":
            return text(json.dumps(params["inputResponses"]))
        if "elicitation" not in meta[PREFIX + "clientCapabilities"]:
            raise Failure(-32021, "elicitation is needed", {"requiredCapabilities": {"elicitation": {}}})
        asked = {"first": {"method": "elicitation/create", "params": FORM}}
        return {"resultType": "input_required", "inputRequests": asked, "requestState": "state of round 1"}

    def tool_log(self, _arguments, exchange, _params, meta):
        level = meta.get(PREFIX + "logLevel")
        if level is not None:
            exchange.send({"method": "notifications/message", "params": {"level": level, "data": "logged"}})
        return text(str(level))

    def tool_change(self, arguments, *_):
        with self.listening:
            listeners = list(self.listeners.items())
        for exchange, wanted in listeners:
            if wanted.get("toolsListChanged"):
                self.notify(exchange, "tools/list_changed")
            if arguments.get("uri") in wanted.get("resourceSubscriptions", []):
                self.notify(exchange, "resources/updated", uri=arguments["uri"])
        return text("changed")

    def tool_hush(self, *_):
        """Ends every stream of notifications in good order."""
        for exchange in list(self.listeners):
            own = {"_meta": {PREFIX + "subscriptionId": exchange.ident}}
            exchange.answer({"id": exchange.ident, "result": {"resultType": "complete", **own}})
        return text("hushed")

    # Misbehaviour.

    def tool_die(self, *_):
        say("out of cheese")
        os._exit(7)

    def tool_garbage(self, _arguments, exchange, *_):
        if isinstance(exchange, Post):
            exchange.handler.respond(200, "<html>this is no JSON")
            raise Done
        exchange.write("this is no JSON\n")
        return text("after the garbage")

    def tool_wrong_id(self, _arguments, exchange, *_):
        exchange.answer({"id": 987654, "result": text("whose is it?")})
        raise Done

    def tool_twice(self, _arguments, exchange, *_):
        for n in ("once", "twice"):
            exchange.send({"id": exchange.ident, "result": text(n)})
        raise Done

    def tool_endless(self, _arguments, exchange, *_):
        if isinstance(exchange, Post):
            exchange.open()
            exchange.write("data: ")
        while not exchange.is_gone():
            exchange.write("x" * (1 << 20))
        raise Done

    def tool_cut(self, _arguments, exchange, *_):
        exchange.open()
        exchange.write(": and that is all\n\n")
        raise Done

    def tool_status(self, arguments, exchange, *_):
        exchange.handler.respond(arguments["status"], "", {"Location": "http://127.0.0.1:9/elsewhere"})
        raise Done


run(Modern())
