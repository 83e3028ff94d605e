"""Where the third-party servers and clients live, and what their pins are."""

import json
import os
import platform
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
# Without links: a virtual environment has its own path in it, which is to be good for every checkout that shares the folder.
TARGET = (SOURCE.parents[1] / "target").resolve() / "thirdparty"
LOCKS = SOURCE / "locks"

BIN = TARGET / "bin"
FIXTURE = TARGET / "fixture"
NPM_CONFORMANCE = TARGET / "npm" / "conformance"
NPM_EARLIER = TARGET / "npm" / "earlier"
NPM_SERVERS = TARGET / "npm" / "servers"
NPM_INSPECTOR = TARGET / "npm" / "inspector"
PY_CLIENTS = TARGET / "python" / "clients"
PY_EARLIER = TARGET / "python" / "earlier"
PY_FUZZER = TARGET / "python" / "fuzzer"
PY_SERVERS = TARGET / "python" / "servers"
GO_H2SPEC = TARGET / "go" / "h2spec"

INSPECTOR = NPM_INSPECTOR / "node_modules" / ".bin" / "mcp-inspector"
CLIENT_PYTHON = PY_CLIENTS / "bin" / "python"


def versions() -> dict:
    return json.loads((SOURCE / "versions.json").read_text())


def servers() -> list[dict]:
    return json.loads((SOURCE / "servers.json").read_text())["servers"]


def earlier() -> list[dict]:
    """Those of them that have an earlier version too, as that one is: what `earlier` says is in place of the rest."""
    return [{**server, **server["earlier"], "name": f"{server['name']}-earlier", "isEarlier": True}
            for server in servers() if "earlier" in server]


def in_container() -> dict[str, str]:
    """What the placeholders of servers.json stand for in an image."""
    placeholders = json.loads((SOURCE / "servers.json").read_text())["placeholders"]
    return {placeholder: place["container"] for placeholder, place in placeholders.items()}


def on_this_machine(scratch: Path) -> dict[str, str]:
    """What they stand for here; `scratch` is a writable folder of the caller's own."""
    return {"${FIXTURE}": str(FIXTURE), "${SCRATCH}": str(scratch)}


def fill(value, places: dict[str, str]):
    """The JSON value with its placeholders replaced, at any depth."""
    if isinstance(value, dict):
        return {key: fill(inner, places) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill(inner, places) for inner in value]
    if isinstance(value, str):
        for placeholder, place in places.items():
            value = value.replace(placeholder, place)
    return value


def node() -> Path:
    """The pinned Node; npm installs only the package of this machine's architecture."""
    arch = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine())
    if arch is None:
        fail(f"no pinned Node for the architecture {platform.machine()}; x86_64 and aarch64 have one")
    return NPM_INSPECTOR / "node_modules" / f"node-linux-{arch}" / "bin" / "node"


def search_path(is_earlier: bool = False) -> str:
    """PATH with every third-party command on it, so that servers.json's `command` works on this machine: the later version
    of it, or the earlier one."""
    earlier_commands = [NPM_EARLIER / "node_modules" / ".bin", PY_EARLIER / "bin"] if is_earlier else []
    return os.pathsep.join(map(str, [*earlier_commands, BIN, os.environ.get("PATH", os.defpath)]))


def require(path: Path) -> Path:
    if not path.exists():
        fail(f"{path} is missing; run {SOURCE / 'install'}")
    return path


def fail(message: str):
    sys.exit(f"{Path(sys.argv[0]).name}: {message}")
