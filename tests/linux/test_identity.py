from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farwatch.linux.credentials import capget
from farwatch.linux.identity import ROOT, Identity, Who, user

pytestmark = pytest.mark.root

ME = Who(21_000, 22_000, (23_000,))


@pytest.fixture
def identity() -> Iterator[Identity]:
    """Of this thread, which is root's again afterwards."""
    made = Identity()
    yield made
    made.become(ROOT)
    os.setgroups([])


def can_open(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        return False
    return True


@pytest.fixture
def paths(tmp_path: Path) -> Callable[[int, int, int], Path]:
    def make(mode: int, uid: int, gid: int) -> Path:
        path = tmp_path / f"{mode:o}-{uid}-{gid}"
        path.write_text("")
        os.chown(path, uid, gid)
        path.chmod(mode)
        # By descriptor: the test's own directories are root's alone.
        return Path(f"/proc/self/fd/{os.open(path, os.O_PATH)}")

    return make


def test_the_kernel_checks_somebody_by_uid_gid_and_groups(
    identity: Identity, paths: Callable[[int, int, int], Path]
) -> None:
    allowed = [paths(0o400, ME.uid, 0), paths(0o040, 0, ME.gid), paths(0o040, 0, 23_000)]
    refused = [paths(0o400, 0, 0), paths(0o040, 0, 24_000), paths(0o044, ME.uid, ME.gid)]
    identity.become(ME)
    assert not identity.is_root
    assert [can_open(path) for path in allowed] == [True] * 3
    assert [can_open(path) for path in refused] == [False] * 3
    assert capget().effective == 0
    identity.become(ROOT)
    assert identity.is_root
    assert [can_open(path) for path in refused] == [True] * 3


def test_raised_it_may_do_everything_for_a_moment(
    identity: Identity, paths: Callable[[int, int, int], Path]
) -> None:
    path = paths(0o400, 0, 0)
    full = capget().permitted
    identity.become(ME)
    with identity.raised:
        assert capget().effective == full
        with identity.raised:
            assert can_open(path)
        assert can_open(path)
    assert not can_open(path)
    with pytest.raises(ZeroDivisionError), identity.raised:
        raise ZeroDivisionError
    assert capget().effective == 0


def test_one_becomes_another_without_being_root_in_between(
    identity: Identity, paths: Callable[[int, int, int], Path]
) -> None:
    mine, yours = paths(0o400, ME.uid, 0), paths(0o400, 30_000, 0)
    for _ in range(3):
        identity.become(ME)
        assert (can_open(mine), can_open(yours)) == (True, False)
        identity.become(Who(30_000, 0))
        assert (can_open(mine), can_open(yours)) == (False, True)


def test_ids_that_nobody_can_have_leave_no_capability(identity: Identity) -> None:
    with pytest.raises(OSError, match="setfs"):
        identity.become(Who(0xFFFF_FFFF, 0))
    assert capget().effective == 0
    identity.become(ME)
    identity.become(ROOT)
    assert capget().effective == capget().permitted


def test_it_is_one_threads_matter(
    identity: Identity, paths: Callable[[int, int, int], Path]
) -> None:
    path = paths(0o400, 0, 0)
    identity.become(ME)
    others: list[bool] = []
    before = threading.Thread(target=lambda: others.append(can_open(path)))
    identity.become(ROOT)
    before.start()
    before.join()
    assert others == [True]


def test_users_by_name_and_number() -> None:
    assert user("root") == user("0")
    assert user("root").uid == 0
    assert 1 in user("daemon").groups
    with pytest.raises(KeyError):
        user("no such user")
