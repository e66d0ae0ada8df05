"""watchfiles, used as its documentation does.

    python watchfiles_program.py DIRECTORY

Says ``ready`` when the watch is in force, then a line for each change
and, after each set of them, ``set`` with its paths.
"""

# ruff: noqa: T201

from __future__ import annotations

import sys

from watchfiles import watch


def main() -> None:
    for changes in watch(
        sys.argv[1], watch_filter=None, yield_on_timeout=True, rust_timeout=100, debounce=50, step=5
    ):
        if not changes:
            print("ready", flush=True)
        for kind, path in sorted(changes):
            print(kind.name, path)
        print("set", *sorted(path for _, path in changes), flush=True)


if __name__ == "__main__":
    main()
