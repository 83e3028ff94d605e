"""A stdio MCP server whose first argument says how it misbehaves from the start; its tools misbehave when called."""

import json
import os
import signal
import sys
import threading
import time

lock = threading.Lock()
answers = {}
arrived = threading.Condition()
released = threading.Event()
tokens = []
# A process that no client can reach is told to hold memory this way.
signal.signal(signal.SIGUSR1, lambda *_: hog({"bytes": 236 << 20}))


def send(message):
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def ask(method, params):
    ident = f"from-server-{time.monotonic_ns()}"
    send({"id": ident, "method": method, "params": params})
    with arrived:
        arrived.wait_for(lambda: ident in answers)
        return answers.pop(ident)


def fork_away(_):
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(write, str(os.getpid()).encode())
            for fd in (0, 1, 2):
                os.close(fd)
            while True:
                time.sleep(60)
        os._exit(0)
    os.wait()
    return os.read(read, 32).decode()


def hog(arguments):
    held = bytearray(arguments["bytes"])
    for page in range(0, len(held), 4096):
        held[page] = 1
    globals().setdefault("hoard", []).append(held)
    return "held"


def endless(arguments):
    chunk = b"x" * (1 << 20)
    for _ in range(arguments["bytes"] >> 20):
        os.write(1, chunk)
    return "written"


def flood(arguments):
    for n in range(arguments["lines"]):
        sys.stderr.write(f"line {n}\n")
    sys.stderr.flush()
    return "written"


def progress(arguments):
    send({"method": "notifications/progress", "params": {"progressToken": arguments["token"], "progress": 1}})
    return "done"


def die(arguments):
    sys.stderr.write("out of cheese\n")
    sys.stderr.flush()
    os._exit(arguments["code"])


def hang(_):
    while True:
        time.sleep(60)


def say(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def wait(arguments):
    """Answers when `test/release` comes; says before that it waits, and under which id."""
    say(f"waiting {arguments.get('name')} as {arguments['id']}")
    released.wait()
    return "released"


def say_and_hang(_):
    say("hanging")
    hang(None)


TOOLS = {
    "echo": lambda arguments: arguments["message"],
    "pid": lambda _: str(os.getpid()),
    "garbage": lambda _: (os.write(1, b"this is no JSON\n{\"neither\": \"JSON-RPC\"}\n"), "written")[1],
    "ask": lambda _: json.dumps(ask("sampling/createMessage", {"messages": [], "maxTokens": 1})),
    "fork": fork_away,
    "hog": hog,
    "endless": endless,
    "flood": flood,
    "progress": progress,
    "die": die,
    "hang": say_and_hang,
    "wait": wait,
}


def tell_progress():
    """Of every call that ever asked for it, answered or not."""
    for token, name in tokens:
        send({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1, "message": name}})


def call(ident, params):
    arguments = params.get("arguments", {})
    token = params.get("_meta", {}).get("progressToken")
    if token is not None:
        tokens.append((token, arguments.get("name")))
    text = TOOLS[params["name"]]({**arguments, "id": ident})
    send({"id": ident, "result": {"content": [{"type": "text", "text": text}]}})


def serve(discover=None, revision="2025-11-25", mood=lambda: ""):
    """Answers; `discover` is what it does when it is asked for the sessionless era, `revision` what it says it speaks,
    `mood` what has become of its tools."""
    for line in sys.stdin:
        message = json.loads(line)
        method, ident = message.get("method"), message.get("id")
        if method is None:
            with arrived:
                answers[ident] = message.get("result", message.get("error"))
                arrived.notify_all()
        elif method == "initialize":
            info = {"name": "misbehaving", "version": "1"}
            result = {"protocolVersion": revision, "capabilities": {"tools": {}}, "serverInfo": info}
            send({"id": ident, "result": result})
        elif method == "notifications/cancelled":
            say(f"cancelled {message['params']['requestId']} because {message['params'].get('reason')}")
        elif method == "test/progress":
            tell_progress()
        elif method == "test/release":
            released.set()
            say("released")
        elif method == "tools/list":
            # Two pages, so that a client which reads only the first is found out.
            now = mood()
            if now == "hangs":
                continue
            if now == "dawdles":
                time.sleep(0.07)
            if now == "forgets":
                send({"id": ident, "result": {"tools": []}})
                continue
            names = sorted(TOOLS)
            page = names[4:] if message.get("params", {}).get("cursor") == "second" else names[:4]
            tools = [{"name": name, "inputSchema": {"type": "object"}} for name in page]
            result = {"tools": tools} if page[0] != names[0] else {"tools": tools, "nextCursor": "second"}
            send({"id": ident, "result": result})
        elif method == "tools/call":
            threading.Thread(target=call, args=(ident, message["params"]), daemon=True).start()
        elif method == "server/discover" and discover:
            discover(ident)
        elif ident is not None:
            send({"id": ident, "error": {"code": -32601, "message": "no such method"}})


def later_only():
    """Knows a revision that nobody speaks yet, and no other."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            data = {"supported": ["2031-01-01"], "requested": "2026-07-28"}
            error = {"code": -32022, "message": "Unsupported protocol version", "data": data}
            send({"id": message["id"], "error": error})


match sys.argv[1]:
    case "well":
        serve()
    case "both":
        versions = ["2026-07-28", "2099-01-01"]
        serve(lambda ident: send({"id": ident, "result": {"supportedVersions": versions}}))
    case "moody":
        serve(mood=lambda: open(sys.argv[2]).read())
    case "touchy":
        # Ends over a method that it does not know.
        serve(lambda _: os._exit(9))
    case "exits":
        sys.stderr.write("no configuration found\n")
        sys.exit(3)
    case "silent":
        hang(None)
    case "garbage":
        print("Welcome to my server!", flush=True)
        hang(None)
    case "later":
        later_only()
    case "unknown":
        serve(revision="1999-12-31")
    case "recovers":
        # Fails until the file exists.
        serve() if os.path.exists(sys.argv[2]) else sys.exit(1)
