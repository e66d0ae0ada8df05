"""A mount is told from those that are given its numbers when it has gone."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from farwatch.linux import mounts
from farwatch.mounting.place import Place
from farwatch.transports.devfuse import DevFuse
from tests.mounting.mounted import Area, is_mounted, wait_until

pytestmark = pytest.mark.root

MOST = 50


@contextmanager
def unserved(target: Path) -> Iterator[Place]:
    """A mount that nobody has asked anything yet."""
    target.mkdir(exist_ok=True)
    with DevFuse(1 << 17) as device:
        place = Place.numbered(device.mount(b"src", os.fsencode(target)))
        try:
            yield place
        finally:
            mounts.umount(os.fsencode(target), mounts.MNT_DETACH)


def test_another_with_the_same_numbers_is_another(area: Area) -> None:
    with unserved(area.mnt) as gone:
        assert gone.find() is not None
    if not gone.unique:
        pytest.skip("before Linux 6.8 mounts have no unique ids")
    with ExitStack() as stack:
        # Others on this machine may be given them.
        for number in range(MOST):
            target = area.home / f"m{number}"
            stack.callback(target.rmdir)
            other = stack.enter_context(unserved(target))
            if (other.number, other.device) == (gone.number, gone.device):
                break
        else:
            pytest.fail(f"{MOST} mounts were not given the numbers of one that is gone")
        assert gone.find() is None
        for end in (gone.unmount, gone.unmount_dead):
            with pytest.raises(OSError, check=lambda e: e.errno == errno.EINVAL):
                end()
        assert other.find() is not None


def test_where_no_kernel_tells_one_that_answers_is_not_dead(area: Area) -> None:
    with area.mounted() as supervisor:
        place = Place.of(os.fsencode(area.mnt))._replace(unique=0)
        with pytest.raises(OSError, check=lambda e: e.errno == errno.EINVAL):
            place.unmount_dead()
        (server,) = area.servers(supervisor.pid)
        supervisor.kill()
        assert is_mounted(area.mnt)
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: server not in area.processes(), "the server has ended")
        place.unmount_dead()
        assert not is_mounted(area.mnt)
