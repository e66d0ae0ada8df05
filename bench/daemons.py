"""Daemons that serve a directory by vhost-user, and a front end beside each: no guest."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from farwatch.abi.vhost_user import Protocol
from farwatch.cli.failure import Failure
from farwatch.transports.vhost.errors import PeerGone
from farwatch.transports.vhost.frontend import Frontend
from farwatch.transports.vhost.peer import PROTOCOL
from farwatch.transports.vhost.shared import SharedMemory

C_VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
"""Where Debian has it (qemu-system-common); it is not in anybody's PATH."""
_PROTOCOL = PROTOCOL & ~Protocol.INFLIGHT_SHMFD
"""Without what QEMU 7.2 does without, and the C virtiofsd has not."""
_MEMORY = 32 << 20
_QUEUE = 1024
_END_SECONDS = 10.0


class Daemon(NamedTuple):
    """A vhost-user-fs daemon: how it is called, and its command line.

    ``command`` takes the number of a listening socket, and the directory.
    """

    name: str
    command: Callable[[int, Path], list[str]]


C = Daemon(
    "C virtiofsd",
    lambda fd, directory: [
        str(C_VIRTIOFSD),
        "-f",
        f"--fd={fd}",
        *("-o", f"source={directory}", "-o", "cache=none", "-o", "xattr"),
        # The other kind does not work where mount namespaces are forbidden.
        *("-o", "sandbox=chroot", "-o", "log_level=err"),
    ],
)
FARWATCH = Daemon(
    "farwatch",
    lambda fd, directory: [
        *(sys.executable, "-m", "farwatch", "virtiofsd"),
        *(f"--fd={fd}", f"--shared-dir={directory}", "--xattr"),
    ],
)


@contextmanager
def serving(daemon: Daemon, directory: Path) -> Iterator[Frontend]:
    """Runs a daemon with a front end that has started its queues, until the block ends.

    Raises Failure, with what the daemon has said, if it does not come that far.
    """
    with (
        tempfile.TemporaryDirectory(prefix="farwatch-vhost-") as place,
        tempfile.TemporaryFile() as log,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        path = str(Path(place) / "socket")
        listener.bind(path)
        listener.listen(1)
        fd = listener.fileno()
        with subprocess.Popen(
            daemon.command(fd, directory),
            pass_fds=(fd,),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            # From here on a daemon that ends closes the socket, and nobody waits for it.
            listener.close()
            try:
                with Frontend.connect(path) as frontend:
                    try:
                        frontend.negotiate(protocol=_PROTOCOL)
                        frontend.start(SharedMemory([_MEMORY]), size=_QUEUE)
                    except (PeerGone, OSError) as error:
                        raise _failure(daemon, log.fileno(), error) from None
                    yield frontend
                process.wait(_END_SECONDS)
            except OSError as error:
                raise _failure(daemon, log.fileno(), error) from None
            except subprocess.TimeoutExpired:
                raise Failure(f"{daemon.name} goes on though its front end is gone") from None
            finally:
                process.kill()


def _failure(daemon: Daemon, log: int, error: Exception) -> Failure:
    with open(f"/proc/self/fd/{log}", errors="replace") as file:
        said = file.read().strip() or str(error)
    return Failure(f"{daemon.name} does not serve: {said}")
