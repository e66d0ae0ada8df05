"""Several clients of one directory: what each is told of the others, and of the host."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from farwatch.abi.fsnotify import Event, Source
from farwatch.events import Mask
from tests.mounting.mounted import wait_until
from tests.serving.area import Area
from tests.serving.wire import MERGED, REMOTE, Client, connected
from tests.session.kernel import GETATTR, ROOT, Refused

pytestmark = pytest.mark.root

NAMES = int(Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO)


def kinds(events: list[Event]) -> list[tuple[str, str, Source, int]]:
    return [
        (str(Mask(event.mask & ~Mask.ISDIR).name), event.name.decode(), event.source, event.client)
        for event in events
    ]


def test_each_hears_the_others_and_the_host_and_which_client_it_was(area: Area) -> None:
    with area.serving() as server:
        with connected(server.address) as first, connected(server.address) as second:
            for client in (first, second):
                client.begin(MERGED).mark(ROOT, NAMES)
            assert first.number != second.number
            first.mkdir("by-first")
            second.mkdir("by-second")
            (area.directory / "by-host").mkdir()
            assert kinds(first.told(b"by-host")) == [
                ("CREATE", "by-second", Source.REMOTE, second.number),
                ("CREATE", "by-host", Source.REMOTE, 0),
            ]
            assert kinds(second.told(b"by-host")) == [
                ("CREATE", "by-first", Source.REMOTE, first.number),
                ("CREATE", "by-host", Source.REMOTE, 0),
            ]


def test_in_remote_mode_a_client_is_told_its_own_as_well(area: Area) -> None:
    with area.serving() as server, connected(server.address) as client:
        client.begin(REMOTE).mark(ROOT, NAMES)
        client.mkdir("mine")
        assert kinds(client.told(b"mine")) == [("CREATE", "mine", Source.LOCAL, client.number)]


def test_what_happened_before_a_watch_is_not_told_to_it(area: Area) -> None:
    with area.serving() as server, connected(server.address) as client:
        client.begin()
        for number in range(200):
            (area.directory / f"before{number}").mkdir()
            client.mark(ROOT, NAMES)
            (area.directory / f"after{number}").mkdir()
            assert [each.name for each in client.told(b"after%d" % number)] == [b"after%d" % number]
            client.mark(ROOT, 0)


def test_reading_kinds_are_told_from_the_answer_on(area: Area) -> None:
    (area.directory / "file").write_text("text")
    with area.serving() as server, connected(server.address) as client:
        client.begin().mark(ROOT, int(Mask.OPEN | Mask.CLOSE_NOWRITE))
        with connected(server.address) as other:
            other.begin().mark(ROOT, NAMES)
            (area.directory / "file").read_text()
            (area.directory / "last").mkdir()
            assert kinds(other.told(b"last")) == [("CREATE", "last", Source.REMOTE, 0)]
        events: list[Event] = []
        while len(events) < 2:
            events += client.told(b"file")
        assert [kind for kind, *_ in kinds(events)] == ["OPEN", "CLOSE_NOWRITE"]


def test_a_client_that_never_reads_holds_up_nobody(area: Area) -> None:
    with area.serving() as server:
        with connected(server.address) as deaf, connected(server.address) as client:
            deaf.begin().mark(ROOT, NAMES)
            client.begin().mark(ROOT, NAMES)
            for batch in range(20):
                for number in range(1000):
                    os.mknod(area.directory / f"{batch}-{number}")
                last = b"%d-999" % batch
                assert len(client.told(last)) == 1000
            assert deaf.number != client.number
            # It has lost some, is told so, and is served again once it reads.
            lost = False
            while not lost:
                lost = any(event.mask & Mask.Q_OVERFLOW for event in _drained(deaf))
            (area.directory / "now").mkdir()
            assert deaf.told(b"now")[-1].name == b"now"


def _drained(client: Client) -> list[Event]:
    return [each for each in client._next() if isinstance(each, Event)]


def test_a_client_that_sends_and_never_reads_is_not_read_for_ever(area: Area) -> None:
    """What waits for it is bounded: at some time its requests are left where they are."""
    with area.serving() as server:
        with connected(server.address) as greedy, connected(server.address) as client:
            greedy.begin()
            client.begin().mark(ROOT, NAMES)
            greedy.wire.socket.setblocking(False)
            body = struct.pack("<IIQ", 0, 0, 0)
            request = struct.pack("<IIQQIIII", 56, GETATTR, 2, ROOT, 0, 0, 1, 0) + body
            with pytest.raises(BlockingIOError):
                for _ in range(10_000_000):
                    sent = greedy.wire.socket.send(request)
                    assert sent == len(request)
            (area.directory / "meanwhile").mkdir()
            assert client.told(b"meanwhile")


def test_clients_come_and_go_and_are_not_mistaken_for_each_other(area: Area) -> None:
    """The kernel gives thread ids again: an old client's change must not be a new one's."""
    with area.serving() as server, connected(server.address) as listener:
        listener.begin().mark(ROOT, NAMES)
        threads, files = server.threads(), server.files()
        numbers = []
        for number in range(50):
            with connected(server.address) as client:
                client.begin()
                client.mkdir(f"d{number}")
                numbers.append(client.number)
        events = listener.told(b"d49")
        assert kinds(events) == [
            ("CREATE", f"d{index}", Source.REMOTE, number) for index, number in enumerate(numbers)
        ]
        assert len(set(numbers)) == 50
        wait_until(lambda: server.threads() == threads, "their threads have ended")
        wait_until(lambda: server.files() == files, "what they had open is closed")


def test_what_a_gone_client_had_open_is_closed_and_told(area: Area) -> None:
    with area.serving() as server, connected(server.address) as listener:
        listener.begin().mark(ROOT, int(Mask.CLOSE_WRITE))
        with connected(server.address) as client:
            client.begin()
            client.create("file")
            number = client.number
        assert kinds(listener.told(b"file")) == [("CLOSE_WRITE", "file", Source.REMOTE, number)]


def test_a_client_that_keeps_no_marks_sees_the_disk(area: Area) -> None:
    with area.serving() as server, connected(server.address) as client:
        answer = client.init()
        assert not answer[10] & 1 << 29
        path = area.directory / "file"
        path.write_text("one")
        os.link(path, area.directory / "second")
        assert client.lookup("file").attributes.nlink == 2
        (area.directory / "second").unlink()
        assert client.lookup("file").attributes.nlink == 1
        path.unlink()
        (area.directory / "file").mkdir()
        assert stat.S_ISDIR(client.lookup("file").attributes.mode)
        client.rmdir("file")
        with pytest.raises(Refused):
            client.lookup("file")


def test_nothing_can_be_changed_where_it_is_read_only(area: Area) -> None:
    (area.directory / "file").write_text("text")
    with area.serving("--read-only") as server, connected(server.address) as client:
        client.begin().mark(ROOT, NAMES)
        with pytest.raises(Refused, match="EROFS"):
            client.mkdir("new")
        with pytest.raises(Refused, match="EROFS"):
            client.unlink("file")
        (area.directory / "new").mkdir()
        assert client.told(b"new")


def test_several_addresses_lead_to_the_same(area: Area, tmp_path: Path) -> None:
    other = f"unix:{tmp_path / 's2'}"
    with area.serving(listen=(area.unix, other, "tcp:127.0.0.1:0", "tcp:[::1]:0")) as server:
        assert server.addresses[:2] == [area.unix, other]
        with connected(server.addresses[0]) as listener:
            listener.begin().mark(ROOT, NAMES)
            for number, address in enumerate(server.addresses):
                with connected(address) as client:
                    client.begin()
                    client.mkdir(f"d{number}")
            assert [event.name for event in listener.told(b"d3")] == [b"d0", b"d1", b"d2", b"d3"]
