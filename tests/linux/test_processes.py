from __future__ import annotations

import os
import subprocess
import threading
from contextlib import closing

import pytest

from farwatch.linux.processes import Process


def test_a_process_lives_until_it_ends() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        with closing(Process(child.pid)) as process:
            assert process.is_alive()
            assert child.stdin is not None
            child.stdin.close()
            # It has ended, and its id is not free before it is waited for.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            assert not process.is_alive()
            child.wait()
            assert not process.is_alive()


def test_this_one_is_alive() -> None:
    with closing(Process(os.getpid())) as process:
        assert process.is_alive()


@pytest.mark.parametrize("pid", [0, -1])
def test_nobody(pid: int) -> None:
    with pytest.raises(ProcessLookupError):
        Process(pid)


def test_a_thread_that_is_not_the_first() -> None:
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        with pytest.raises(OSError, match=r"Invalid argument|No such"):
            Process(thread.native_id)
    finally:
        is_over.set()
        thread.join()
