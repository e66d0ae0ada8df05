"""farwatch: inotify that works on shared file systems."""

__version__ = "0.1.0"
