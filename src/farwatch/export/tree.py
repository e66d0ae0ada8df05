"""The exported directory tree: every operation on it, by key."""

from __future__ import annotations

from farwatch.export.anchor import Caller
from farwatch.export.attributes import NOW, OMIT, Attributes, SetAttr
from farwatch.export.content import Content
from farwatch.export.directories import Directories, Directory, DirEntry
from farwatch.export.files import Files
from farwatch.export.making import Making
from farwatch.export.naming import Naming
from farwatch.export.places import Places
from farwatch.export.submounts import Submounts
from farwatch.export.surveying import Surveying
from farwatch.export.xattrs import Xattrs

__all__ = ["NOW", "OMIT", "Caller", "DirEntry", "Directory", "Export", "SetAttr"]


class Export(
    Naming,
    Places,
    Making,
    Attributes,
    Files,
    Content,
    Directories,
    Xattrs,
    Submounts,
    Surveying,
):
    """An exported directory.

    Nodes are named by their keys, and a key leads to a node for as long as the
    inode lives; a path is never put together.  Nothing but regular files and
    directories is opened, and O_PATH descriptors last no longer than one
    operation.  Errors are OSError with the errno that the client shall see.

    The process is root with umask 0, and has /proc.  One thread uses it, apart
    from ``node_at``, ``names``, ``lookup`` and the operations on descriptors.
    """
