"""Does in the mount what the server's steps say, so that the client's VFS makes events.

While a step is under way the server knows the calling thread's requests for that step's
(marks.py), and acknowledges exactly those without acting.

What can go wrong with a step is the server's to know: each step gives an errno, or 0.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from stat import S_ISDIR, S_ISREG

from farwatch.abi.control import (
    AGAIN,
    HIDDEN_ID,
    KNOWN,
    ROOT_ID,
    Hello,
    Op,
    Step,
    Times,
)
from farwatch.agent.kept import Kept
from farwatch.agent.marks import DIRECTORY, Marks
from farwatch.linux import files

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SAME_MOUNT = files.RESOLVE_NO_XDEV | files.RESOLVE_NO_SYMLINKS | files.RESOLVE_BENEATH
_TRIES = 8
_TIMES: dict[int, tuple[int, int]] = {
    int(Times.ACCESS): (files.NOW, files.OMIT),
    int(Times.MODIFY): (files.OMIT, files.NOW),
    int(Times.ATTRIB): (files.NOW, files.NOW),
}


class Replayer:
    """Performs steps, in the thread that makes it.

    ``root`` is the root directory in the clone, and the caller's.  ``files`` and ``pins``
    are shared with other replayers.  ``visible`` opens the root of the mount that the
    client sees, if somebody listens for paths there: such hear only what is opened
    through it, and are given its paths.
    """

    def __init__(
        self,
        root: int,
        hello: Hello,
        marks: Marks,
        files_kept: Kept,
        pins: Kept,
        visible: Callable[[], int | None],
    ) -> None:
        self._root = root
        self._marks = marks
        self._files = files_kept
        self._pins = pins
        self._visible = visible
        self._cached_id = 0
        self._cached_fd = -1
        self._hidden = -1
        marks.take()
        self._hidden = os.open(hello.hidden, DIRECTORY, dir_fd=root)
        self._performers: dict[int, Callable[[Step], None]] = {
            Op.MKNOD: self._mknod,
            Op.MKDIR: self._mkdir,
            Op.SYMLINK: self._symlink,
            Op.LINK: self._link,
            Op.UNLINK: self._unlink,
            Op.RMDIR: self._rmdir,
            Op.RENAME: self._rename,
            Op.TOUCH: self._touch,
            Op.OPEN_CLOSE: self._open_close,
            Op.OPEN: self._open,
            Op.CLOSE: self._close_kept,
            Op.PIN: self._pin,
            Op.UNPIN: self._unpin,
            Op.LOOK: self._look,
            Op.WRITE: self._write,
            Op.READ: self._read,
        }

    def perform(self, step: Step, sequence: int) -> int:
        """Does a step under its mark.  Returns 0 or an errno, and never raises OSError."""
        self._marks.on(sequence)
        performer = self._performers.get(step.op)
        if performer is None:
            return errno.EOPNOTSUPP
        number = 0
        for _ in range(_TRIES):
            try:
                performer(step)
            except OSError as error:
                number = error.errno or errno.EIO
                # ESTALE: the client's names were not as the server wants them, and by
                # now are.  EIO: somebody opened the file in passthrough meanwhile.
                if number not in (errno.ESTALE, errno.EIO):
                    return number
                if step.op == Op.RENAME:
                    self._look_again(step)
            else:
                return 0
        return number

    def _look_again(self, step: Step) -> None:
        """A directory that somebody has just seen in its new place is moved back.

        The kernel cannot do that within the rename, and whoever looks again undoes it.
        """
        with suppress(OSError):
            self._look(step)

    def finish_batch(self, changed: int) -> None:
        """Lets go of what is only kept for the length of a batch.

        ``changed`` is a directory in which names changed, or 0.  The kernel has forgotten
        its attributes by that, and with them its access list, and checks permission by them
        at the next change there: a walk through it asks for them now, when nobody waits.
        """
        if changed:
            with suppress(OSError):
                os.close(os.open(b".", _PATH, dir_fd=self._directory(changed)))
        self._drop_cached()

    def close(self) -> None:
        """Lets go of what is not shared."""
        self._drop_cached()
        if self._hidden >= 0:
            os.close(self._hidden)
            self._hidden = -1

    # Directories -----------------------------------------------------------------

    def _directory(self, node: int) -> int:
        """A descriptor of a directory, good until the next call.

        It is not kept longer, because it would keep a removed directory alive, and so hold
        back its DELETE_SELF.
        """
        if node == ROOT_ID:
            return self._root
        if node == HIDDEN_ID:
            return self._hidden
        if node != self._cached_id:
            self._drop_cached()
            self._cached_fd = self._open_directory(node)
            self._cached_id = node
        return self._cached_fd

    def _drop_cached(self) -> None:
        if self._cached_fd >= 0:
            os.close(self._cached_fd)
        self._cached_fd = -1
        self._cached_id = 0

    def _open_directory(self, node: int) -> int:
        try:
            return self._marks.open_directory(node)
        except OSError as error:
            if error.errno not in self._marks.lost:
                raise
        # It is gone on the server, and the kernel has lost its place in the tree, which
        # it would have to find again to open the handle.  It has a place here.
        return os.open(b"n%d" % node, DIRECTORY, dir_fd=self._hidden)

    # Names -----------------------------------------------------------------------

    def _mknod(self, step: Step) -> None:
        os.mknod(step.name, step.argument, 0, dir_fd=self._directory(step.directory))

    def _mkdir(self, step: Step) -> None:
        os.mkdir(step.name, 0o700, dir_fd=self._directory(step.directory))

    def _symlink(self, step: Step) -> None:
        os.symlink(b".", step.name, dir_fd=self._directory(step.directory))

    def _link(self, step: Step) -> None:
        # Out of the hidden directory, so that no second directory is needed.
        target = self._directory(step.new_directory)
        files.linkat(self._hidden, step.name, target, step.new_name)

    def _unlink(self, step: Step) -> None:
        os.unlink(step.name, dir_fd=self._directory(step.directory))
        self._hear_of_last_link(step)

    def _rmdir(self, step: Step) -> None:
        directory = self._directory(step.directory)
        os.rmdir(step.name, dir_fd=directory)

    def _rename(self, step: Step) -> None:
        old = self._directory(step.directory)
        if step.new_directory in (step.directory, ROOT_ID, HIDDEN_ID):
            new = self._directory(step.new_directory)
            files.renameat2(old, step.name, new, step.new_name, step.argument)
        else:
            new = self._open_directory(step.new_directory)
            try:
                files.renameat2(old, step.name, new, step.new_name, step.argument)
            finally:
                os.close(new)
        self._hear_of_last_link(step)

    def _hear_of_last_link(self, step: Step) -> None:
        """An inode that is pinned was told one link too many: now it is told the truth."""
        if step.pin:
            with suppress(OSError):
                pin = self._pins.get(step.pin)
                flags = files.AT_EMPTY_PATH | files.AT_STATX_FORCE_SYNC
                files.statx(pin, flags=flags, mask=files.STATX_BASIC_STATS)

    def _look(self, step: Step) -> None:
        directory = self._directory(step.directory)
        if step.op == Op.LOOK and step.argument == AGAIN:
            self._have_asked_again(directory, step.name)
        os.close(_open_name(directory, step.name, _PATH, self._marks.resolve))

    # Inodes ----------------------------------------------------------------------

    def _touch(self, step: Step) -> None:
        atime, mtime = _TIMES[step.argument]
        if step.pin:
            files.utimensat(self._pins.get(step.pin), b"", atime, mtime, files.AT_EMPTY_PATH)
            return
        directory = self._directory(step.directory)
        if not step.name:
            files.utimensat(directory, b"", atime, mtime, files.AT_EMPTY_PATH)
            return
        if self._marks.resolve:
            path = _open_name(directory, step.name, _PATH, self._marks.resolve)
            try:
                files.utimensat(path, b"", atime, mtime, files.AT_EMPTY_PATH)
            finally:
                os.close(path)
            return
        files.utimensat(directory, step.name, atime, mtime, files.AT_SYMLINK_NOFOLLOW)

    def _open_close(self, step: Step) -> None:
        os.close(self._open_file(step))

    def _open(self, step: Step) -> None:
        self._files.put(step.token, self._open_file(step))

    def _open_file(self, step: Step) -> int:
        """Opens a regular file or directory, and nothing else.

        A device's open would open the client's device, a FIFO's would wait: what is
        there is looked at through O_PATH, and what was looked at is opened.
        """
        if step.pin:
            return self._reopen(self._pins.get(step.pin), step.argument)
        root = self._visible()
        if root is None:
            return self._open_in(self._directory(step.directory), step, self._marks.resolve)
        try:
            directory = self._same_directory(root, self._directory(step.directory))
            try:
                return self._open_in(directory, step, _SAME_MOUNT)
            finally:
                os.close(directory)
        except OSError as error:
            # The client has mounted something of its own there, which is not to be opened.
            if error.errno != errno.EXDEV:
                raise
            return self._open_in(self._directory(step.directory), step, self._marks.resolve)
        finally:
            os.close(root)

    @staticmethod
    def _same_directory(root: int, directory: int) -> int:
        """What ``directory`` is in the clone, in the mount whose root is ``root``.

        A handle cannot be opened there: that takes a descriptor of the mount that is
        no O_PATH one, and opening it would be an event.  So the directory's path is
        walked, through no symbolic link and no other mount, and what is found compared.
        """
        path = os.readlink(b"/proc/self/fd/%d" % directory).lstrip(b"/") or b"."
        found = files.openat2(root, path, DIRECTORY, resolve=_SAME_MOUNT)
        flags = files.AT_EMPTY_PATH | files.AT_STATX_DONT_SYNC
        if files.statx(found, flags=flags).ino != files.statx(directory, flags=flags).ino:
            os.close(found)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return found

    def _open_in(self, directory: int, step: Step, resolve: int = 0) -> int:
        if step.argument & KNOWN:
            mode = step.argument & os.O_ACCMODE
            return _open_name(directory, step.name, mode | _OPEN | os.O_NOFOLLOW, resolve)
        path = _open_name(directory, step.name or b".", _PATH, resolve)
        try:
            return self._reopen(path, step.argument)
        except OSError as error:
            if error.errno == errno.ESTALE and step.name:
                self._have_asked_again(directory, step.name)
            raise
        finally:
            os.close(path)

    @staticmethod
    def _reopen(path: int, mode: int) -> int:
        kind = files.statx(
            path,
            flags=files.AT_EMPTY_PATH | files.AT_STATX_DONT_SYNC,
            mask=files.STATX_BASIC_STATS,
        ).mode
        if not (S_ISREG(kind) or S_ISDIR(kind)):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return os.open(b"/proc/self/fd/%d" % path, mode & os.O_ACCMODE | _OPEN)

    @staticmethod
    def _have_asked_again(directory: int, name: bytes) -> None:
        """Makes the kernel ask the server for a name that it has cached.

        An exclusive creation always asks; the server answers with the node that is
        there, so it fails with EEXIST and makes no event.
        """
        try:
            os.mknod(name, 0o600, 0, dir_fd=directory)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise

    def _pin(self, step: Step) -> None:
        directory = self._directory(step.directory)
        self._have_asked_again(directory, step.name)
        path = _open_name(directory, step.name, _PATH, self._marks.resolve)
        self._pins.put(step.token, path)

    def _unpin(self, step: Step) -> None:
        self._pins.drop(step.token)

    def _close_kept(self, step: Step) -> None:
        self._files.drop(step.token)

    def _write(self, step: Step) -> None:
        os.pwrite(self._files.get(step.token), b"\0", 0)

    def _read(self, step: Step) -> None:
        os.pread(self._files.get(step.token), 1, 0)


def _open_name(directory: int, name: bytes, flags: int, resolve: int) -> int:
    if resolve:
        return files.openat2(directory, name, flags, resolve=resolve)
    return os.open(name, flags, dir_fd=directory)
