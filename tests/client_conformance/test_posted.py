"""Clients of the layouts that were posted, against servers of every set of layouts.

A client and a server speak with each other if the server was told to expect the client's
layout, and in no other case: which one it is, is agreed on in INIT.
"""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from farwatch.abi.fsnotify import Dialect
from tests.client_conformance.raw import SHORT, Layout, Link, Node, RawClient, Told, linked
from tests.client_conformance.stage import ClientStage, Mode, Transport, server
from tests.conformance.play import Speed, compared_full, play
from tests.conformance.script import parse_script
from tests.conformance.stream import compare_paced, kinds_of, mask_of
from tests.conformance.watcher import Actor
from tests.stage import NativeStage

pytestmark = [pytest.mark.root, pytest.mark.long]

BOTH = [Transport.UNIX, Transport.VHOST_QUEUE]
POSTED = [Layout.POSTED, Layout.AGGREGATED, Layout.PARENTED]
EXPECTED_ONLY = [Layout.PARENTED]
"""Layouts that a server takes a client for only if an option says so."""
CHANGES = mask_of("CHANGES")

Heard = tuple[str, str]
"""Kind and name of an event of one inode."""


class Scene:
    """A server's directory, a client of one layout, and whoever changes the directory."""

    def __init__(self, directory: Path, client: RawClient) -> None:
        self.client = client
        self.actor = Actor(str(directory))
        self._sentinels = 0

    def do(self, *words: str) -> None:
        self.actor.do(list(words))

    def told(self) -> list[Told]:
        """What the client has been told since the last time; ``end`` must be marked."""
        heard: list[Told] = []
        # Twice: what was read together with the first may be told after it.
        for _ in range(2):
            self._sentinels += 1
            name = f"s{self._sentinels}"
            self.do("mkfile", f"end/{name}")
            heard += self.client.told_until(name.encode())[:-1]
        return heard

    def heard(self) -> dict[int, list[Heard]]:
        """The same as each marked inode hears it."""
        streams: dict[int, list[Heard]] = defaultdict(list)
        for told in self.told():
            for inode, name in _hearers(told):
                if inode in self.client.marked:
                    streams[inode].append((kinds_of(told.mask), name))
        return dict(streams)


def _hearers(told: Told) -> Iterator[tuple[int, str]]:
    """Who is to hear of a notification, and whether with the name.

    One with a parent goes to both (fsnotify(), with a directory and an inode).
    """
    if told.parent is not None:
        yield told.parent, told.name.decode()
        yield told.inode, ""
    else:
        yield told.inode, told.name.decode()


def dialects(*names: str) -> list[str]:
    """Options of ``farwatch serve`` that speaks these and no others."""
    return [word for name in names for word in ("--dialect", name)]


@contextmanager
def scene(
    where: Transport, layout: Layout, directory: Path, options: Sequence[str] = ()
) -> Iterator[Scene]:
    """A server on a directory with ``d/x`` and ``end``, and a client of this layout."""
    for name in ("d", "end"):
        (directory / name).mkdir()
    (directory / "d" / "x").write_text("hello")
    daemon = server(where, directory, options)
    try:
        daemon.start()
        with linked(where, daemon.socket) as link:
            yield Scene(directory, RawClient(link, layout))
    except BaseException as error:
        error.add_note(daemon.log())
        raise
    finally:
        daemon.close()


def options_for(layout: Layout, where: Transport = Transport.UNIX) -> list[str]:
    """Of a server that speaks this layout."""
    if layout not in EXPECTED_ONLY:
        return []
    return dialects(str(layout)) if where is Transport.UNIX else [f"--fsnotify={layout}"]


def marked(made: Scene, node: Node, mask: int) -> Node:
    assert made.client.mark(node, mask) == 0
    return node


def begun(made: Scene) -> tuple[Node, Node]:
    """The nodes of ``d`` and ``d/x``, both marked for all changes; and ``end`` is."""
    client = made.client
    marked(made, client.lookup(b"end"), mask_of("CREATE"))
    directory = marked(made, client.lookup(b"d"), CHANGES)
    return directory, marked(made, client.lookup(b"x", directory), CHANGES)


@pytest.mark.parametrize("where", BOTH)
@pytest.mark.parametrize("layout", POSTED)
def test_each_inode_hears_what_it_natively_hears(
    where: Transport, layout: Layout, tmp_path: Path
) -> None:
    with scene(where, layout, tmp_path, options_for(layout, where)) as made:
        directory, file = begun(made)
        d, x = directory.id, file.id
        made.do("append", "d/x", "more")
        kinds = ["MODIFY", "CLOSE_WRITE"]
        assert made.heard() == {d: [(kind, "x") for kind in kinds], x: [(k, "") for k in kinds]}
        made.do("chmod", "d/x", "600")
        assert made.heard() == {d: [("ATTRIB", "x")], x: [("ATTRIB", "")]}
        made.do("mkdir", "d/sub")
        assert made.heard() == {d: [("CREATE|ISDIR", "sub")]}
        made.do("mkfile", "d/a-name-of-more-than-fifteen-bytes")
        long_name = "a-name-of-more-than-fifteen-bytes"
        assert made.heard() == {d: [("CREATE", long_name), ("CLOSE_WRITE", long_name)]}
        made.do("rename", "d/x", "d/y")
        moved = [("MOVED_FROM", "x"), ("MOVED_TO", "y")]
        assert made.heard() == {d: moved, x: [("MOVE_SELF", "")]}
        made.do("link", "d/y", "d/z")
        made.do("unlink", "d/z")
        assert made.heard() == {
            d: [("CREATE", "z"), ("DELETE", "z")],
            x: [("ATTRIB", ""), ("ATTRIB", "")],
        }
        made.do("unlink", "d/y")
        assert made.heard() == {d: [("DELETE", "y")], x: [("ATTRIB", ""), ("DELETE_SELF", "")]}


@pytest.mark.parametrize("layout", [Layout.POSTED, Layout.AGGREGATED])
def test_both_halves_of_a_rename_have_one_cookie(layout: Layout, tmp_path: Path) -> None:
    with scene(Transport.UNIX, layout, tmp_path) as made:
        begun(made)
        made.do("rename", "d/x", "d/y")
        first = [told.cookie for told in made.told() if told.name]
        made.do("rename", "d/y", "d/z")
        second = [told.cookie for told in made.told() if told.name]
        assert first[0] and first == first[:1] * 2
        assert second[0] and second == second[:1] * 2
        assert first != second


def test_an_event_has_the_generation_of_the_inode_that_hears_it(tmp_path: Path) -> None:
    with scene(Transport.UNIX, Layout.AGGREGATED, tmp_path) as made:
        nodes = {node.id: node.generation for node in begun(made)}
        made.do("chmod", "d/x", "600")
        assert {told.inode: told.generation for told in made.told()} == nodes


@pytest.mark.parametrize("layout", POSTED)
def test_a_mark_is_changed_and_removed(layout: Layout, tmp_path: Path) -> None:
    with scene(Transport.UNIX, layout, tmp_path, options_for(layout)) as made:
        directory, file = begun(made)
        marked(made, directory, mask_of("DELETE"))
        made.do("chmod", "d/x", "600")
        made.do("mkfile", "d/y")
        made.do("unlink", "d/y")
        assert made.heard() == {directory.id: [("DELETE", "y")], file.id: [("ATTRIB", "")]}
        marked(made, directory, 0)
        made.do("mkfile", "d/y")
        made.do("chmod", "d/x", "644")
        assert made.heard() == {file.id: [("ATTRIB", "")]}
        marked(made, directory, CHANGES)
        made.do("chmod", "d/y", "600")
        assert made.heard() == {directory.id: [("ATTRIB", "y")]}


@pytest.mark.parametrize("layout", POSTED)
def test_a_request_of_another_layout_is_refused(layout: Layout, tmp_path: Path) -> None:
    with scene(Transport.UNIX, layout, tmp_path, options_for(layout)) as made:
        _, file = begun(made)
        for body in (b"", bytes(7), bytes(25), bytes(24 if layout is not Layout.POSTED else 8)):
            assert made.client.fsnotify(file, body) == -errno.EINVAL
        made.do("chmod", "d/x", "600")
        assert len(made.heard()) == 2


@pytest.mark.parametrize("layout", POSTED)
def test_a_node_that_does_not_exist_cannot_be_marked(layout: Layout, tmp_path: Path) -> None:
    with scene(Transport.UNIX, layout, tmp_path, options_for(layout)) as made:
        assert made.client.mark(Node(0xDEAD_BEEF, 1), CHANGES) < 0


# Who speaks with whom ---------------------------------------------------------------

SETS: dict[str, list[str]] = {
    "as it comes": [],
    "posted": dialects("posted"),
    "aggregated": dialects("aggregated"),
    "parented": dialects("parented"),
    "current": dialects("current"),
    "all": dialects("posted", "aggregated", "parented", "current"),
}

SPOKEN = frozenset(Dialect)
USUAL = ["as it comes"]
"""What is tested each time."""


def speaks(options: str, layout: str) -> bool:
    """Whether a server with these options is to speak this layout."""
    match options:
        case "as it comes":
            return layout in SPOKEN and layout not in EXPECTED_ONLY
        case "all":
            return layout in SPOKEN
        case only:
            return only == layout


def pairs(*, spoken: bool) -> list[ParameterSet]:
    """Servers' options and clients' layouts: all that speak with each other, or that do not."""
    return [
        pytest.param(
            options,
            layout,
            id=f"{options}-{layout}",
            marks=() if options in USUAL else pytest.mark.long,
        )
        for options in SETS
        for layout in Layout
        if speaks(options, layout) is spoken
    ]


@pytest.mark.parametrize(("options", "layout"), pairs(spoken=True))
def test_a_client_is_told_where_the_server_speaks_its_layout(
    options: str, layout: Layout, tmp_path: Path
) -> None:
    with scene(Transport.UNIX, layout, tmp_path, SETS[options]) as made:
        assert made.client.is_agreed
        directory, _ = begun(made)
        made.do("mkfile", "d/y")
        assert ("CREATE", "y") in made.heard()[directory.id]


class Witness:
    """Another client of a server, whom it tells what it tells."""

    def __init__(self, stage: ClientStage, options: str) -> None:
        self._stage = stage
        self._scene: Scene | None = None
        self._link: Link | None = None
        if speaks(options, Dialect.CURRENT):
            return
        (layout,) = (layout for layout in POSTED if speaks(options, layout))
        (stage.acting / "end").mkdir()
        self._link = linked(Transport.UNIX, stage.server.socket)
        self._scene = Scene(stage.acting, RawClient(self._link, layout))
        marked(self._scene, self._scene.client.lookup(b"end"), mask_of("CREATE"))

    def waits(self) -> None:
        """Returns when the server has told all that has happened so far."""
        if self._scene is None:
            self._stage.settle()
        else:
            self._scene.told()

    def close(self) -> None:
        if self._link is not None:
            self._link.close()


@pytest.mark.parametrize(("options", "layout"), pairs(spoken=False))
def test_a_client_gets_nothing_where_the_server_does_not_speak_its_layout(
    options: str, layout: Layout
) -> None:
    with ClientStage(Transport.UNIX, Mode.REMOTE, options=SETS[options]) as stage:
        (stage.acting / "d").mkdir()
        with closing(Witness(stage, options)) as witness:
            with linked(Transport.UNIX, stage.server.socket) as link:
                client = RawClient(link, layout)
                directory = client.lookup(b"d")
                if layout in POSTED and client.is_agreed:
                    # Both have the same flag, and the first request tells which of the two it is.
                    assert layout in SHORT
                    assert client.mark(directory, CHANGES) == -errno.EINVAL
                (stage.acting / "d" / "x").write_text("hello")
                witness.waits()
                client.lookup(b"d")
                link.listen(0)
                assert not link.notifications


@pytest.mark.parametrize(
    "options",
    [pytest.param(each, marks=() if each in USUAL else pytest.mark.long) for each in SETS],
)
def test_a_modern_client_makes_temporary_files_by_that_opcode(options: str, tmp_path: Path) -> None:
    with scene(Transport.UNIX, Layout.MODERN, tmp_path, SETS[options]) as made:
        assert made.client.make_temporary(made.client.lookup(b"d")) == 0


ALONE = """
mkdir d
write d/x hello
watch d d CHANGES
watch x d/x CHANGES
local append d/x more
local rename d/x d/y
local unlink d/y
"""


@pytest.mark.parametrize("options", ["posted", "aggregated", "parented"])
def test_our_client_keeps_to_itself_where_the_server_speaks_older_layouts(
    options: str, native: NativeStage
) -> None:
    with ClientStage(Transport.UNIX, Mode.REMOTE, options=SETS[options]) as stage:
        stage.tells_remote = False
        steps = parse_script(ALONE)
        compared_full(native, stage, steps, compare_paced).require_equal(stage.name)
        unheard = [step._replace(verb="change") if step.verb == "local" else step for step in steps]
        assert not play(stage, unheard, Speed.FULL).events
