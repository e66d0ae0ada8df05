"""Directories that nobody in the client has looked up: the source does not say where they are."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.rules.rule import Rule


def three(src: Path) -> None:
    for name in "efg":
        (src / name).mkdir()


@pytest.mark.root
def test_what_is_done_to_one_that_then_goes() -> None:
    """By the time that it is read of, the disk does not say any more where the directory was."""
    with Rule().scene(furnish=three) as scene:
        watcher = scene.watcher(root=".")
        watcher.told()
        server = scene.server()
        os.kill(server, signal.SIGSTOP)
        try:
            for name in "efg":
                (scene.src / name).chmod(0o700)
            (scene.src / "e").rmdir()
            (scene.src / "f").rename(scene.src / "h")
        finally:
            os.kill(server, signal.SIGCONT)
        assert watcher.told() == [
            "root ATTRIB e",
            "root ATTRIB f",
            "root ATTRIB g",
            "root DELETE e",
            "root MOVED_FROM f",
            "root MOVED_TO h",
        ]
