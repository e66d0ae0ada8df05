"""A client that keeps its own marks: what it watches, and what it is told.

    requests ──BEGIN, MARK, TAKE──> Requests ──> Marks
                                       │ TAKE      │ what is watched
    settled changes ──> Telling ──> Outbox ──> notifications, or answers to TAKE
                          └─> Told: what names held, as far as events have said

Nothing is replayed for such a client: names, link counts and attributes are told as they
are on the disk, and what has happened is told by events.

The life of a mark, on the server

    none ──MARK, mask──> marked ──MARK, 0──────────> none, ENDED(REMOVED)
                           │  ^
                    MARK,  │  │ MARK, mask
                  0, LIMBO v  │
                         in limbo ──too many──────> none, ENDED(DROPPED)
    either of them ──its inode is gone────────────> none, DELETE_SELF, ENDED(GONE)

A marked node is kept although the client may forget it.  A MARK takes effect, and is
answered, when what happened before it has been told: what the client has done itself, or
has heard of elsewhere, is not missed by a removal, and never reaches a new watch.

Everything here is called with the view's lock held.
"""
