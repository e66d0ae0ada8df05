"""Does in the mount what the server's steps say, so that the client's VFS makes events.

While a step is under way the server knows the calling thread's requests for that step's
(marks.py), and acknowledges exactly those without acting.

What can go wrong with a step is the server's to know: each step gives an errno, or 0.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress

from farwatch.abi.control import HIDDEN_ID, ROOT_ID, Hello
from farwatch.abi.steps import AGAIN, Op, Step, Times
from farwatch.agent.directories import Directories
from farwatch.agent.kept import Kept
from farwatch.agent.marks import Marks
from farwatch.agent.names import PATH, ask_again, open_name
from farwatch.agent.onlyfiles import OnlyFiles
from farwatch.linux import files

_PAUSES_SECONDS = (0.0, 0.0, 0.0, 0.001, 0.002, 0.004, 0.008, 0.016)
"""Before each try of a step, if that removes a directory: the kernel also says ESTALE when it
cannot take one to where it is looked up, because somebody is at work where it was
(d_splice_alias)."""
_TIMES: dict[int, tuple[int, int]] = {
    int(Times.ACCESS): (files.NOW, files.OMIT),
    int(Times.MODIFY): (files.OMIT, files.NOW),
    int(Times.ATTRIB): (files.NOW, files.NOW),
}


class Replayer:
    """Performs steps, in the thread that makes it.

    ``root`` is the root directory in the clone, and the caller's.  ``files_kept`` and ``pins``
    are shared with other replayers.  ``visible`` opens the root of the mount that the
    client sees, if somebody listens for paths there (onlyfiles.py).
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
        self._marks = marks
        self._files = files_kept
        self._pins = pins
        self._only_files = OnlyFiles(visible, marks.resolve)
        marks.take()
        self._directories = Directories(root, hello.hidden, marks)
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
        for pause in _PAUSES_SECONDS:
            if pause and step.op == Op.RMDIR:
                time.sleep(pause)
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
                elif step.op == Op.TOUCH and self._marks.resolve and step.name and not step.pin:
                    # The kernel looks again by itself only what it is given by name.
                    with suppress(OSError):
                        ask_again(self._directories.of(step.directory), step.name)
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
                os.close(os.open(b".", PATH, dir_fd=self._directories.of(changed)))
        self._directories.drop()

    def close(self) -> None:
        """Lets go of what is not shared."""
        self._directories.close()

    # Names -----------------------------------------------------------------------

    def _mknod(self, step: Step) -> None:
        os.mknod(step.name, step.argument, 0, dir_fd=self._directories.of(step.directory))

    def _mkdir(self, step: Step) -> None:
        os.mkdir(step.name, 0o700, dir_fd=self._directories.of(step.directory))

    def _symlink(self, step: Step) -> None:
        os.symlink(b".", step.name, dir_fd=self._directories.of(step.directory))

    def _link(self, step: Step) -> None:
        # Out of the hidden directory, so that no second directory is needed.
        target = self._directories.of(step.new_directory)
        files.linkat(self._directories.hidden, step.name, target, step.new_name)

    def _unlink(self, step: Step) -> None:
        os.unlink(step.name, dir_fd=self._directories.of(step.directory))
        self._hear_of_last_link(step)

    def _rmdir(self, step: Step) -> None:
        directory = self._directories.of(step.directory)
        os.rmdir(step.name, dir_fd=directory)

    def _rename(self, step: Step) -> None:
        old = self._directories.of(step.directory)
        if step.new_directory in (step.directory, ROOT_ID, HIDDEN_ID):
            new = self._directories.of(step.new_directory)
            files.renameat2(old, step.name, new, step.new_name, step.argument)
        else:
            new = self._directories.open(step.new_directory)
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
        directory = self._directories.of(step.directory)
        if step.op == Op.LOOK and step.argument == AGAIN:
            ask_again(directory, step.name)
        os.close(open_name(directory, step.name, PATH, self._marks.resolve))

    # Inodes ----------------------------------------------------------------------

    def _touch(self, step: Step) -> None:
        atime, mtime = _TIMES[step.argument]
        if step.pin:
            files.utimensat(self._pins.get(step.pin), b"", atime, mtime, files.AT_EMPTY_PATH)
            return
        directory = self._directories.of(step.directory)
        if not step.name:
            files.utimensat(directory, b"", atime, mtime, files.AT_EMPTY_PATH)
            return
        if self._marks.resolve:
            path = open_name(directory, step.name, PATH, self._marks.resolve)
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
        if step.pin:
            return self._only_files.reopen(self._pins.get(step.pin), step.argument)
        directory = self._directories.of(step.directory)
        return self._only_files.open(directory, step.name, step.argument)

    def _pin(self, step: Step) -> None:
        directory = self._directories.of(step.directory)
        ask_again(directory, step.name)
        path = open_name(directory, step.name, PATH, self._marks.resolve)
        self._pins.put(step.token, path)

    def _unpin(self, step: Step) -> None:
        self._pins.drop(step.token)

    def _close_kept(self, step: Step) -> None:
        self._files.drop(step.token)

    def _write(self, step: Step) -> None:
        os.pwrite(self._files.get(step.token), b"\0", 0)

    def _read(self, step: Step) -> None:
        os.pread(self._files.get(step.token), 1, 0)
