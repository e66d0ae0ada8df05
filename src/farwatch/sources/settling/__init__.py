"""From the merged, reordered records of one batch to changes in their order.

fanotify merges records that wait together: a further event of the same thread,
directory, name and inode (nameless ones: of the same thread and inode) only
sets its bit in the record that waits already.  So a record stands where its
*first* event stood, and each of its bits for one event or more, there or later.
A rename joins only the very same rename (which takes that its node came back
between): else its two names are right, and its position is.  A queue
that is read at once is not merged at all, and then records are told as they
come; all that follows costs such a queue nothing.

What is kept of a name during one batch (names.py)
    holds        the node that it holds, as told so far (None: it is free)
    owed         bits that were read and not told: they happened later than here
    seen         bits that were read at all: merging may hide that they happened twice
What is kept between batches (memory.py)
    carried      inode-only records that wait for the record that explains them
    expected     threads that are about to report the inode that their rename replaced
    anticipated  what the disk demanded before its record was read
    departed     nodes that lost a name and may still die
    suspects     names from which, or to which, a rename may be hidden by merging
    held         a whole batch, when it ends between the two halves of an exchange

One name's records (i is the record's node, j another; *exact* means that the
mask holds nothing besides the name's own bits, so one of them happened here)
  entries.py
    CREATE i            what the name holds goes first, if its DELETE is owed, or by the
                        rename by which it had gone before it came back; tell it
    DELETE i            an owed CREATE i comes first; tell it
    both, i is there    tell DELETE, owe CREATE
    both, i is not      as CREATE, and owe DELETE
    not exact           CREATE of what is there, DELETE of what is not, DELETE of what
                        the next rename still needs, CREATE over what is not known to
                        go: owe it, something else put the record here
  renames.py, exchanges.py
    RENAME a to b of i  pay what makes a hold i; a DELETE owed to what b holds is
                        paid before (else that is replaced); tell it
    two RENAMEs         of one thread, one after the other, places swapped: EXCHANGE
  telling.py
    other bits          told with the record, in the order in which a file lives
  ledger.py
    a directory goes    first everything that its names owe
At the end of the batch, for each name (ledger.py, suspects.py)
    pay                 what is owed, each once, in whatever order a name can live it
    demand              if it still is not as on the disk: once more a bit that was
                        seen, or a rename.  Its record may be on its way: then it is anticipated,
                        and not told again.  What no record speaks of is not invented.
                        Renames are demanded only if the next batch does not explain what
                        the disk says; half of one, if that is all that can be known.
Inode-only records (nameless.py)
    ATTRIB of a file    its link count.  Explained by a CREATE or DELETE of the node, or
                        a rename over it, by the same thread: dropped, because doing
                        those again raises it again.  Not explained yet: carried,
                        until it is, or its thread has gone on, or the queue has been empty
    ATTRIB of a dir     chmod's, unless its thread has just renamed a directory to where the
                        client believes this one to be: then it is the count of what went,
                        also if it was merged with what came before the rename
    DELETE_SELF         DEATH, at the end of the batch.  The kernel reports it before the
                        DELETE of the last name: then it is carried in the same way
The server's own threads (crowd.py, telling.py)
    Their records walk along and tell nothing.  A name that they changed loses what is
    told of it in this batch: the client has already seen later.  Other nodes' share
    in it is kept: the far half of a rename (a half's missing place is None), and for a
    node its DELETE, MODIFY ... with place None.  A DEATH is told if a DELETE was told.

A batch on its way
    collect   reads it, and looks at the disk
    Settler   tells it, if it is plain; holds it back, if half an exchange ends it
    walk      gives its records to whom they concern:
              Nameless   the inode-only ones
              Crowd      those of names, if any is touched twice: to Entries and Renames,
                         who have the Ledger make their names hold what they must
              Telling    whatever is told, and all of a batch in which none is
"""

from farwatch.sources.settling.collect import collect
from farwatch.sources.settling.names import UNKNOWN, Holder
from farwatch.sources.settling.settler import Settler

__all__ = ["UNKNOWN", "Holder", "Settler", "collect"]
