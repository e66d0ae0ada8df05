"""Only regular files and directories are opened in the client."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.rules.rule import Rule, rule
from tests.rules.scene import ALL, Scene, wait_until


def fifo(src: Path) -> None:
    os.mkfifo(src / "fifo")


def device(src: Path) -> None:
    os.mknod(src / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))


def waits_for_a_partner(pid: int) -> bool:
    """Whether a process waits in the open of a FIFO (fs/pipe.c)."""
    return Path(f"/proc/{pid}/wchan").read_text() == "wait_for_partner"


@rule("opens_anything_in_the_agent", "opens_anything_in_the_plan")
def test_a_fifo_holds_nothing_up(rule: Rule) -> None:
    with rule.scene(furnish=fifo) as scene:
        watcher = scene.watcher(root=".")
        os.close(os.open(scene.src / "fifo", os.O_RDWR))
        (scene.src / "next").mkdir()
        if rule.off:
            agent = scene.agent()
            wait_until(lambda: waits_for_a_partner(agent), "the agent is held up")
            told = watcher.heard()
            # Lets it go, so that the mount can end.
            os.close(os.open(scene.mnt / "fifo", os.O_RDONLY | os.O_NONBLOCK))
        else:
            told = watcher.told()
        rule.expect("root CREATE next" in told, held=True, harm=False)


@rule("opens_anything_in_the_agent", "opens_anything_in_the_plan")
def test_a_device_is_not_opened(rule: Rule) -> None:
    """What has its number in the client is another machine's, or another device."""
    with rule.scene(furnish=device) as scene:
        watcher = scene.watcher()
        watcher.watch("device", "null", ALL)
        os.close(os.open(scene.src / "null", os.O_WRONLY))
        rule.expect("device OPEN" in watcher.told(), held=False, harm=True)


@pytest.mark.root
def test_a_program_that_runs_in_the_client() -> None:
    """It cannot be opened for writing (ETXTBSY); what follows is told all the same."""

    def furnish(src: Path) -> None:
        shutil.copy("/bin/sleep", src / "sleep")

    with Scene((), furnish) as scene:
        watcher = scene.watcher(root=".")
        with subprocess.Popen([scene.mnt / "sleep", "100"]) as process:
            try:
                with (scene.src / "sleep").open("ab") as file:
                    file.write(b"more")
                (scene.src / "next").mkdir()
                told = watcher.told()
            finally:
                process.kill()
        assert told == ["root MODIFY sleep", "root CREATE next"]
