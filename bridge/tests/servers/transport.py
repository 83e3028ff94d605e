"""How the servers of both eras are reached: over standard input and output, or with `--http` over streamable HTTP.

Whoever starts one learns from its stderr where it listens and what it is told."""

import json
import os
import select
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

lock = threading.Lock()


def say(text):
    with lock:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


class Failure(Exception):
    """An answer that is an error."""

    def __init__(self, code, message, data=None):
        super().__init__(message)
        self.error = {"code": code, "message": message} | ({"data": data} if data is not None else {})


class Done(Exception):
    """The request was answered otherwise, or never will be."""


class Pipe:
    """One request over standard input and output."""

    def __init__(self, ident):
        self.ident = ident
        self.taken_back = threading.Event()

    def send(self, message):
        self.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")

    def write(self, text):
        with lock:
            sys.stdout.write(text)
            sys.stdout.flush()

    def is_gone(self):
        return self.taken_back.is_set()

    def answer(self, message):
        self.send(message)


class Post:
    """One request over HTTP: its answer is JSON, or a stream of events once something comes before it."""

    def __init__(self, handler, ident):
        self.handler = handler
        self.ident = ident
        self.is_stream = False

    def open(self):
        if not self.is_stream:
            self.is_stream = True
            self.handler.head(200, {"Content-Type": "text/event-stream", "Connection": "close"})

    def send(self, message):
        self.open()
        self.write(f"data: {json.dumps({'jsonrpc': '2.0', **message})}\n\n")

    def write(self, text):
        with lock:
            self.handler.wfile.write(text.encode())
            self.handler.wfile.flush()

    def is_gone(self):
        connection = self.handler.connection
        readable, _, _ = select.select([connection], [], [], 0)
        return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""

    def answer(self, message):
        if self.is_stream:
            return self.send(message)
        status = self.handler.statuses.get(message.get("error", {}).get("code"), 200)
        self.handler.respond(status, json.dumps({"jsonrpc": "2.0", **message}))


def hold(exchange, event):
    """Waits for `event`; says whether it came before the request was taken back."""
    while not event.wait(0.02):
        if exchange.is_gone():
            return False
    return True


def finish(server, message, exchange):
    """Has `server` answer a request."""
    try:
        answer = {"result": server.answer(message, exchange)}
    except Failure as failure:
        answer = {"error": failure.error}
    except (Done, BrokenPipeError, ConnectionResetError):
        return
    try:
        exchange.answer({"id": message["id"], **answer})
    except (BrokenPipeError, ConnectionResetError):
        pass


def serve_pipes(server):
    open_now = {}
    for line in sys.stdin:
        message = json.loads(line)
        if "method" not in message:
            server.heard(message)
        elif "id" not in message:
            asked = message.get("params", {}).get("requestId")
            if message["method"] == "notifications/cancelled" and asked in open_now:
                open_now[asked].taken_back.set()
            server.told(message, None)
        else:
            exchange = open_now[message["id"]] = Pipe(message["id"])
            threading.Thread(target=finish, args=(server, message, exchange), daemon=True).start()


def serve_http(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        statuses = server.statuses

        def log_message(self, *_):
            pass

        def head(self, status, headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.close_connection = "Content-Length" not in headers

        def respond(self, status, body="", headers=None):
            kind = {"Content-Type": "application/json"} if body else {}
            self.head(status, {**kind, **(headers or {}), "Content-Length": str(len(body.encode()))})
            self.wfile.write(body.encode())

        def do_POST(self):
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self.extra = server.admit(message, self.headers)
            except Failure as failure:
                return Post(self, None).answer({"id": message.get("id"), "error": failure.error})
            if "id" in message and "method" in message:
                return finish(server, message, Post(self, message["id"]))
            server.heard(message) if "method" not in message else server.told(message, self.headers)
            self.respond(202)

        def do_GET(self):
            server.stand(self, Post(self, None))

        def do_DELETE(self):
            server.leave(self)

    http = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "0"))), Handler)
    http.daemon_threads = True
    say(f"listening on {http.server_address[1]}")
    http.serve_forever()


def run(server):
    # What starts one may be killed: it does not outlive it.
    own = os.getppid()

    def watch():
        while os.getppid() == own:
            time.sleep(0.2)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    serve_http(server) if "--http" in sys.argv else serve_pipes(server)
