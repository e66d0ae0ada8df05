"""What is mounted below SRC: shown, heard, taken up when it comes and let go when it goes."""

from __future__ import annotations

import errno
import os
import stat
from functools import partial
from pathlib import Path

import pytest

from farwatch.events import Mask
from farwatch.linux.mounts import MNT_DETACH, MS_MOVE, MS_NODEV, MS_NOSUID, MS_RDONLY, mount, umount
from tests.kinds.mounting import Mounting
from tests.kinds.places import subvolume
from tests.linux import areas
from tests.mounting.mounted import Area, Ear, wait_until

pytestmark = pytest.mark.root

ALL = Mask.CREATE | Mask.DELETE | Mask.MODIFY | Mask.MOVED_FROM | Mask.MOVED_TO


def numbers(directory: Path) -> list[int]:
    """The inode numbers of all that is below."""
    found = [os.lstat(directory).st_ino]
    for root, directories, files in os.walk(directory):
        found += [os.lstat(os.path.join(root, name)).st_ino for name in directories + files]
    return found


def change(directory: Path) -> None:
    (directory / "new").write_text("hello")
    (directory / "new").rename(directory / "old")
    (directory / "old").unlink()


def says(path: Path, text: str) -> bool:
    """Whether a file can be read, and says this; it may be going away at this moment."""
    try:
        return path.read_text() == text
    except OSError:
        return False


def shows(directory: Path, name: str) -> bool:
    """Whether a directory has one name; what is mounted there may be going away."""
    try:
        return os.listdir(directory) == [name]
    except OSError:
        return False


def is_empty(directory: Path) -> bool:
    """Whether nothing is in a directory; what is mounted there may be going away."""
    try:
        return not os.listdir(directory)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return False


def assert_all_is_shown(area: Area) -> None:
    """Nothing was said of mounts that are not shown, or not heard."""
    assert " not " not in area.said().replace("not replayed", "")


CHANGED = (
    (Mask.CREATE, "new"),
    (Mask.MODIFY, "new"),
    (Mask.MOVED_FROM, "new"),
    (Mask.MOVED_TO, "old"),
    (Mask.DELETE, "old"),
)


def test_one_that_takes_the_place_of_another_at_once(area: Area, host: Mounting) -> None:
    """The kernel gives it the same number."""
    below = host.tmpfs(area.src / "below")
    (below / "first").touch()
    with area.mounted():
        assert os.listdir(area.mnt / "below") == ["first"]
        for number in range(5):
            host.unmount(below)
            host.tmpfs(below)
            (below / f"next-{number}").touch()
            wait_until(partial(shows, area.mnt / "below", f"next-{number}"), "the next one")
        assert_all_is_shown(area)


def test_a_submount_is_shown_and_heard(area: Area, host: Mounting) -> None:
    below = host.tmpfs(area.src / "below")
    (below / "d").mkdir()
    (below / "d" / "file").write_text("there")
    with area.mounted(), Ear(area.mnt / "below", ALL) as ear:
        assert (area.mnt / "below" / "d" / "file").read_text() == "there"
        change(below)
        ear.hear(*CHANGED)
        ear.forget()
        # What is done through MNT is heard once, and done there.
        change(area.mnt / "below")
        (area.mnt / "below" / "kept").touch()
        assert (below / "kept").exists()
        (below / "last").touch()
        ear.hear(*CHANGED, (Mask.CREATE, "kept"), (Mask.CREATE, "last"))
        assert len(ear.heard) == len(CHANGED) + 2
        # On another file system, as for anybody.
        with pytest.raises(OSError, check=lambda error: error.errno == errno.EXDEV):
            (area.mnt / "below" / "kept").rename(area.mnt / "kept")
        assert os.statvfs(area.mnt / "below").f_blocks == os.statvfs(below).f_blocks
        with pytest.raises(OSError, check=lambda error: error.errno == errno.EBUSY):
            (area.mnt / "below").rmdir()
    assert_all_is_shown(area)


def test_a_submount_that_comes_later_and_goes(area: Area, host: Mounting) -> None:
    point = area.src / "later"
    point.mkdir()
    (point / "covered").touch()
    seen = area.mnt / "later"
    with area.mounted():
        assert os.listdir(seen) == ["covered"]
        for round_ in range(3):
            host.tmpfs(point)
            (point / f"inside{round_}").write_text("hello")
            wait_until((seen / f"inside{round_}").exists, "it is shown")
            assert os.listdir(seen) == [f"inside{round_}"]
            with Ear(seen, ALL) as ear, (seen / f"inside{round_}").open() as file:
                change(point)
                ear.hear(*CHANGED)
                host.unmount(point)  # not busy, for all that is open and watched through MNT
                wait_until(lambda: os.listdir(seen) == ["covered"], "it is gone")
                assert file.read() == "hello"
            with Ear(seen, ALL) as ear:
                change(point)
                ear.hear(*CHANGED)
    assert_all_is_shown(area)


def test_the_file_system_of_a_submount_that_goes_is_let_go(area: Area, host: Mounting) -> None:
    with areas.image("ext4") as made:
        (made / "file").write_text("hello")
        number = os.stat(made).st_dev
        device = Path(os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"))
        in_use = Path("/sys/fs/ext4") / device.name
        host.bind(made, area.src / "disk")
        with area.mounted():
            assert (area.mnt / "disk" / "file").read_text() == "hello"
            host.unmount(area.src / "disk")
            wait_until(lambda: is_empty(area.mnt / "disk"), "it is gone")
            umount(bytes(made))
            wait_until(lambda: not in_use.exists(), "nobody uses it any more")
            # For the end of ``image``, which unmounts it as well.
            mount(b"farwatch-test", bytes(made), b"tmpfs")


def test_submounts_in_submounts(area: Area, host: Mounting) -> None:
    outer = host.tmpfs(area.src / "outer")
    (outer / "d").mkdir()
    inner = host.tmpfs(outer / "d" / "inner")
    (inner / "file").touch()
    seen = area.mnt / "outer" / "d" / "inner"
    with area.mounted():
        assert os.listdir(seen) == ["file"]
        assert os.listdir(seen / ".." / "..") == ["d"]
        with Ear(seen, ALL) as ear:
            change(inner)
            ear.hear(*CHANGED)
        # Another one over the outer one hides both.
        host.tmpfs(outer)
        (outer / "over").touch()
        wait_until(lambda: os.listdir(area.mnt / "outer") == ["over"], "the new one is shown")
        host.unmount(outer)
        wait_until(lambda: seen.exists() and os.listdir(seen) == ["file"], "both are back")
        with Ear(seen, ALL) as ear:
            change(inner)
            ear.hear(*CHANGED)
        host.unmount(outer, MNT_DETACH)
        wait_until(lambda: os.listdir(area.mnt / "outer") == [], "both are gone")


def test_a_directory_above_a_submount_is_renamed(area: Area, host: Mounting) -> None:
    """The mount goes along, by itself, and who watches in it goes on hearing."""
    (area.src / "a").mkdir()
    host.tmpfs(area.src / "a" / "below")
    with area.mounted(), Ear(area.mnt / "a" / "below", ALL) as ear:
        (area.src / "a").rename(area.src / "b")
        host.moved(area.src / "a" / "below", area.src / "b" / "below")
        change(area.src / "b" / "below")
        ear.hear(*CHANGED)
        ear.forget()
        host.tmpfs(area.src / "later")  # upon which the host's mounts are looked at
        wait_until(lambda: os.stat(area.mnt / "later").st_ino >> 48, "it is shown")
        change(area.src / "b" / "below")
        ear.hear(*CHANGED)
        host.unmount(area.src / "b" / "below")
        wait_until(lambda: not (os.stat(area.mnt / "b" / "below").st_ino >> 48), "it is gone")


def test_src_is_renamed(area: Area, host: Mounting) -> None:
    """It is the directory that is shown, not the name, and so is what is mounted below it."""
    host.tmpfs(area.src / "below")
    (area.src / "later").mkdir()
    with area.mounted(), Ear(area.mnt / "below", ALL) as ear:
        renamed = area.home / "renamed"
        area.src.rename(renamed)
        host.moved(area.src / "below", renamed / "below")
        (host.tmpfs(renamed / "later") / "file").touch()
        wait_until((area.mnt / "later" / "file").exists, "it is shown")
        change(renamed / "below")
        ear.hear(*CHANGED)


def test_a_submount_is_moved(area: Area, host: Mounting) -> None:
    for name in ("a", "b"):
        (area.src / name).mkdir()
    (host.tmpfs(area.src / "a") / "file").touch()
    with area.mounted():
        mount(bytes(area.src / "a"), bytes(area.src / "b"), None, MS_MOVE)
        host.moved(area.src / "a", area.src / "b")
        wait_until(lambda: os.listdir(area.mnt / "b") == ["file"], "it is shown there")
        wait_until(lambda: os.listdir(area.mnt / "a") == [], "and not here any more")
        with Ear(area.mnt / "b", ALL) as ear:
            change(area.src / "b")
            ear.hear(*CHANGED)


def test_the_host_may_unmount_src_itself(area: Area, host: Mounting) -> None:
    host.tmpfs(area.src)
    with area.mounted():
        (area.mnt / "file").write_text("hello")
        host.unmount(area.src)
        assert (area.mnt / "file").read_text() == "hello"


def test_two_mounts_of_one_file_system(area: Area, host: Mounting) -> None:
    """Apart, and one in the other: a directory that is seen twice is heard twice."""
    other = area.home / "other"
    (other / "d").mkdir(parents=True)
    (area.src / "own").mkdir()
    host.bind(other, area.src / "bound")
    host.bind(area.src / "own", area.src / "again")
    with area.mounted():
        with Ear(area.mnt / "bound" / "d", ALL) as ear:
            change(other / "d")
            ear.hear(*CHANGED)
            ear.forget()
            change(area.mnt / "bound" / "d")
            (other / "d" / "last").touch()
            ear.hear(*CHANGED, (Mask.CREATE, "last"))
            assert len(ear.heard) == len(CHANGED) + 1
        with Ear(area.mnt / "own", ALL) as own, Ear(area.mnt / "again", ALL) as again:
            change(area.src / "own")
            own.hear(*CHANGED)
            again.hear(*CHANGED)
        # A hard link's events come before its name's.
        with Ear(area.mnt / "bound", ALL) as ear:
            (other / "file").touch()
            ear.hear((Mask.CREATE, "file"))
            os.link(other / "file", other / "link")
            ear.hear((Mask.CREATE, "file"), (Mask.CREATE, "link"))
            (other / "link").unlink()
            ear.hear((Mask.CREATE, "file"), (Mask.CREATE, "link"), (Mask.DELETE, "link"))
        host.unmount(area.src / "bound")
        wait_until(lambda: os.listdir(area.mnt / "bound") == [], "it is gone")
        with Ear(area.mnt / "own", ALL) as own:
            change(area.src / "own")
            own.hear(*CHANGED)


def test_inode_numbers_are_unique_and_last(area: Area, host: Mounting) -> None:
    with areas.image("btrfs") as made:
        subvolume(made / "one")
        subvolume(made / "one" / "two")
        for directory in (made, made / "one", made / "one" / "two"):
            (directory / "file").touch()
        native = numbers(made)
        assert len(set(native)) < len(native)
        host.bind(made, area.src / "made")
        with area.mounted():
            first = numbers(area.mnt)
            assert len(set(first)) == len(first)
            assert all(number < 1 << 63 for number in first)
            listed = {entry.inode() for entry in os.scandir(area.mnt / "made" / "one")}
            assert (area.mnt / "made" / "one" / "file").stat().st_ino in listed
        with area.mounted():
            assert numbers(area.mnt) == first


def test_changes_in_subvolumes_below_are_heard(area: Area, host: Mounting) -> None:
    with areas.image("btrfs") as made:
        subvolume(made / "one")
        host.bind(made / "one", area.src / "sub")
        subvolume(area.src / "sub" / "before")
        with area.mounted():
            subvolume(area.src / "sub" / "later")
            for name in ("before", "later"):
                with Ear(area.mnt / "sub" / name, ALL) as ear:
                    change(made / "one" / name)
                    ear.hear(*CHANGED)


def test_what_a_submount_forbids_is_not_allowed(area: Area, host: Mounting) -> None:
    below = host.tmpfs(area.src / "below", MS_NOSUID | MS_NODEV)
    (below / "tool").touch()
    os.chmod(below / "tool", 0o6755)
    os.setxattr(below / "tool", "security.capability", bytes.fromhex("01000002" + "00" * 16))
    os.chmod(below / "tool", 0o6755)
    os.mknod(below / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (area.src / "tool").touch()
    os.chmod(area.src / "tool", 0o6755)
    with area.mounted():
        assert stat.S_IMODE((area.mnt / "tool").stat().st_mode) == 0o6755
        assert stat.S_IMODE((area.mnt / "below" / "tool").stat().st_mode) == 0o755
        assert os.listxattr(area.mnt / "below" / "tool") == []
        with pytest.raises(OSError, check=lambda error: error.errno == errno.ENODATA):
            os.getxattr(area.mnt / "below" / "tool", "security.capability")
        with pytest.raises(OSError, check=lambda error: error.errno == errno.ENXIO):
            os.open(area.mnt / "below" / "null", os.O_RDWR)


def test_a_read_only_submount(area: Area, host: Mounting) -> None:
    source = area.home / "source"
    source.mkdir()
    (source / "file").write_text("hello")
    host.bind(source, area.src / "below", MS_RDONLY)
    with area.mounted(), Ear(area.mnt / "below", ALL) as ear:
        with pytest.raises(OSError, check=lambda error: error.errno == errno.EROFS):
            (area.mnt / "below" / "file").write_text("no")
        with pytest.raises(OSError, check=lambda error: error.errno == errno.EROFS):
            (area.mnt / "below" / "new").touch()
        change(source)
        ear.hear(*CHANGED)


def test_a_file_that_is_mounted(area: Area, host: Mounting) -> None:
    source = area.home / "source"
    source.write_text("one")
    (area.src / "file").write_text("covered")
    host.bind(source, area.src / "file")
    with area.mounted():
        assert (area.mnt / "file").read_text() == "one"
        with Ear(area.mnt / "file", ALL) as ear:
            source.write_text("two!")
            ear.hear_often((Mask.MODIFY, ""))
        assert (area.mnt / "file").read_text() == "two!"
        (area.mnt / "file").write_text("three")
        assert source.read_text() == "three"
        host.unmount(area.src / "file")
        wait_until(lambda: says(area.mnt / "file", "covered"), "it is gone")


def test_mnt_itself_is_not_followed(area: Area, host: Mounting) -> None:
    """To serve it would be to wait for oneself."""
    (area.src / "file").touch()
    (area.src / "loop").mkdir()
    later = area.src / "later"
    with area.mounted():
        host.bind(area.mnt, area.src / "loop")
        host.tmpfs(later)
        (later / "shown").touch()
        wait_until(lambda: os.listdir(area.mnt / "later") == ["shown"], "the other one is shown")
        assert os.listdir(area.mnt / "loop") == []
        host.unmount(area.src / "loop")


def test_what_the_kernel_tells_who_asks_is_not_followed(area: Area, host: Mounting) -> None:
    host.tmpfs(area.src / "jail")
    (area.src / "jail" / "proc").mkdir()
    host.kernels(area.src / "jail" / "proc", "proc")
    with area.mounted():
        assert os.listdir(area.mnt / "jail") == ["proc"]
        assert os.listdir(area.mnt / "jail" / "proc") == []
    assert_all_is_shown(area)


def test_many_submounts(area: Area, host: Mounting) -> None:
    count = 100
    for number in range(count):
        (host.tmpfs(area.src / f"{number}", data="size=64k") / "file").touch()
    with area.mounted():
        assert sorted(os.listdir(area.mnt), key=int) == [str(number) for number in range(count)]
        assert all(os.listdir(area.mnt / f"{number}") == ["file"] for number in range(count))
        with Ear(area.mnt / f"{count - 1}", ALL) as ear:
            change(area.src / f"{count - 1}")
            ear.hear(*CHANGED)
    assert_all_is_shown(area)


def test_a_fuse_mount_is_shown_and_what_is_not_heard_is_said_once(
    area: Area, host: Mounting
) -> None:
    """bindfs has no file handles: its nodes are held by descriptors."""
    source = area.home / "source"
    (source / "d").mkdir(parents=True)
    (source / "d" / "file").write_text("one")
    os.symlink("file", source / "d" / "link")
    host.command("bindfs", source, area.src / "below")
    seen = area.mnt / "below"
    with area.mounted():
        assert (seen / "d" / "link").read_text() == "one"
        with Ear(seen / "d", ALL) as ear:
            change(seen / "d")
            ear.hear(*CHANGED)
        (seen / "d" / "file").rename(seen / "moved")
        assert (source / "moved").read_text() == "one"
        (seen / "moved").write_text("three")
        assert (source / "moved").read_text() == "three"
        (source / "d" / "later").touch()
        wait_until(lambda: "later" in os.listdir(seen / "d"), "it is shown, if not heard")
        (seen / "d" / "later").unlink()
        (seen / "d" / "link").unlink()
        (seen / "d").rmdir()
        assert os.listdir(source) == ["moved"]
        host.unmount(area.src / "below")
        wait_until(lambda: os.listdir(seen) == [], "it is gone")
    said = [line for line in area.said().splitlines() if "not heard" in line]
    assert len(said) == 1
    assert "'below' ('fuse')" in said[0]
    assert "FUSE" in said[0]


def test_a_mount_of_farwatch_below(area: Area, host: Mounting) -> None:
    """Has handles, and no id by which fanotify could report it."""
    other = area.home / "other"
    (other / "d").mkdir(parents=True)
    (area.src / "below").mkdir()
    (area.home / "mnt2").mkdir()
    inner = Area.__new__(Area)
    inner.__dict__.update(area.__dict__, src=other, mnt=area.home / "mnt2")
    with inner.mounted():
        host.bind(area.home / "mnt2", area.src / "below")
        seen = area.mnt / "below"
        with area.mounted():
            assert os.listdir(seen) == ["d"]
            (seen / "d" / "file").write_text("hello")
            assert (other / "d" / "file").read_text() == "hello"
            host.unmount(area.src / "below")
            wait_until(lambda: os.listdir(seen) == [], "it is gone")
    assert "not heard" in area.said()
