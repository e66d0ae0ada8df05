"""Running in the background, and where messages go then.

The command returns when the work has begun:

command            background
   | forks ---------> session of its own, no terminal, working directory /
   | waits                |
   | <--- "ready" --------|   or what is wrong, in words
 exits                   runs
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from logging.handlers import SysLogHandler
from typing import NoReturn

from farwatch.cli.failure import Failure
from farwatch.serving.refused import Refused

_SYSTEM_LOG = "/dev/log"
_READY = b"ready"


def log_to(log_file: str | None, otherwise: logging.Handler) -> None:
    """Messages go to ``log_file``, or to ``otherwise`` if that is None.

    Raises Failure if the file cannot be written.
    """
    handler = otherwise
    form = "farwatch: %(message)s"
    if log_file is not None:
        form = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
        try:
            handler = logging.FileHandler(log_file)
        except OSError as error:
            raise Failure(f"cannot write the log: {error.strerror}", log_file) from None
    is_verbose = os.environ.get("FARWATCH_DEBUG")
    logging.basicConfig(
        handlers=[handler], level=logging.DEBUG if is_verbose else logging.INFO, format=form
    )


def run_in_background(log_file: str | None, run: Callable[[Callable[[], None]], int]) -> None:
    """Calls ``run`` in a process of its own; returns when it has called what it is given.

    Raises Failure if it ends before that.
    """
    path = os.path.abspath(log_file) if log_file is not None else None
    log_to(path, _system_log())
    read, write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(read)
        _be_background(path, run, write)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        message = answer.readline().rstrip(b"\n")
    os.waitpid(child, 0)
    if message == _READY:
        return
    what, where, remedy = [*message.split(b"\0"), b"", b""][:3]
    raise Failure(
        os.fsdecode(what) or "the mount ended while starting",
        os.fsdecode(where),
        os.fsdecode(remedy),
    )


def _be_background(
    log_file: str | None, run: Callable[[Callable[[], None]], int], answer: int
) -> NoReturn:
    status = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        _redirect_standard_files(log_file)

        def ready() -> None:
            os.write(answer, _READY + b"\n")
            os.close(answer)

        status = run(ready)
    except Refused as refused:
        words = (refused.what, refused.where, refused.remedy)
        os.write(answer, b"\0".join(map(os.fsencode, words)).replace(b"\n", b" ") + b"\n")
    except BaseException:
        logging.getLogger(__name__).exception("the mount failed")
    finally:
        os._exit(status)


def _redirect_standard_files(log_file: str | None) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    out = null
    if log_file is not None:
        out = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)


def _system_log() -> logging.Handler:
    """The system's log, if there is one.

    Its socket is connected here: a server has left the host's mounts when it speaks.
    """
    try:
        return SysLogHandler(_SYSTEM_LOG, SysLogHandler.LOG_DAEMON, socket.SOCK_DGRAM)
    except OSError:
        return logging.NullHandler()
