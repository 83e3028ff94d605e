"""Where the third-party servers and clients live, and what their pins are."""

import json
import os
import platform
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
TARGET = SOURCE.parents[1] / "target" / "thirdparty"
LOCKS = SOURCE / "locks"

BIN = TARGET / "bin"
FIXTURE = TARGET / "fixture"
NPM_SERVERS = TARGET / "npm" / "servers"
NPM_INSPECTOR = TARGET / "npm" / "inspector"
PY_CLIENTS = TARGET / "python" / "clients"
PY_SERVERS = TARGET / "python" / "servers"

INSPECTOR = NPM_INSPECTOR / "node_modules" / ".bin" / "mcp-inspector"
CLIENT_PYTHON = PY_CLIENTS / "bin" / "python"


def versions() -> dict:
    return json.loads((SOURCE / "versions.json").read_text())


def servers() -> list[dict]:
    return json.loads((SOURCE / "servers.json").read_text())["servers"]


def node() -> Path:
    """The pinned Node; npm installs only the package of this machine's architecture."""
    arch = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine())
    if arch is None:
        fail(f"no pinned Node for the architecture {platform.machine()}; x86_64 and aarch64 have one")
    return NPM_INSPECTOR / "node_modules" / f"node-linux-{arch}" / "bin" / "node"


def search_path() -> str:
    """PATH with every third-party command on it, so that servers.json's `command` works on this machine."""
    return f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def require(path: Path) -> Path:
    if not path.exists():
        fail(f"{path} is missing; run {SOURCE / 'install'}")
    return path


def fail(message: str):
    sys.exit(f"{Path(sys.argv[0]).name}: {message}")
