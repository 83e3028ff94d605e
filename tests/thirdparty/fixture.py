"""The files that the servers work on: a folder with a note, and a git repository whose commit ids never change."""

import os
import shutil
import subprocess
from pathlib import Path

NOTE = "The harbour light is lit at dusk.\n"
COMMITS = [
    ("README.md", "# Harbour\n", "Describe the harbour"),
    ("tides.csv", "time,metres\n06:10,4.2\n", "Record the first tide"),
]
STAMP = "2"  # raise it when what is made here changes


def ensure(folder: Path):
    stamp = folder / ".made"
    if stamp.exists() and stamp.read_text() == STAMP:
        return
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "note.txt").write_text(NOTE)
    make_repository(folder / "repo")
    stamp.write_text(STAMP)


def make_repository(repo: Path):
    git(repo.parent, "init", "--quiet", "--template=", "--initial-branch=main", str(repo))
    for day, (name, text, message) in enumerate(COMMITS, start=1):
        (repo / name).write_text(text)
        git(repo, "add", name)
        git(repo, "commit", "--quiet", "--no-gpg-sign", "-m", message, date=f"2026-01-0{day}T12:00:00Z")
    # An index without this machine's inode numbers and times, so that images made from it are equal everywhere.
    (repo / ".git" / "index").unlink()
    git(repo, "read-tree", "HEAD")


def git(cwd: Path, *arguments: str, date: str = "2026-01-01T12:00:00Z"):
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Harbour", "GIT_AUTHOR_EMAIL": "harbour@example.com", "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_NAME": "Harbour", "GIT_COMMITTER_EMAIL": "harbour@example.com", "GIT_COMMITTER_DATE": date,
    }
    subprocess.run(["git", *arguments], cwd=cwd, env=environment, check=True, timeout=60)
