"""Who waits for a lock is answered when nobody asks the server anything."""

from __future__ import annotations

import os
import struct
from fcntl import F_UNLCK, F_WRLCK

from farwatch.export import locks
from farwatch.export.locks import LAST
from farwatch.serving.server import Server
from farwatch.session.openmodes import OpenModes
from farwatch.session.reply import Reply
from farwatch.sources.nothing import NoEvents
from tests.mounting.mounted import wait_until
from tests.session.kernel import FLUSH, SETLKW, Kernel, checked, in_session
from tests.session.memory import MemoryDisk


def test_the_source_s_thread_answers() -> None:
    sent: list[Reply] = []
    with MemoryDisk() as disk, NoEvents() as source:
        kernel = Kernel(disk)
        kernel.init()
        disk.do_file("f", b"content")
        modes = OpenModes(lambda thread, key: None)
        with Server(in_session(disk), source, kernel.session, modes, sent.append) as server:
            node = kernel.lookup("f").node
            fh = kernel.open(node, os.O_RDWR).fh
            somebody = locks.another(disk.root.children[b"f"].memory, os.O_RDWR)
            try:
                for turn in range(3):
                    assert locks.set_lock(somebody, F_WRLCK, 0, LAST)
                    body = struct.pack("<4Q4I", fh, turn, 0, LAST, F_WRLCK, 55, 0, 0)
                    assert kernel.try_ask(SETLKW, node, body) is None
                    server.after()
                    assert not sent
                    assert locks.set_lock(somebody, F_UNLCK, 0, LAST)
                    wait_until(lambda: sent, "an answer")
                    assert checked(sent.pop(), kernel.last_unique) == (0, b"")
                    closed = struct.pack("<QIIQ", fh, 0, 0, turn)
                    kernel.ask(FLUSH, node, closed)
            finally:
                os.close(somebody)
