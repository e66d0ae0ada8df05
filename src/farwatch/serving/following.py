"""Which files of an export are open for writing behind the client's back, kept track of."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from farwatch.events import Key
from farwatch.export.tree import Export
from farwatch.linux.cpus import leave_the_cpu
from farwatch.linux.handles import name_to_handle
from farwatch.linux.writers import Held, held_by, processes, writers_in
from farwatch.session.session import Session
from farwatch.session.writers import Following, Writers
from farwatch.sources.openings import Openings

log = logging.getLogger(__name__)

_FSID = 8


@contextmanager
def following_writers(export: Export, session: Session, mount_fd: int) -> Iterator[None]:
    """Lets a client believe what it is told of files that nobody has open for writing.

    ``mount_fd`` is the export's root, as the server has it mounted.  Where this cannot be
    known nothing changes: no file is believed for long.
    """
    try:
        openings = Openings(mount_fd)
    except OSError as error:
        log.info("who opens files is not known: %s", error.strerror)
        yield
        return
    prefix = export.root_key[:_FSID]
    found = Writers(
        lambda process, key: _held_by(export, process, key),
        lambda key: key in session.view.nodes.by_key,
        session.doubt,
    )
    session.is_written_elsewhere = lambda key: key[:_FSID] != prefix or found.holds(key)
    device = os.fstat(mount_fd).st_dev

    def written_by(process: int) -> Iterator[Key]:
        return _written_by(process, device, prefix)

    with (
        openings,
        closing(Following(openings, found, processes, written_by)) as following,
    ):
        session.on_written = following.leave
        thread = threading.Thread(target=_run_aside, args=(following,), name="writers", daemon=True)
        thread.start()
        try:
            yield
        finally:
            following.stop()
            thread.join()


def _run_aside(following: Following) -> None:
    leave_the_cpu()
    following.run()


def _held_by(export: Export, process: int, key: Key) -> Held:
    try:
        status = export.getattr(key)
    except OSError:
        return Held.NOT
    return held_by(process, status.st_dev, status.st_ino)


def _written_by(process: int, device: int, prefix: bytes) -> Iterator[Key]:
    """What a process has open for writing, on this device."""
    for writer in writers_in(process, device):
        with suppress(OSError):
            fd = os.open(writer.link, os.O_PATH | os.O_CLOEXEC)
            try:
                yield prefix + name_to_handle(fd, b"", empty_path=True)[0]
            finally:
                os.close(fd)
