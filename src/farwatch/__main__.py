"""``python -m farwatch`` is the ``farwatch`` command."""

from farwatch.cli.app import main

main()
