"""A source for who may not watch whole file systems: inotify marks on what the client knows.

    follow, unfollow    (export) the client comes to know a node, and forgets it: marks.py
    doing               (export) what the server is about to do itself: doings.py
    drain               the kernel's queue is emptied, before and after whatever the server
                        does, so that its own events are those between that match: source.py
    read                what was drained becomes records with keys: reading.py

What fanotify tells and inotify does not, and where it is had from

    node         the name is looked up when its event is read; what a name held that is gone
                 follows from the events before (tenants.py), or from what the client was told
    both halves  MOVED_FROM and MOVED_TO have one cookie.  A half without its other one came
    of a rename  from, or went to, a directory that nobody follows (ELSEWHERE)
    thread       the server's own events are matched off; of all others the id is 0
    link counts  a further mark on each file tells ATTRIB without a name; what its directory
                 was told with a name comes again without, and is left out
    death        DELETE_SELF, once the export has closed its own descriptor of the inode
"""

from farwatch.sources.inotify.doings import Doing
from farwatch.sources.inotify.nodes import Nodes
from farwatch.sources.inotify.source import InotifySource

__all__ = ["Doing", "InotifySource", "Nodes"]
