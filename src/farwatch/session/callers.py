"""Who has made a request, beyond what its header says."""

from __future__ import annotations

from farwatch.export.setid import Groups, no_groups
from farwatch.session.request import Request


class Callers:
    """Answers questions about the callers of one client's requests."""

    def __init__(self, *, knows_pids: bool) -> None:
        """With ``knows_pids`` the ids of threads in requests are this system's."""
        self._knows_pids = knows_pids

    def groups(self, request: Request) -> Groups:
        """What tells the caller's groups: all of them, or of another system's the first.

        A caller waits for his answer, and so is still there when he is asked about.
        """
        if not request.pid:
            return no_groups
        if not self._knows_pids:
            return lambda: (request.gid,)
        return lambda: (request.gid, *_supplementary(request.pid))


def _supplementary(thread: int) -> tuple[int, ...]:
    """Supplementary groups of a thread (proc_pid_status(5)); none if it is gone."""
    try:
        with open(f"/proc/{thread}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Groups:"):
                    return tuple(map(int, line.split()[1:]))
    except OSError:
        pass
    return ()
