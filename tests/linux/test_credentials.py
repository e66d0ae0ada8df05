"""Credentials of a thread."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farwatch.linux import credentials
from farwatch.linux.credentials import Capabilities, acting_as
from tests.linux import areas

pytestmark = pytest.mark.root

UID, GID = 12345, 23456


def own() -> tuple[int, int, Capabilities]:
    """(fsuid, fsgid, capabilities) of this thread, as the kernel tells them."""
    text = Path("/proc/thread-self/status").read_text()
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    return (
        int(fields["Uid"].split()[3]),
        int(fields["Gid"].split()[3]),
        Capabilities(*(int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapInh"))),
    )


@pytest.fixture
def private() -> Iterator[Path]:
    """A directory that nobody but root may enter."""
    with areas.directory() as path:
        path.chmod(0o700)
        yield path


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def test_what_is_made_belongs_to_the_user(private: Path) -> None:
    with acting_as(UID, GID):
        (private / "file").touch()
        (private / "dir").mkdir()
        (private / "link").symlink_to("x")
        os.mkfifo(private / "fifo")
        os.mknod(private / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        (private / "file").chmod(0o600)
    assert {owner(path) for path in private.iterdir()} == {(UID, GID)}


def test_everything_is_back(private: Path) -> None:
    before = own()
    with acting_as(UID, GID):
        assert own()[:2] == (UID, GID)
        assert own() != before
    assert own() == before
    with pytest.raises(ZeroDivisionError), acting_as(UID, GID):
        raise ZeroDivisionError
    assert own() == before
    (private / "file").touch()
    assert owner(private / "file") == (0, 0)


def test_one_id_may_be_roots(private: Path) -> None:
    before = own()
    with acting_as(UID, 0):
        (private / "a").touch()
    with acting_as(0, GID):
        assert own()[2] == before[2]
        (private / "b").touch()
    assert own() == before
    assert owner(private / "a") == (UID, 0)
    assert owner(private / "b") == (0, GID)


def test_root_is_no_change() -> None:
    before = own()
    with acting_as(0, 0):
        assert own() == before
    assert acting_as(0, 0) is acting_as(0, 0)


def test_set_id_is_taken_away_as_for_the_user(private: Path) -> None:
    """A set-gid directory's group does not spread set-gid programs of strangers."""
    shared = private / "shared"
    shared.mkdir()
    os.chown(shared, 0, GID + 1)
    shared.chmod(0o2777)
    with acting_as(UID, GID):
        os.close(os.open(shared / "program", os.O_CREAT, 0o2755))
        (shared / "dir").mkdir()
    assert owner(shared / "program") == (UID, GID + 1)
    assert not (shared / "program").stat().st_mode & stat.S_ISGID
    assert (shared / "dir").stat().st_mode & stat.S_ISGID


def test_other_threads_stay(private: Path) -> None:
    inside, done = threading.Event(), threading.Event()
    seen: list[tuple[int, int, Capabilities]] = []

    def act() -> None:
        with acting_as(UID, GID):
            inside.set()
            done.wait()
        seen.append(own())

    before = own()
    thread = threading.Thread(target=act)
    thread.start()
    assert inside.wait(10)
    assert own() == before
    (private / "file").touch()
    done.set()
    thread.join()
    assert owner(private / "file") == (0, 0)
    assert seen == [before]


def test_exactly_what_was_effective_comes_back() -> None:
    def lowered() -> None:
        now = credentials.capget()
        credentials.capset(now._replace(effective=now.effective & ~credentials.CAP_CHOWN))
        before = own()
        with acting_as(UID, GID):
            assert not own()[2].effective & credentials.CAP_CHOWN
            assert own()[2].effective & credentials.CAP_DAC_OVERRIDE
        assert own() == before

    areas.in_child(lowered)


def test_refused_ids_are_an_error_and_change_nothing() -> None:
    def attempt() -> None:
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        before = own()
        for uid, gid in ((UID + 1, UID), (UID, GID), (UID + 1, GID)):
            with pytest.raises(PermissionError), acting_as(uid, gid):
                pass
            assert own() == before
        with pytest.raises(PermissionError):
            credentials.setfsuid(UID + 1)

    areas.in_child(attempt)


def test_groups_are_the_threads_own() -> None:
    def run() -> tuple[list[int], list[int]]:
        os.setgroups([1, 2])
        told: list[list[int]] = []

        def change() -> None:
            credentials.setgroups([5, 6, 7])
            told.append(os.getgroups())

        thread = threading.Thread(target=change)
        thread.start()
        thread.join()
        return told[0], os.getgroups()

    assert areas.in_child(run) == ([5, 6, 7], [1, 2])


def test_raise_effective_after_leaving_root() -> None:
    def run() -> None:
        with areas.directory() as path:
            path.chmod(0o700)
            assert credentials.setfsuid(UID) == 0
            with pytest.raises(PermissionError):
                os.listdir(path)
            credentials.raise_effective(credentials.RAISED)
            assert os.listdir(path) == []
            assert credentials.setfsuid(0) == UID

    areas.in_child(run)


def test_capget_tells_what_the_kernel_lists() -> None:
    assert credentials.capget() == own()[2]
