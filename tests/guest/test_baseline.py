"""Without farwatch: behind Debian's virtiofsd a guest hears of nothing that the host does.

It is what the conformance tests are to be seen beside: they would fail here.
"""

from __future__ import annotations

import pytest

from tests.conformance.play import Speed, play
from tests.conformance.script import parse_script
from tests.conformance.stream import Outcome, compare_full, events_of, mask_of
from tests.conformance.watcher import Actor
from tests.guest.conftest import Images
from tests.guest.stage import GuestStage
from tests.stage import NativeStage

pytestmark = [pytest.mark.root, pytest.mark.guest]

CHANGES = """
write d/new hello
append d/x more
chmod d/x 600
mkdir d/sub
rename d/x d/moved
unlink d/new
"""
GUESTS_OWN = (("write", "d/own", "text"), ("rename", "d/own", "d/own2"), ("unlink", "d/own2"))
HEARD = (
    "CREATE own",
    "MODIFY own",
    "CLOSE_WRITE own",
    "MOVED_FROM own",
    "MOVED_TO own2",
    "DELETE own2",
)


@pytest.mark.parametrize("series", ["6.12", pytest.param("6.1", marks=pytest.mark.long)])
def test_the_hosts_changes_are_seen_but_not_heard_of(
    series: str, images: Images, native: NativeStage
) -> None:
    script = "mkdir d\nwrite d/x hello\nwatch dir d CHANGES\n" + CHANGES
    natively = play(native, parse_script(script), Speed.FULL)
    with GuestStage(images.of(series)) as stage:
        base = stage.fresh()
        host, client = Actor(str(stage.acting / base)), stage.client()
        host.do(["mkdir", "d"])
        host.do(["write", "d/x", "hello"])
        client.ask("start", base=base)
        client.ask("group", group="a")
        client.ask("watch", watch="dir", group="a", path="d", mask=mask_of("CHANGES"))
        for step in parse_script(CHANGES):
            host.do(list(step.words))
        assert client.ask("act", words=["list", "d"]) == host.do(["list", "d"]) == "moved sub"
        for words in GUESTS_OWN:
            client.ask("act", words=list(words))
        client.ask("sentinel", name="end")
        client.wait_for_sentinel("end", ["a"])
        events = events_of(client.events)
        assert tuple(f"{event.kinds} {event.name}" for event in events) == HEARD
        of_the_host = tuple(event for event in events if not event.name.startswith("own"))
        assert compare_full(natively, Outcome(of_the_host))
