"""Root folders of the servers' images: an interpreter, the shared libraries it needs, the installed packages, the fixture.

There is one root for the Node servers and one for the Python servers, so that their images share their one layer, and another
two for their earlier versions.
"""

import configparser
import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import fixture
import layout

ROOTS = layout.TARGET / "rootfs"
SYSTEM_LIBRARIES = re.compile(r"^(/usr)?/lib(64)?/")
SHARED_OBJECT = re.compile(r"\.so(\.|$)")
# Parts of the standard library that a server does not run: tests, editors, installers, and what only a compiler reads.
NOT_AT_RUN_TIME = ("__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data",
                   "config-*", "site-packages", "dist-packages", "_tkinter*")
INSTALLERS = ("__pycache__", "pip", "pip-*", "setuptools", "setuptools-*", "_distutils_hack", "distutils-precedence.pth")


def node(root: Path, installed: Path):
    skeleton(root)
    add_program(root, layout.require(layout.node()), "/usr/local/bin/node")
    add_program(root, program("env"), "/usr/bin/env")
    shutil.copytree(layout.require(installed / "node_modules"), root / "app" / "node_modules", symlinks=True)
    finish(root)


def python(root: Path, installed: Path):
    skeleton(root)
    interpreter = Path(os.path.realpath(layout.require(installed / "bin" / "python3")))
    version = f"python{sysconfig.get_python_version()}"
    standard = root / "usr" / "local" / "lib" / version
    packages = root / "app" / "venv" / "lib" / version / "site-packages"

    add_program(root, interpreter, "/usr/local/bin/python3")
    shutil.copytree(Path(os.__file__).parent, standard, ignore=shutil.ignore_patterns(*NOT_AT_RUN_TIME), ignore_dangling_symlinks=True)
    shutil.copytree(installed / "lib" / version / "site-packages", packages, ignore=shutil.ignore_patterns(*INSTALLERS))
    make_venv(root / "app" / "venv", packages)
    for folder in (standard, packages):
        for extension in folder.rglob("*.so"):
            add_libraries(root, extension, optional=folder == standard)
    # Byte code that does not look at source times, which an image does not keep.
    subprocess.run([interpreter, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash",
                    "-s", root, "-p", "/", standard, packages], check=True, timeout=300)

    add_program(root, program("git"), "/usr/bin/git")
    # The fixture belongs to root, and the server does not run as root.
    write(root / "etc" / "gitconfig", "[safe]\n\tdirectory = *\n")
    finish(root)


# How each is made, and of what.
KINDS = {
    "node": (node, layout.NPM_SERVERS),
    "node-earlier": (node, layout.NPM_EARLIER),
    "python": (python, layout.PY_SERVERS),
    "python-earlier": (python, layout.PY_EARLIER),
}
SEARCH_PATHS = {node: "/app/node_modules/.bin", python: "/app/venv/bin"}


def kind_of(server: dict) -> str:
    language = "node" if server["package"].startswith("@") else "python"
    return f"{language}-earlier" if server.get("isEarlier") else language


def search_path(kind: str) -> str:
    """Where the commands of the installed packages are."""
    builder, _ = KINDS[kind]
    return SEARCH_PATHS[builder]


def ensure(kind: str) -> Path:
    """The root folder, made anew only when something that goes into it changed."""
    root, stamp = ROOTS / kind, ROOTS / f"{kind}.key"
    if stamp.exists() and stamp.read_text() == key(kind):
        return root
    shutil.rmtree(root, ignore_errors=True)
    stamp.unlink(missing_ok=True)
    builder, installed = KINDS[kind]
    builder(root, installed)
    stamp.write_text(key(kind))
    return root


def key(kind: str) -> str:
    builder, installed = KINDS[kind]
    packages = [installed, layout.NPM_INSPECTOR] if builder is node else [installed]
    inputs = [layout.require(folder / ".installed") for folder in packages] + [Path(__file__), layout.SOURCE / "fixture.py"]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in inputs)).hexdigest()


def skeleton(root: Path):
    for folder in ("usr/bin", "usr/lib", "usr/lib64", "usr/local/bin", "app", "dev", "proc", "sys", "home/nonroot"):
        (root / folder).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    write(root / "etc" / "passwd", "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
    write(root / "etc" / "group", "root:x:0:\nnonroot:x:65532:\n")
    shutil.copytree(layout.require(layout.FIXTURE), root / "srv" / "fixture", symlinks=True)


def finish(root: Path):
    """The same modes whatever the builder's umask was: an image's files are for everyone to read."""
    for at, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(at, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)


def program(name: str) -> Path:
    return Path(os.path.realpath(shutil.which(name) or layout.fail(f"{name} is missing on PATH")))


def add_program(root: Path, source: Path, target: str):
    copy(source, root / target.lstrip("/"))
    add_libraries(root, source)


def add_libraries(root: Path, binary: Path, optional: bool = False):
    """Copy what ldd names. An `optional` binary whose libraries this machine lacks stays as unusable as it is here."""
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True, timeout=60, env={**os.environ, "LC_ALL": "C"})
    if listed.returncode != 0 and "not a dynamic executable" not in listed.stdout + listed.stderr:
        layout.fail(f"ldd {binary}: {listed.stderr.strip()}")
    for line in listed.stdout.splitlines():
        if "not found" in line and not optional:
            layout.fail(f"{binary} needs {line.split()[0]}, which this machine does not have")
        library = re.search(r"(/\S+) \(0x", line)
        if library and root / "app" not in Path(library[1]).parents:
            copy(Path(library[1]), root / library_place(library[1]), again=False)


def library_place(path: str) -> str:
    """System libraries keep their folder under /usr; one from an interpreter's own folder goes where the loader looks by itself."""
    if SYSTEM_LIBRARIES.match(path):
        return path.removeprefix("/usr").replace("/lib", "usr/lib", 1)
    return f"usr/lib/{Path(path).name}"


def copy(source: Path, target: Path, again: bool = True):
    if again or not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755)


def make_venv(venv: Path, packages: Path):
    """What venv and pip would have made, had they been run inside the image."""
    (venv / "bin").mkdir()
    (venv / "bin" / "python3").symlink_to("/usr/local/bin/python3")
    write(venv / "pyvenv.cfg", "home = /usr/local/bin\ninclude-system-site-packages = false\n")
    for listing in packages.glob("mcp_server_*.dist-info/entry_points.txt"):
        entries = configparser.ConfigParser(delimiters=["="])
        entries.read(listing)
        for name, entry in entries["console_scripts"].items():
            module, function = entry.split(":")
            script = venv / "bin" / name
            write(script, f"#!/app/venv/bin/python3\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n")
            script.chmod(0o755)


def write(path: Path, text: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
