"""watchdog, used as its documentation does.

    python watchdog_program.py DIRECTORY

Says ``ready``, then a line for each event that is a change: its type, ``dir`` or
``file``, its path, and where it went.
"""

# ruff: noqa: T201

from __future__ import annotations

import sys

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer


class Teller(FileSystemEventHandler):
    """Prints."""

    def on_any_event(self, event: FileSystemEvent) -> None:
        kind = "dir" if event.is_directory else "file"
        print(event.event_type, kind, event.src_path, event.dest_path, flush=True)


def main() -> None:
    observer = Observer()
    observer.schedule(Teller(), sys.argv[1], recursive=True)
    observer.start()
    print("ready", flush=True)
    observer.join()


if __name__ == "__main__":
    main()
