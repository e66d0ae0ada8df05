"""The fsnotify core that a kernel has, for a client in user space.  No I/O."""

from __future__ import annotations

from farwatch.client.fsnotify.core import Fsnotify
from farwatch.client.fsnotify.group import Group
from farwatch.client.fsnotify.mark import NodeId
from farwatch.client.fsnotify.queue import InotifyEvent

__all__ = ["Fsnotify", "Group", "InotifyEvent", "NodeId"]
