"""The table of replays: what the client has been told, a change, and the steps it becomes.

A step reads ``OP name``, with ``->`` a new name, and then its particulars.  A path is where
the client's kernel knows a directory; ``~x`` is a node's hidden name, ``~x'`` another one of
it; ``#x`` a pin or a file kept open.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import NamedTuple, Self

import pytest

from farwatch.events import Change, Key, Kind, Mask, Place
from tests.session.kernel import FIRST_UID, ROOT, Agent, Kernel, Step
from tests.session.memory import Inode, MemoryDisk

OPS = (
    "MKNOD", "MKDIR", "SYMLINK", "LINK", "UNLINK", "RMDIR", "RENAME", "TOUCH", "OPEN_CLOSE",
    "OPEN", "CLOSE", "PIN", "UNPIN", "LOOK", "WRITE", "READ",
)  # fmt: skip
TIMES = {1: "ACCESS", 2: "MODIFY", 3: "ATTRIB"}
MODES = {os.O_RDONLY: "r", os.O_WRONLY: "w", os.O_RDWR: "rw"}
READING = int(Mask.OPEN | Mask.ACCESS | Mask.CLOSE_NOWRITE)
FIRST_LAST, EVERYTHING, BY_PATH = 3, 4, 8


class World:
    """A disk, a client that has looked some of it up, and what the remote side did."""

    def __init__(self, kernel: Kernel, agent: Agent) -> None:
        self.kernel = kernel
        self.agent = agent
        self.disk: MemoryDisk = kernel.disk
        self.labels: dict[Key, str] = {self.disk.root_key: "/"}
        self.changes: list[Change] = []
        self.tokens: dict[int, str] = {}
        self.own: set[Place] = set()
        self.mode: int | None = os.O_RDONLY
        self.done = 0
        kernel.session._planner._contents._access_mode = lambda thread, key: self.mode
        kernel.session._lasting = kernel.session._lasting._replace(
            access_mode=lambda thread, key: self.mode
        )

    # The disk before, and what the client knows of it.

    def disk_has(self, *paths: str) -> None:
        """A path that ends in a slash is a directory; ``a=b`` makes a link a of b."""
        for path in paths:
            name, _, old = path.partition("=")
            if old:
                self.disk.do_link(old, name)
            elif name.endswith("/"):
                self.label(self.disk.do_mkdir(name.rstrip("/")), name.rstrip("/"))
            else:
                self.label(self.disk.do_file(name, b"x"), name)

    def label(self, inode: Inode, path: str) -> Inode:
        self.labels.setdefault(inode.key, path)
        return inode

    def client_knows(self, *paths: str) -> None:
        for path in paths:
            self.kernel.walk(path)

    def watch(self, mask: int, flags: int = 0, node: int = ROOT) -> None:
        self.agent.watch([(node, 0, mask)], FIRST_LAST | flags)

    # What the remote side does; each returns the key.

    def change(self, kind: Kind, path: str, **more: object) -> Self:
        inode = self.disk.at(path)
        self.changes.append(
            Change(kind, self.disk.place(path), inode.key, inode.is_dir, **more)  # type: ignore[arg-type]
        )
        return self

    def create(self, path: str, *, symlink: bool = False) -> Self:
        if symlink:
            inode = self.disk.do_symlink(path, b"t")
        elif path.endswith("/"):
            inode = self.disk.do_mkdir(path.rstrip("/"))
        else:
            inode = self.disk.do_file(path)
        self.label(inode, path.rstrip("/"))
        self.change(Kind.CREATE, path.rstrip("/"))
        return self

    def link(self, old: str, new: str) -> Self:
        self.disk.do_link(old, new)
        self.change(Kind.CREATE, new, linked=True)
        return self

    def remove(self, path: str, *, held: bool = False) -> Inode:
        self.change(Kind.DELETE, path)
        inode = self.disk.do_remove(path)
        if not held and inode.nlink == 0:
            if not inode.is_dir:
                self.disk.do_close(inode)
            self.changes.append(Change(Kind.DEATH, None, inode.key, inode.is_dir))
        return inode

    def close_last(self, inode: Inode, *kinds: Kind, place: Place) -> None:
        for kind in kinds:
            self.changes.append(Change(kind, place, inode.key))
        self.disk.do_close(inode)
        self.changes.append(Change(Kind.DEATH, None, inode.key))

    def rename(self, old: str, new: str) -> Self:
        inode, place, new_place = self.disk.at(old), self.disk.place(old), self.disk.place(new)
        self.disk.do_rename(old, new)
        self.changes.append(
            Change(Kind.RENAME, place, inode.key, inode.is_dir, new_place=new_place)
        )
        return self

    def exchange(self, old: str, new: str) -> Self:
        inode, other = self.disk.at(old), self.disk.at(new)
        place, new_place = self.disk.place(old), self.disk.place(new)
        self.disk.do_rename(old, new, 2)
        self.changes.append(
            Change(Kind.EXCHANGE, place, inode.key, inode.is_dir, new_place, other.key)
        )
        return self

    # What becomes of it.

    def replay_unlink(self, name: str) -> None:
        """The agent does what the last step says."""
        view = self.kernel.session.view
        (replay,) = view.pending[ROOT, name.encode()][-1:]
        who = {"uid": FIRST_UID + replay.sequence, "pid": self.agent.pid}
        node = self.kernel.lookup(name, **who).node
        self.kernel.unlink(name, **who)
        if replay.step.pin:
            self.kernel.getattr(node, **who)

    def steps(self) -> list[str]:
        self.kernel.deliver(*self.changes, own=frozenset(self.own))
        self.changes = []
        batch = self.agent.wait(self.done)
        if batch is None:
            self.agent.parked = None
            return []
        self.done = batch.number
        return [self.told(step) for step in batch.steps]

    def told(self, step: Step) -> str:
        op = OPS[step.op - 1]
        words = [op]
        if step.directory or step.name:
            words.append(self.where(step.directory, step.name))
        if step.new_directory:
            words += ["->", self.where(step.new_directory, step.new_name)]
        if step.pin:
            words.append("#" + self.tokens[step.pin])
        if op == "TOUCH":
            words.append(TIMES[step.argument])
        elif op in ("OPEN", "OPEN_CLOSE"):
            words.append(MODES[step.argument & 3])
        elif op == "RENAME" and step.argument:
            words.append(f"flags={step.argument}")
        if step.token:
            words.append(self.kept(step))
        return " ".join(words)

    def where(self, directory: int, name: bytes) -> str:
        if directory == 2:
            number = name.lstrip(b"m")
            node = self.kernel.session.view.nodes.by_id[int(number[1:])]
            return f"~{self.labels.get(node.key, '?')}" + "'" * name.count(b"m")
        node = self.kernel.session.view.nodes.by_id[directory]
        parent = self.labels[node.key]
        return f"{parent.rstrip('/')}/{name.decode()}".lstrip("/") or "/"

    def kept(self, step: Step) -> str:
        """What a token is for: the path under which the file or pin was taken."""
        if step.op in (OPS.index("OPEN") + 1, OPS.index("PIN") + 1):
            name = self.tokens[step.pin] if step.pin else self.where(step.directory, step.name)
            self.tokens[step.token] = name
        return "#" + self.tokens[step.token]


@pytest.fixture
def world(kernel: Kernel, agent: Agent) -> World:
    return World(kernel, agent)


class Row(NamedTuple):
    """What is there, what the client knows, what happens, and the steps."""

    disk: str
    known: str
    act: Callable[[World], object]
    steps: list[str]


ROWS: dict[str, Row] = {
    # Made
    "file": Row("", "", lambda w: w.create("f"), ["MKNOD f"]),
    "directory": Row("", "", lambda w: w.create("d/"), ["MKDIR d"]),
    "symlink": Row("", "", lambda w: w.create("l", symlink=True), ["SYMLINK l"]),
    "in a directory that is known": Row("d/", "d", lambda w: w.create("d/f"), ["MKNOD d/f"]),
    "in one that is not": Row("d/", "", lambda w: w.create("d/f"), []),
    "in one that was made just now": Row(
        "", "", lambda w: (w.create("d/"), w.create("d/f")), ["MKDIR d", "MKNOD d/f"]
    ),
    # Linked
    "link of a known node": Row("f", "f", lambda w: w.link("f", "g"), ["LINK ~f -> g"]),
    "link of an unknown node": Row("f", "", lambda w: w.link("f", "g"), ["MKNOD g"]),
    "link where nobody looks": Row(
        "f d/", "f", lambda w: w.link("f", "d/g"), ["TOUCH ~f ATTRIB"]
    ),
    # Removed
    "removed, known": Row("f", "f", lambda w: w.remove("f"), ["UNLINK f"]),
    "removed, a ghost": Row("f", "", lambda w: w.remove("f"), ["UNLINK f"]),
    "directory removed": Row("d/", "d", lambda w: w.remove("d"), ["RMDIR d"]),
    "directory removed, a ghost": Row("d/", "", lambda w: w.remove("d"), ["RMDIR d"]),
    "one link of two removed": Row("f g=f", "f g", lambda w: w.remove("g"), ["UNLINK g"]),
    "both links removed": Row(
        "f g=f", "f g", lambda w: (w.remove("f"), w.remove("g")), ["UNLINK f", "UNLINK g"]
    ),
    "removed where nobody looks": Row("d/ d/f", "", lambda w: w.remove("d/f"), []),
    "removed under a name nobody looks at": Row(
        "d/ f d/g=f", "f", lambda w: w.remove("d/g"), ["UNLINK ~f"]
    ),
    "made and removed": Row(
        "", "", lambda w: (w.create("f"), w.remove("f")), ["MKNOD f", "UNLINK f"]
    ),
    "replaced by another": Row(
        "f", "f", lambda w: (w.remove("f"), w.create("f")), ["UNLINK f", "MKNOD f"]
    ),
    "a tree": Row(
        "d/ d/f", "d/f",
        lambda w: (w.remove("d/f"), w.remove("d")), ["UNLINK d/f", "RMDIR d"],
    ),
    # Removed, and held open by the remote side
    "held": Row("f", "f", lambda w: w.remove("f", held=True), ["PIN f #f", "UNLINK f #f"]),
    "held, of two links": Row("f g=f", "f g", lambda w: w.remove("g", held=True), ["UNLINK g"]),
    "held, replaced": Row(
        "f g", "f g", lambda w: w.rename("f", "g"), ["PIN g #g", "RENAME f -> g #g"]
    ),
    # Renamed
    "renamed": Row("f", "f", lambda w: w.rename("f", "g"), ["RENAME f -> g"]),
    "renamed, a ghost": Row("f", "", lambda w: w.rename("f", "g"), ["RENAME f -> g"]),
    "renamed across": Row(
        "d/ f", "d f", lambda w: w.rename("f", "d/g"), ["RENAME f -> d/g"]
    ),
    "renamed to where nobody looks": Row(
        "d/ f", "f", lambda w: w.rename("f", "d/g"), ["RENAME f -> ~f"]
    ),
    "renamed from where nobody looks": Row(
        "d/ d/f", "", lambda w: w.rename("d/f", "g"), ["RENAME ~d/f -> g"]
    ),
    "renamed where nobody looks": Row(
        "d/ f d/h=f", "f", lambda w: w.rename("d/h", "d/g"), ["RENAME ~f -> ~f'"]
    ),
    "renamed where nobody looks, unknown": Row(
        "d/ d/f", "", lambda w: w.rename("d/f", "d/g"), []
    ),
    "renamed there and back": Row(
        "f", "f", lambda w: (w.rename("f", "g"), w.rename("g", "f")),
        ["RENAME f -> g", "RENAME g -> f"],
    ),
    "renamed over nothing that the client knew": Row(
        "f g", "f", lambda w: w.rename("f", "g"), ["RENAME f -> g"]
    ),
    "a directory in place": Row(
        "d/", "d", lambda w: w.rename("d", "e"), ["LOOK d", "RENAME d -> e"]
    ),
    "a nested directory, outermost first": Row(
        "a/ a/b/ a/b/c/ x/", "a/b/c x", lambda w: w.rename("a/b/c", "x/c"),
        ["LOOK a", "LOOK a/b", "LOOK a/b/c", "RENAME a/b/c -> x/c"],
    ),
    "exchanged": Row("f g", "f g", lambda w: w.exchange("f", "g"), ["RENAME f -> g flags=2"]),
    "exchanged, of kinds": Row(
        "f d/", "f d", lambda w: w.exchange("f", "d"), ["LOOK d", "RENAME f -> d flags=2"]
    ),
    "exchanged with where nobody looks": Row(
        "d/ f d/g", "f", lambda w: w.exchange("f", "d/g"),
        ["RENAME f -> ~d/g flags=2"],
    ),
    "exchanged from where nobody looks": Row(
        "d/ f d/g", "f", lambda w: w.exchange("d/g", "f"),
        ["RENAME ~d/g -> f flags=2"],
    ),
    # Changed
    "written": Row("f", "f", lambda w: w.change(Kind.MODIFY, "f"), ["TOUCH f MODIFY"]),
    "written, never looked up": Row(
        "f", "", lambda w: w.change(Kind.MODIFY, "f"), ["TOUCH f MODIFY"]
    ),
    "attributes": Row("f", "f", lambda w: w.change(Kind.ATTRIB, "f"), ["TOUCH f ATTRIB"]),
    "attributes of a directory": Row(
        "d/", "d", lambda w: w.change(Kind.ATTRIB, "d"), ["TOUCH d ATTRIB"]
    ),
    "by a name nobody looks at": Row(
        "d/ f d/g=f", "f", lambda w: w.change(Kind.MODIFY, "d/g"), ["TOUCH ~f MODIFY"]
    ),
    "by no name": Row(
        "f", "f", lambda w: w.changes.append(Change(Kind.ATTRIB, None, w.disk.at("f").key)),
        ["TOUCH ~f ATTRIB"],
    ),
    "of what nobody knows": Row("d/ d/f", "", lambda w: w.change(Kind.MODIFY, "d/f"), []),
    "closed after writing": Row(
        "f", "f", lambda w: w.change(Kind.CLOSE_WRITE, "f"), ["OPEN_CLOSE f w"]
    ),
    "reading that nobody asked for": Row(
        "f", "f",
        lambda w: [w.change(k, "f") for k in (Kind.OPEN, Kind.ACCESS, Kind.CLOSE_NOWRITE)], [],
    ),
    "the root's attributes": Row(
        "", "",
        lambda w: w.changes.append(
            Change(Kind.ATTRIB, Place(w.disk.root_key, b"."), w.disk.root_key, True)
        ),
        ["TOUCH / ATTRIB"],
    ),
    "nothing of an overflow": Row(
        "f", "f", lambda w: w.changes.append(Change(Kind.OVERFLOW, None, None)), []
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_row(world: World, name: str) -> None:
    row = ROWS[name]
    world.disk_has(*row.disk.split())
    world.client_knows(*row.known.split())
    if name == "held, replaced":
        # The replaced file stays open on the remote side: no death is told.
        world.disk.at("g")
    row.act(world)
    if name == "renamed over nothing that the client knew":
        pass
    assert world.steps() == row.steps


# Reading, when somebody asks ------------------------------------------------------------


def reading(world: World, *kinds: Kind) -> list[str]:
    for kind in kinds:
        world.change(kind, "f")
    return world.steps()


@pytest.fixture
def read(world: World) -> World:
    world.disk_has("f")
    world.client_knows("f")
    world.watch(READING)
    return world


def test_what_is_asked_is_told(read: World) -> None:
    told = reading(read, Kind.OPEN, Kind.ACCESS, Kind.CLOSE_NOWRITE)
    assert told == ["OPEN f r #f", "TOUCH f ACCESS", "CLOSE #f"]


def test_an_open_has_the_mode_of_its_close(read: World) -> None:
    told = reading(read, Kind.OPEN, Kind.MODIFY, Kind.CLOSE_WRITE)
    assert [word for step in told for word in step.split()[:1]] == ["OPEN", "TOUCH", "CLOSE"]
    assert told[0].split()[2] in ("rw", "w")


def test_without_a_close_the_opener_is_asked(read: World) -> None:
    read.mode = os.O_RDWR
    assert reading(read, Kind.OPEN) == ["OPEN f rw #f"]
    assert reading(read, Kind.CLOSE_WRITE) == ["CLOSE #f"]


def test_a_close_that_merging_hid_is_done_too(read: World) -> None:
    """OPEN, and then CLOSE OPEN CLOSE, which are read as one OPEN and one CLOSE."""
    read.mode = os.O_RDONLY
    assert reading(read, Kind.OPEN) == ["OPEN f r #f"]
    read.mode = None
    told = reading(read, Kind.OPEN, Kind.CLOSE_NOWRITE)
    assert [word for step in told for word in step.split()[:1]] == ["OPEN", "CLOSE", "CLOSE"]
    assert read.kernel.session._planner._opens._kept == {}


def test_a_file_that_is_open_still_is_kept(read: World) -> None:
    """The same records stand for CLOSE and OPEN."""
    read.mode = os.O_RDONLY
    assert reading(read, Kind.OPEN) == ["OPEN f r #f"]
    told = reading(read, Kind.OPEN, Kind.CLOSE_NOWRITE)
    assert [word for step in told for word in step.split()[:1]] == ["OPEN", "CLOSE"]
    assert len(read.kernel.session._planner._opens._kept) == 1


def test_a_close_without_an_open_is_both(read: World) -> None:
    assert reading(read, Kind.CLOSE_NOWRITE) == ["OPEN_CLOSE f r"]


def test_closes_find_the_open_of_their_kind(read: World) -> None:
    read.mode = os.O_RDONLY
    assert reading(read, Kind.OPEN) == ["OPEN f r #f"]
    assert reading(read, Kind.CLOSE_WRITE) == ["OPEN_CLOSE f w"]
    assert reading(read, Kind.CLOSE_NOWRITE) == ["CLOSE #f"]


def test_special_files_are_never_opened(world: World) -> None:
    """Devices, FIFOs and sockets are never opened."""
    world.label(world.disk.do_node("p", 0o010644), "p")
    world.label(world.disk.do_node("c", 0o020644, 0x103), "c")
    world.client_knows("p", "c")
    world.watch(READING)
    for name in ("p", "c"):
        for kind in (Kind.OPEN, Kind.CLOSE_WRITE, Kind.CLOSE_NOWRITE):
            world.change(kind, name)
    assert world.steps() == []


def test_when_there_is_much_of_it_only_for_who_watches(read: World) -> None:
    read.disk_has("d/", "d/g")
    read.client_knows("d/g")
    for _ in range(300):
        read.change(Kind.ACCESS, "f")
        read.change(Kind.ACCESS, "d/g")
    assert set(read.steps()) == {"TOUCH f ACCESS"}


# Who wants descriptors ----------------------------------------------------------------


def test_writes_go_through_a_file_where_somebody_is_told_of_paths(world: World) -> None:
    world.disk_has("f")
    world.client_knows("f")
    world.watch(int(Mask.MODIFY), BY_PATH)
    world.mode = os.O_RDWR
    for kind in (Kind.OPEN, Kind.MODIFY, Kind.CLOSE_WRITE):
        world.change(kind, "f")
    told = world.steps()
    assert [step.split()[0] for step in told] == ["OPEN", "WRITE", "CLOSE"]


# Marks that pin nothing ---------------------------------------------------------------


def test_everything_is_told_while_such_a_mark_exists(world: World) -> None:
    world.disk_has("d/", "d/f")
    world.watch(int(Mask.MODIFY), EVERYTHING, node=0)
    world.change(Kind.MODIFY, "d/f")
    assert world.steps() == ["TOUCH d/f MODIFY"]


# Pins ---------------------------------------------------------------------------------


def test_what_follows_a_removal_goes_through_the_pin(world: World) -> None:
    world.disk_has("f")
    world.client_knows("f")
    place = world.disk.place("f")
    inode = world.remove("f", held=True)
    assert world.steps() == ["PIN f #f", "UNLINK f #f"]
    world.replay_unlink("f")
    world.changes.append(Change(Kind.MODIFY, place, inode.key))
    told = world.steps()
    # Removed files have watchers with IN_EXCL_UNLINK, which no touch reaches.
    assert told == ["OPEN #f rw #f", "WRITE #f"]
    world.changes.append(Change(Kind.ATTRIB, place, inode.key))
    assert world.steps() == ["TOUCH #f ATTRIB"]
    world.close_last(inode, Kind.CLOSE_WRITE, place=place)
    assert world.steps() == ["CLOSE #f", "UNPIN #f"]
    assert world.kernel.session._planner._lifetimes._pins == {}


def test_a_death_in_the_same_batch_needs_no_pin(world: World) -> None:
    world.disk_has("f")
    world.client_knows("f")
    world.remove("f")
    assert world.steps() == ["UNLINK f"]


def test_what_is_said_to_be_gone_before_its_name_is_not_pinned(world: World) -> None:
    """A pin that no death takes away would keep its directory from its own end."""
    world.disk_has("f")
    world.client_knows("f")
    place = world.disk.place("f")
    inode = world.disk.do_remove("f")
    world.disk.do_close(inode)
    world.changes.append(Change(Kind.DEATH, None, inode.key))
    world.steps()
    world.changes.append(Change(Kind.DELETE, place, inode.key))
    assert "PIN" not in " ".join(world.steps())
    assert world.kernel.session._planner._lifetimes._pins == {}


def test_a_name_that_is_used_again_while_the_old_file_is_pinned(world: World) -> None:
    world.disk_has("f")
    world.client_knows("f")
    inode = world.remove("f", held=True)
    world.create("f")
    assert world.steps() == ["PIN f #f", "UNLINK f #f", "MKNOD f"]
    world.change(Kind.MODIFY, "f")
    world.close_last(inode, place=world.disk.place("f"))
    assert world.steps() == ["TOUCH f MODIFY", "UNPIN #f"]


def test_a_death_of_which_no_removal_was_told(world: World) -> None:
    """Its last name was where nobody looks: the node's own watches hear of its end."""
    world.disk_has("d/", "d/f", "f=d/f")
    world.client_knows("f")
    world.remove("f")
    world.disk.do_remove("d/f")
    inode = world.disk._inodes[world.changes[0].node or b""]
    world.changes.append(Change(Kind.DEATH, None, inode.key))
    world.disk.do_close(inode)
    told = world.steps()
    assert told[0] == "UNLINK f"
    assert set(told[1:]) <= {"UNLINK ~d/f"}


def test_what_is_told_of_a_dead_node_is_dropped(world: World) -> None:
    world.disk_has("f")
    world.client_knows("f")
    place = world.disk.place("f")
    inode = world.remove("f")
    world.steps()
    for kind in (Kind.MODIFY, Kind.ATTRIB, Kind.CLOSE_WRITE):
        world.changes.append(Change(kind, place, inode.key))
    assert world.steps() == []


# Out of date ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "steps"),
    [
        (lambda w: w.create("f"), []),
        (lambda w: w.link("g", "f"), ["TOUCH ~g ATTRIB"]),
        (lambda w: w.rename("g", "f"), ["RENAME g -> ~g"]),
    ],
    ids=["created", "linked", "renamed to"],
)
def test_names_that_the_client_changed_meanwhile(
    world: World, act: Callable[[World], object], steps: list[str]
) -> None:
    world.disk_has("g")
    world.client_knows("g")
    view = world.kernel.session.view
    view.drains.begin()
    act(world)
    view.local_change(view.nodes.root, b"f")
    world.kernel.session.deliver(world.changes, frozenset())
    view.drains.end()
    batch = world.agent.wait()
    assert batch is not None
    assert [world.told(step) for step in batch.steps] == steps


def test_an_own_name_of_the_batch_is_not_out_of_date(world: World) -> None:
    view = world.kernel.session.view
    view.drains.begin()
    view.local_change(view.nodes.root, b"f")
    world.create("f")
    world.kernel.session.deliver(world.changes, frozenset([world.disk.place("f")]))
    batch = world.agent.wait()
    assert batch is not None
    assert [world.told(step) for step in batch.steps] == ["MKNOD f"]


def test_a_delete_of_what_was_replaced_by_another_told_node(world: World) -> None:
    """The client has seen early what came after it: the name's DELETE is told all the same."""
    world.disk_has("f")
    world.client_knows("f")
    old = world.disk.at("f")
    place = world.disk.place("f")
    world.disk_has("g=f")  # so that the old node lives
    world.disk.do_remove("f")
    world.kernel.mknod("f")
    world.changes.append(Change(Kind.DELETE, place, old.key))
    assert world.steps() == ["UNLINK f"]


# Many -----------------------------------------------------------------------------------


def test_deaths_come_after_the_last_that_is_told_of_their_node(world: World) -> None:
    world.disk_has("f", "g")
    world.client_knows("f", "g")
    world.remove("f")
    world.change(Kind.MODIFY, "g")
    told = world.steps()
    assert told == ["UNLINK f", "TOUCH g MODIFY"]


def test_a_deep_chain_ends(world: World) -> None:
    path = "d"
    for _ in range(100):
        world.disk_has(path + "/")
        path += "/d"
    world.client_knows(path.removesuffix("/d"))
    world.rename(path.removesuffix("/d"), path.removesuffix("/d")[:-1] + "e")
    told = world.steps()
    assert told[-1].startswith("RENAME")
    assert len(told) <= 66


def test_a_rename_over_a_name_that_was_only_looked_up(world: World) -> None:
    """The client knows the node by its other name, and was told nothing of this one."""
    world.disk_has("f", "x")
    world.disk.do_link("x", "y")
    world.client_knows("f", "x")
    replaced = world.kernel.lookup("y")
    place, inode = world.disk.place("f"), world.disk.at("f")
    other = world.disk.at("y")
    world.disk.do_rename("f", "y")
    change = Change(Kind.RENAME, place, inode.key, new_place=world.disk.place("y"))
    world.changes.append(change._replace(other=other.key))
    assert world.steps() == ["RENAME f -> y"]
    (replay,) = world.kernel.session.view.pending[ROOT, b"y"]
    assert replay.other is not None
    assert replay.other.id == replaced.node


def test_what_is_written_under_a_removed_name_does_not_bring_it_back(world: World) -> None:
    world.disk_has("x")
    world.disk.do_link("x", "y")
    world.client_knows("x", "y")
    place, inode = world.disk.place("x"), world.disk.at("x")
    world.remove("x")
    assert world.steps() == ["UNLINK x"]
    world.replay_unlink("x")
    world.changes.append(Change(Kind.MODIFY, place, inode.key))
    assert world.steps() == ["TOUCH x MODIFY"]
    (replay,) = world.kernel.session.view.pending[ROOT, b"x"]
    who = {"uid": FIRST_UID + replay.sequence, "pid": world.agent.pid}
    assert world.kernel.lookup("x", **who).entry_valid == 0


def test_an_open_whose_close_was_merged_with_another_has_its_mode(read: World) -> None:
    read.mode = None
    told = reading(read, Kind.OPEN, Kind.OPEN, Kind.CLOSE_WRITE)
    assert [step.split()[2] for step in told[:2]] == ["rw", "rw"]


def by_pins(world: World, monkeypatch: pytest.MonkeyPatch, *paths: str) -> None:
    """An export by pins has let go of these, which the client has forgotten."""
    forgotten = {world.disk.at(path).key for path in paths}
    lookup, getattr_, place_of = world.disk.lookup, world.disk.getattr, world.disk.place_of

    def found(directory: Key, name: bytes) -> tuple[Key, os.stat_result]:
        key, status = lookup(directory, name)
        forgotten.discard(key)
        return key, status

    def status(node: Key) -> os.stat_result:
        if node in forgotten:
            raise OSError(errno.ESTALE, "not pinned")
        return getattr_(node)

    monkeypatch.setattr(world.disk, "lookup", found)
    monkeypatch.setattr(world.disk, "getattr", status)
    monkeypatch.setattr(
        world.disk, "place_of", lambda node: None if node in forgotten else place_of(node)
    )


def test_a_node_that_was_forgotten_since_is_looked_up_by_its_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.create("l", symlink=True).create("f")
    by_pins(world, monkeypatch, "l", "f")
    assert world.steps() == ["SYMLINK l", "MKNOD f"]
    node = world.kernel.session.view.nodes.by_key[world.disk.at("f").key]
    assert world.disk.getattr(node.key).st_mode == node.mode


def test_a_directory_that_was_forgotten_is_told_by_the_name_that_its_parent_heard(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.disk_has("d/")
    by_pins(world, monkeypatch, "d")
    world.change(Kind.ATTRIB, "d")
    assert world.steps() == ["TOUCH d ATTRIB"]
