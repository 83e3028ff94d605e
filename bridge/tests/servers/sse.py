"""An HTTP+SSE MCP server (2024-11-05) whose first argument says how it misbehaves from the start; its tools misbehave when
called. Prints its port."""

import json
import os
import queue
import sys
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODE = sys.argv[1]
streams = {}
answers = {}
arrived = threading.Condition()
released = threading.Event()
CHUNK = b"x" * (1 << 16)


class Session:
    def __init__(self, ident):
        self.ident = ident
        self.events = queue.Queue()
        self.initialized = False
        self.methods = []

    def send(self, message, head="event: message\n"):
        # Cut into two lines of data where JSON allows it, as a server may.
        text = json.dumps({"jsonrpc": "2.0", **message}).replace(', "id"', ',\ndata:"id"', 1)
        self.events.put(f"{head}data: {text}\n\n".encode())

    def ask(self, method, params):
        ident = f"from-server-{uuid.uuid4()}"
        self.send({"id": ident, "method": method, "params": params})
        with arrived:
            arrived.wait_for(lambda: ident in answers)
            return answers.pop(ident)


def progress(session, arguments):
    params = {"progressToken": arguments["token"], "progress": 1}
    session.send({"method": "notifications/progress", "params": params}, head="")
    return "done"


def notify(session, arguments):
    session.send({"method": "notifications/message", "params": {"level": "info", "data": arguments["message"]}})
    return "told"


def other_events(session, _):
    session.events.put(b"event: ping\ndata: {\"jsonrpc\": \"2.0\", \"method\": \"test/never\"}\n\n: comment\n\n")
    session.events.put(b"event: endpoint\ndata: /another\n\nid: 7\nretry: 5\n\ndata: no JSON\n\n")
    return "sent"


def endless(session, arguments):
    session.events.put(b"data: ")
    for _ in range(arguments["bytes"] // len(CHUNK)):
        session.events.put(CHUNK)
    return "sent"


def close(session, _):
    session.events.put(None)
    hang(session, None)


def hang(_session, _arguments):
    while True:
        time.sleep(60)


def wait(_session, _arguments):
    released.wait()
    return "released"


TOOLS = {
    "ask": lambda session, _: json.dumps(session.ask("sampling/createMessage", {"messages": [], "maxTokens": 1})),
    "close": close,
    "die": lambda *_: os._exit(7),
    "echo": lambda _, arguments: arguments["message"],
    "endless": endless,
    "hang": hang,
    "methods": lambda session, _: json.dumps(session.methods),
    "notify": notify,
    "other-events": other_events,
    "progress": progress,
    "session": lambda session, _: session.ident,
    "sessions": lambda *_: str(len(streams)),
    "wait": wait,
}


def call(session, ident, params):
    text = TOOLS[params["name"]](session, params.get("arguments", {}))
    session.send({"id": ident, "result": {"content": [{"type": "text", "text": text}]}})


def take(session, message):
    method, ident = message.get("method"), message.get("id")
    session.methods.append(method)
    if method is None:
        with arrived:
            answers[ident] = message.get("result", message.get("error"))
            arrived.notify_all()
    elif method == "initialize":
        info = {"name": "older", "version": "1"}
        result = {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": info}
        session.send({"id": ident, "result": result})
    elif method == "notifications/initialized":
        # Long enough for whatever does not wait for it to overtake it.
        time.sleep(0.2)
        session.initialized = True
    elif method == "test/release":
        released.set()
    elif ident is None:
        pass
    elif not session.initialized:
        session.send({"id": ident, "error": {"code": -32600, "message": "not initialized"}})
    elif method == "tools/list":
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in sorted(TOOLS)]
        session.send({"id": ident, "result": {"tools": tools}})
    elif method == "tools/call":
        threading.Thread(target=call, args=(session, ident, message["params"]), daemon=True).start()
    else:
        session.send({"id": ident, "error": {"code": -32601, "message": "no such method"}})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, text, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        if self.path == "/moved":
            return self.answer(302, "", [("Location", "/sse")])
        if self.path == "/page":
            return self.answer(200, "{}", [("Content-Type", "application/json")])
        if self.path != "/sse":
            return self.answer(404, "no such page")
        session = Session(str(uuid.uuid4()))
        self.send_response(200)
        self.send_header("Content-Type", "Text/Event-Stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        streams[session.ident] = session
        endpoint = f"/messages?session={session.ident}"
        match MODE:
            case "elsewhere":
                endpoint = sys.argv[2] + endpoint
            case "absolute":
                endpoint = f"http://127.0.0.1:{self.server.server_port}{endpoint}"
        try:
            self.wfile.write(f": hello\n\nevent: endpoint\ndata: {endpoint}\n\n".encode())
            self.write_events(session)
        except OSError:
            pass
        finally:
            del streams[session.ident]

    def write_events(self, session):
        while True:
            try:
                event = session.events.get(timeout=0.05)
            except queue.Empty:
                # Only a write shows that the client is gone.
                event = b": ping\n\n"
            if event is None:
                return
            self.wfile.write(event)
            if event == b"data: ":
                # No comment may come between what belongs together.
                while (more := session.events.get()) is CHUNK:
                    self.wfile.write(more)
                self.wfile.write(b"\n\n" + more)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        session = streams.get(query.get("session", [""])[0])
        if session is None:
            return self.answer(404, "no such session")
        message = json.loads(body)
        match message.get("params", {}).get("name") if message.get("method") == "tools/call" else None:
            case "refused":
                return self.answer(400, "this is not to its taste")
            case "moved":
                return self.answer(307, "", [("Location", "/messages")])
            case "held":
                # Taken when it is answered, as some frameworks do it.
                call(session, message["id"], {"name": "wait"})
                return self.answer(200, "Accepted")
            case "unfinished":
                self.close_connection = True
                return None
        if message.get("method") != "tools/call":
            take(session, message)
            return self.answer(202, "Accepted")
        # A tool may end the server.
        self.answer(202, "Accepted")
        return take(session, message)


class Server(ThreadingHTTPServer):
    daemon_threads = True


port = int(sys.argv[2]) if MODE == "well" and len(sys.argv) > 2 else 0
server = Server(("127.0.0.1", port), Handler)
print(server.server_port, flush=True)
server.serve_forever()
