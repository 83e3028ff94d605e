"""Start a runner under the clients' own Python, in a HOME of its own, and end everything it started with it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import layout

RUNNERS = Path(__file__).resolve().parent
TIMED_OUT = 3
GRACE = 5.0


def main(runner: str, usage: str):
    # The runner keeps the deadline; this bound is for one whose clean-up hangs.
    seconds = timeout(usage) + GRACE
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory() as home:
        sys.exit(bounded(runner, usage, home, seconds))


def bounded(runner: str, usage: str, home: str, seconds: float) -> int:
    command = [str(layout.require(layout.CLIENT_PYTHON)), str(RUNNERS / runner), *sys.argv[1:]]
    environment = {**os.environ, "HOME": home, "RUNNER_USAGE": usage, "PYTHONDONTWRITEBYTECODE": "1"}
    # A group of its own: the inspector is a grandchild, and must end with the rest.
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        print(json.dumps({"error": f"still running after {seconds:g} s", "code": None, "status": None}))
        return TIMED_OUT
    finally:
        end_group(child)


def timeout(usage: str) -> float:
    """Only this option is read here; the runner checks the whole command line."""
    arguments = sys.argv[1:]
    given = [after for option, after in zip(arguments, arguments[1:]) if option == "--timeout"]
    try:
        return float(given[-1]) if given else 30.0
    except ValueError:
        sys.exit(f"--timeout takes seconds, not {given[-1]!r}\n\n{usage}")


def end_group(child: subprocess.Popen):
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()
