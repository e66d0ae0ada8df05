"""git on MNT: a repository with history is cloned, changed, repacked and checked."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

from tests.loads.commands import contents, require, run
from tests.mounting.mounted import Area

pytestmark = [pytest.mark.root, pytest.mark.long]

_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}
_PARTS = ("asyncio", "email", "json", "test", "unittest", "idlelib", "encodings", "xml")


def git(where: Path, *arguments: str | Path) -> str:
    return run("git", "-C", where, *arguments, env=_ENVIRONMENT).stdout


@pytest.fixture
def origin(area: Area) -> Path:
    """A repository beside the mount: the standard library, part by part."""
    require("git", "git")
    top = area.home / "origin"
    library = Path(sysconfig.get_path("stdlib"))
    top.mkdir()
    git(top, "init", "-q", "-b", "main")
    for part in _PARTS:
        if (library / part).is_dir():
            shutil.copytree(
                library / part, top / part, ignore=shutil.ignore_patterns("__pycache__")
            )
            git(top, "add", "-A")
            git(top, "commit", "-q", "-m", part)
            git(top, "tag", f"with-{part}")
    return top


def test_a_clone_lives(area: Area, origin: Path) -> None:
    clone, seen = area.mnt / "clone", area.src / "clone"
    git(area.mnt, "clone", "-q", "--no-local", origin, clone)
    assert git(clone, "status", "--porcelain") == ""
    assert git(seen, "status", "--porcelain") == ""
    git(clone, "checkout", "-q", "-b", "work", f"with-{_PARTS[2]}")
    git(clone, "checkout", "-q", "main")
    for path in sorted((clone / "json").glob("*.py")):
        path.write_text(path.read_text() + "# changed\n")
    (clone / "email").rename(clone / "mail")
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "-m", "changed")
    # The other side goes on with the same repository, and then this one again.
    (seen / "new").write_text("made on SRC\n")
    git(seen, "add", "new")
    git(seen, "commit", "-q", "-m", "from SRC")
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "log", "-1", "--format=%s") == "from SRC\n"
    git(clone, "rebase", "-q", "--onto", "work", "main~2", "main")
    git(clone, "stash", "list")
    git(clone, "fsck", "--full", "--strict")
    git(clone, "gc", "-q", "--aggressive", "--prune=now")
    git(clone, "fsck", "--full")
    git(clone, "worktree", "add", "-q", area.mnt / "tree", f"with-{_PARTS[1]}")
    assert git(area.mnt / "tree", "status", "--porcelain") == ""
    assert contents(area.mnt / "clone") == contents(area.src / "clone")
    plain = area.home / "plain"
    git(area.home, "clone", "-q", seen, plain)
    assert git(plain, "rev-parse", "HEAD^{tree}") == git(clone, "rev-parse", "HEAD^{tree}")
