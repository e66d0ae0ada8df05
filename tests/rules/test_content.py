"""What is read when MODIFY is told is the new content, also without passthrough."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rules.rule import AGENTS, Rule, rule

TIMES = 1000
READERS = 2
READ_ALWAYS = """
import os, select, sys
file = os.open(sys.argv[1], os.O_RDONLY)
while not select.select([0], [], [], 0)[0]:
    for _ in range(100):
        data = os.pread(file, 100, 0)
        if data != b"old":
            print(data)
"""


def one_file(src: Path) -> None:
    (src / "x").write_text("old")


@AGENTS
@rule("pages_kept_at_modify")
def test_an_overwrite_of_the_same_size(rule: Rule, agent: tuple[str, ...]) -> None:
    """The client's kernel compares size and mtime, and the replay has just given it both."""
    with rule.scene(*agent, "without_passthrough", furnish=one_file) as scene:
        watcher = scene.watcher(root=".")
        with (scene.mnt / "x").open("rb", buffering=0) as file:
            # Into the client's page cache, which the next open would empty.
            assert file.read() == b"old"
            with (scene.src / "x").open("r+b", buffering=0) as remote:
                remote.write(b"new")
                watcher.wait_for_line("root MODIFY x")
                file.seek(0)
                seen = file.read()
        rule.expect(seen, held=b"new", harm=b"old")


@AGENTS
@rule("pages_kept_at_modify")
def test_an_overwrite_of_what_is_mapped(rule: Rule, agent: tuple[str, ...]) -> None:
    """Who has a file mapped asks for nothing: the pages are dropped before the event is made."""
    more = (*agent, "without_passthrough", "nothing_is_doubted")
    with rule.scene(*more, furnish=one_file) as scene:
        watcher = scene.watcher(root=".")
        with (scene.mnt / "x").open("rb", buffering=0) as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            with mapped:
                assert mapped[:] == b"old"
                with (scene.src / "x").open("r+b", buffering=0) as remote:
                    remote.write(b"new")
                    watcher.wait_for_line("root MODIFY x")
                    seen = mapped[:]
        rule.expect(seen, held=b"new", harm=b"old")


@pytest.mark.root
def test_who_reads_meanwhile_reads_no_more_than_there_is() -> None:
    """A file is as long as before at every moment, and nothing else is in it."""
    with Rule().scene("without_passthrough", furnish=one_file) as scene:
        watcher = scene.watcher(root=".")
        command = [sys.executable, "-c", READ_ALWAYS, str(scene.mnt / "x")]
        readers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(READERS)
        ]
        try:
            with (scene.src / "x").open("r+b", buffering=0) as remote:
                for _ in range(TIMES):
                    os.pwrite(remote.fileno(), b"old", 0)
                    watcher.wait_for_line("root MODIFY x")
                    watcher.heard()
        finally:
            wrong = [reader.communicate()[0] for reader in readers]
    assert wrong == [b""] * READERS
