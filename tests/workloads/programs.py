"""The programs, and what they work on.

A workload is prepared in an empty directory that nobody watches yet; then it acts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

TEXT = "".join(f"line {number}\n" for number in range(200))


class Workload(NamedTuple):
    """A real program, or several, as the remote side."""

    name: str
    prepare: Callable[[Path], None]
    act: Callable[[Path], None]


def run(directory: Path, *command: str) -> None:
    """Run a program in ``directory``, with no settings of this machine's user."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.org",
        "GIT_EDITOR": "true",
        "PIP_CONFIG_FILE": os.devnull,
    }
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def shell(script: str) -> Callable[[Path], None]:
    return lambda directory: run(directory, "sh", "-euc", script)


def small_tree(directory: Path) -> None:
    """Thirty files in five directories, a symlink and a hard link."""
    for number in range(5):
        below = directory / f"dir{number}" / "deeper"
        below.mkdir(parents=True)
        for name in ("one", "two", "three"):
            (below.parent / name).write_text(TEXT)
            (below / name).write_text(name)
    (directory / "link").symlink_to("dir0/one")
    os.link(directory / "dir0" / "one", directory / "dir1" / "hard")


def repository(directory: Path) -> None:
    """A repository ``work`` with branches main and other, and a bare one beside it."""
    work = directory / "work"
    work.mkdir()
    small_tree(work)
    script = """
    git init -q -b main; git config core.hooksPath /dev/null
    git config gc.auto 0; git config maintenance.auto false  # they would go on after git's end
    git add -A; git commit -qm first
    git checkout -qb other
    mkdir -p new/sub; echo new > new/sub/file; git rm -rq dir4; echo changed >> dir0/two
    git mv dir1/two dir1/renamed; git add -A; git commit -qm other
    echo more >> dir2/one; git commit -qam 'other again'
    git checkout -q main; echo main >> dir3/one; git commit -qam main
    git clone -q --bare . ../bare.git
    """
    run(work, "sh", "-euc", script)


def sources_beside(directory: Path) -> None:
    """``from`` outside of what is watched: the caller watches ``to`` only."""
    small_tree(directory / "from")
    (directory / "to").mkdir()


def archive(directory: Path) -> None:
    sources_beside(directory)
    run(directory, "tar", "cf", "from.tar", "-C", "from", ".")


def wheel(directory: Path) -> None:
    """A wheel of one package; PEP 427."""
    (directory / "site").mkdir()
    info = "tiny-1.0.dist-info"
    files = {
        "tiny/__init__.py": "VERSION = 1\n",
        "tiny/module.py": "def answer():\n    return 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(directory / "tiny-1.0-py3-none-any.whl", "w") as packed:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            packed.writestr(name, text)


def install(directory: Path) -> None:
    options = [
        "--no-index",
        "--no-deps",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--quiet",
    ]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", "site"]
    run(directory, *command, "--root-user-action=ignore", "tiny-1.0-py3-none-any.whl")


def one_file(directory: Path) -> None:
    (directory / "file").write_text(TEXT)


ATOMIC_SAVE = """
import os, tempfile
fd, name = tempfile.mkstemp(dir=".")
with open(fd, "w") as file:
    file.write("saved")
    file.flush()
    os.fsync(fd)
os.chmod(name, os.stat("file").st_mode)
os.replace(name, "file")
"""

DATABASE = """
import sqlite3
for mode in ("delete", "wal"):
    with sqlite3.connect("db") as db:
        db.execute(f"pragma journal_mode={mode}")
        db.execute(f"create table {mode}_ (a)")
        db.executemany(f"insert into {mode}_ values (?)", ((n,) for n in range(100)))
    db.close()
"""


def config_map(directory: Path) -> None:
    """A ConfigMap volume as the kubelet's atomic writer leaves it."""
    shell("""
    mkdir volume; cd volume; mkdir ..v1; echo one > ..v1/key; echo one > ..v1/other
    ln -s ..v1 ..data; ln -s ..data/key key; ln -s ..data/other other
    """)(directory)


CONFIG_MAP_SWAP = """
cd volume
for n in 2 3; do
    mkdir ..v$n; chmod 755 ..v$n; echo $n > ..v$n/key; echo $n > ..v$n/other
    ln -s ..v$n ..data_tmp; mv -T ..data_tmp ..data; rm -r ..v$((n - 1))
done
"""
VIM = ["vim", "-u", "NONE", "-i", "NONE", "-es", "-c", "%s/line/LINE/", "-c", "wq", "file"]

WORKLOADS = [
    Workload("git-clone", repository, shell("mkdir clone; git clone -q bare.git clone")),
    Workload(
        "git-checkout", repository, shell("cd work; git checkout -q other; git checkout -q main")
    ),
    Workload("git-rebase", repository, shell("cd work; git checkout -q other; git rebase -q main")),
    Workload("git-commit", repository, shell("cd work; echo x > dir0/one; git commit -qam more")),
    Workload("git-reset", repository, shell("cd work; rm -r dir2; git reset -q --hard other")),
    Workload(
        "sed-in-place", one_file, shell("sed -i s/line/LINE/ file; sed -i.bak s/LINE/x/ file")
    ),
    Workload("vim", one_file, lambda directory: run(directory, *VIM)),
    Workload(
        "vim-backup-by-rename",
        one_file,
        lambda directory: run(directory, *VIM[:6], "-c", "set backupcopy=no backup", *VIM[6:]),
    ),
    Workload("atomic-save", one_file, lambda d: run(d, sys.executable, "-c", ATOMIC_SAVE)),
    Workload("tar", archive, shell("tar xf from.tar -C to")),
    Workload("tar-over", archive, shell("tar xf from.tar -C to; tar xf from.tar -C to")),
    Workload("rsync", sources_beside, shell("rsync -a from/ to")),
    Workload(
        "rsync-again",
        sources_beside,
        shell(
            "rsync -aH from/ to; echo x >> from/dir0/two; rm -r from/dir1;"
            "rsync -aH --delete from/ to"
        ),
    ),
    Workload(
        "copy-move-remove", sources_beside, shell("cp -a from copy; mv copy to/copy; rm -r to/copy")
    ),
    Workload(
        "acl", one_file, shell("setfacl -m u:1:r file; setfattr -n user.a -v b file; touch file")
    ),
    Workload("pip-install", wheel, install),
    Workload("sqlite", lambda _: None, lambda d: run(d, sys.executable, "-c", DATABASE)),
    Workload("kubernetes-config-map", config_map, shell(CONFIG_MAP_SWAP)),
]
