"""From a settled change to what the agent is to do: the table of replays, as code.

Where a change is replayed:

    its directory is live      there, by name: watches on directory and node are served
    only the node is live      under a name of the node's own in the hidden directory:
                               only watches on the node are served, as they would be
    the node is pinned         through the descriptor that the agent has kept since the
                               name was removed: the remote side still holds it open
    nothing is live            not at all

The tree as told (export/nodes.py) moves on when a replay is planned, so that the next
change is planned against what the client will have been told by then.

A batch on its way
    Planner   gives its changes to whom they concern:
              Names      CREATE, DELETE, RENAME, EXCHANGE
              Contents   MODIFY, ACCESS, ATTRIB, OPEN, the CLOSEs: at one of the Targets,
                         through one of the Opens if a descriptor must be told of
              Lifetimes  DEATH, and what must live until then
    Ground    is what they share: who is live, what is outdated, what is trusted, and the
              replays that have been planned
    Batch     says what came together, and what is still to come

Called with the view's lock held.
"""

from farwatch.session.planning.ground import Disk
from farwatch.session.planning.planner import Planner

__all__ = ["Disk", "Planner"]
