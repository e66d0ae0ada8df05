"""A replay never becomes a real operation: it is marked, and acknowledged only if armed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from farwatch.abi.control import SEQUENCES
from farwatch.linux.mounts import MNT_DETACH, umount
from tests.rules import hostile
from tests.rules.rule import Rule, rule
from tests.rules.scene import Scene, tree, wait_until
from tests.stage import is_mounted

NOTHING = ""
ANYTHING = "everything that was tried"


def attempt(scene: Scene, sequence: int, *options: str) -> str:
    """What a hostile process achieves, in MNT."""
    command = [sys.executable, "-P", hostile.__file__, str(scene.mnt), str(sequence), *options]
    done = subprocess.run(
        command, env=scene.stage._environment, capture_output=True, text=True, check=True, cwd="/"
    )
    return done.stdout.strip()


def one_file(src: Path) -> None:
    (src / "x").write_text("old")


def outcome(scene: Scene, before: dict[str, tuple[object, ...]], achieved: str) -> str:
    """NOTHING if the source is untouched and nothing was said to be done."""
    changed = tree(scene.src) != before
    if achieved == NOTHING and not changed:
        return NOTHING
    assert changed, f"acknowledged, though not armed: {achieved}"
    lost = [name for name in before if not os.path.lexists(scene.src / name)]
    return ANYTHING if lost else f"{achieved}, but nothing is lost"


@rule("unarmed_is_acted_on")
@pytest.mark.parametrize("sequence", [0, SEQUENCES - 1])
@pytest.mark.parametrize("hello", [(), ("hello",)], ids=["stranger", "registered"])
def test_what_is_not_armed_is_refused(rule: Rule, sequence: int, hello: tuple[str, ...]) -> None:
    with rule.scene(furnish=hostile.furnish) as scene:
        before = tree(scene.src)
        achieved = attempt(scene, sequence, *hello)
        rule.expect(outcome(scene, before, achieved), held=NOTHING, harm=ANYTHING)


@rule("unarmed_is_acted_on")
def test_the_agent_itself_may_do_nothing_else_than_what_is_armed(rule: Rule) -> None:
    with rule.scene("acts_otherwise", furnish=hostile.furnish) as scene:
        watcher = scene.watcher(root=".", file="file")
        before = tree(scene.src)
        del before["x"]
        (scene.src / "x").unlink()
        told = watcher.told()
        said = next(line for line in scene.stage.log().splitlines() if "otherwise:" in line)
        achieved = said.partition("otherwise:")[2].strip()
        rule.expect(outcome(scene, before, achieved), held=NOTHING, harm=ANYTHING)
        if not rule.off:
            assert told == ["root DELETE x"]


@rule("any_name_is_armed")
def test_another_name_than_the_armed_one_is_refused(rule: Rule) -> None:
    """Nothing is lost on the disk, but the client would be told that a living file is gone."""
    with rule.scene("acts_otherwise", furnish=hostile.furnish) as scene:
        watcher = scene.watcher(root=".")
        before = tree(scene.src)
        del before["x"]
        (scene.src / "x").unlink()
        told = [line for line in watcher.told() if "DELETE" in line]
        assert tree(scene.src) == before
        rule.expect(told, held=["root DELETE x"], harm=["root DELETE symlink"])


@rule("any_thread_is_the_agent")
def test_another_thread_does_not_get_what_is_armed(rule: Rule) -> None:
    with rule.scene("stops_before_step:1", furnish=hostile.furnish) as scene:
        watcher = scene.watcher(root=".")
        os.lstat(scene.mnt / "symlink")
        (scene.src / "symlink").unlink()
        pid = scene.wait_until_agent_stops()
        before = tree(scene.src)
        achieved = attempt(scene, 0)
        os.kill(pid, signal.SIGCONT)
        assert watcher.told() == ["root DELETE symlink"]
        assert tree(scene.src) == before
        rule.expect(achieved, held=NOTHING, harm="unlink")


@rule("armed_for_good")
def test_an_old_mark_is_worth_nothing(rule: Rule) -> None:
    """A removal that failed; by the time that the agent tries again the name is made anew."""
    with rule.scene("late_by_a_batch", furnish=one_file) as scene:
        watcher = scene.watcher(root=".", late="x")
        (scene.src / "x").unlink()
        wait_until(lambda: "not replayed" in scene.stage.log(), "the failure is noted")
        with scene.agent_held():
            (scene.src / "x").write_text("new")
            before = tree(scene.src)
            (scene.src / "next").touch()
        told = watcher.told()
        assert "late: " in scene.stage.log()
        assert tree(scene.src).items() >= before.items()
        assert (scene.mnt / "x").read_text() == "new"
        rule.expect("root DELETE x" in told, held=False, harm=True)


@rule("unarmed_is_acted_on")
def test_an_agent_that_wakes_up_after_it_was_replaced(rule: Rule) -> None:
    """It still has its batch: the removal of a name that has been made anew since."""
    with rule.scene("stops_before_step:1", furnish=one_file) as scene:
        watcher = scene.watcher(root=".")
        (scene.src / "x").unlink()
        old = scene.wait_until_agent_stops()
        second = subprocess.Popen(
            [sys.executable, "-P", "-m", "farwatch.agent", str(scene.mnt)],
            env=scene.stage._environment,
            cwd="/",
        )
        try:
            assert watcher.told() == ["root DELETE x"]
            (scene.src / "x").write_text("new")
            watcher.wait_for_line("root CLOSE_WRITE x")
            # In the client's cache, so that the removal needs no look-up.
            assert (scene.mnt / "x").read_text() == "new"
            os.kill(old, signal.SIGCONT)
            wait_until(
                lambda: old not in scene.agents() or not (scene.src / "x").exists(),
                "the old agent has ended, refused, or done harm",
            )
            rule.expect((scene.src / "x").exists(), held=True, harm=False)
        finally:
            second.kill()
            second.wait()


@rule("unarmed_is_acted_on")
def test_a_server_that_was_started_again(rule: Rule) -> None:
    """Marks of the old mount mean nothing to the new one, whose names are the same."""
    with rule.scene(furnish=hostile.furnish) as scene:
        watcher = scene.watcher(root=".")
        (scene.src / "x").unlink()
        watcher.told()
        os.kill(scene.server(), signal.SIGKILL)
        wait_until(lambda: not is_mounted(scene.mnt), "the dead mount is taken away")
        scene.stage.start_again()
        before = tree(scene.src)
        achieved = ", ".join(filter(None, (attempt(scene, number) for number in range(3))))
        rule.expect(outcome(scene, before, achieved), held=NOTHING, harm=ANYTHING)


@pytest.mark.root
@pytest.mark.parametrize("step", [1, 2, 3])
def test_an_agent_that_outlives_its_server(step: int) -> None:
    """Whatever step it was on, it cannot go on in the mount that comes after."""
    names = ("file", "other", "third")
    with Scene((f"stops_before_step:{step}",), hostile.furnish) as scene:
        scene.watcher(root=".")
        for name in names:
            (scene.src / name).unlink()
        old = scene.wait_until_agent_stops()
        server = scene.server()
        # Nobody is left to take away the agent or the mount.
        for pid in {*scene.stage.processes()} - {old, server}:
            os.kill(pid, signal.SIGKILL)
        os.kill(server, signal.SIGKILL)
        umount(os.fsencode(scene.mnt), MNT_DETACH)
        scene.stage.start_beside(old)
        hostile.furnish_files(scene.src)
        watcher = scene.watcher(root=".")
        watcher.told()
        before = tree(scene.src)
        os.kill(old, signal.SIGCONT)
        wait_until(lambda: old not in scene.stage.processes(), "the old agent has ended")
        assert watcher.told() == []
        assert tree(scene.src) == before


@rule("unarmed_is_acted_on")
def test_a_process_without_a_thread_id(rule: Rule) -> None:
    """Of another pid namespace: the server would take all of these for one thread."""
    with rule.scene("in_a_pid_namespace", furnish=hostile.furnish) as scene:
        before = tree(scene.src)
        with pytest.raises(subprocess.CalledProcessError) as refused:
            attempt(scene, 0, "hello")
        assert "in the mount's own pid namespace" in refused.value.stderr
        achieved = attempt(scene, 0)
        rule.expect(outcome(scene, before, achieved), held=NOTHING, harm=ANYTHING)


# Agents that die -----------------------------------------------------------------


class Remote:
    """Makes and unmakes the same few names, and knows what there must be."""

    def __init__(self, src: Path, seed: int) -> None:
        self._src = src
        self._random = random.Random(seed)
        self.files: dict[str, str] = {}

    def act(self) -> None:
        name, other = self._random.sample("abcd", 2)
        if name not in self.files:
            content = str(self._random.random())
            (self._src / name).write_text(content)
            self.files[name] = content
        elif self._random.random() < 0.4:
            (self._src / name).rename(self._src / other)
            self.files[other] = self.files.pop(name)
        else:
            (self._src / name).unlink()
            del self.files[name]


def holds(root: Path) -> dict[str, str]:
    return {name: (root / name).read_text() for name in os.listdir(root) if len(name) == 1}


def names_told(lines: list[str]) -> set[str]:
    """What a directory holds, by what its watcher was told."""
    names: set[str] = set()
    for line in lines:
        _, kind, *name = line.split()
        if kind in ("CREATE", "MOVED_TO"):
            names.update(name)
        elif kind in ("DELETE", "MOVED_FROM"):
            names.difference_update(name)
    return names


@rule("lost_with_the_agent")
def test_an_agent_that_dies_after_every_step(rule: Rule) -> None:
    with rule.scene("dies_after_each_step", "revived_at_once") as scene:
        watcher = scene.watcher(root=".")
        remote = Remote(scene.src, seed=1)
        for _ in range(8):
            remote.act()
        told = watcher.told_if_not_lost()
        assert holds(scene.src) == remote.files
        assert holds(scene.mnt) == remote.files
        rule.expect(names_told(told) == remote.files.keys(), held=True, harm=False)


@pytest.mark.root
@pytest.mark.parametrize("seed", range(2))
def test_agents_that_are_killed_at_any_moment(seed: int) -> None:
    with Scene(("revived_at_once",)) as scene:
        watcher = scene.watcher(root=".")
        remote = Remote(scene.src, seed)
        end = threading.Event()
        killed = []

        def kill() -> None:
            moments = random.Random(seed)
            while not end.wait(moments.uniform(0.0, 0.05)):
                for pid in scene.agents():
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline:
                remote.act()
                time.sleep(0.001)
        finally:
            end.set()
            killer.join()
        assert len(killed) > 5
        told = watcher.told()
        assert holds(scene.src) == remote.files
        assert holds(scene.mnt) == remote.files
        assert names_told(told) == remote.files.keys()
