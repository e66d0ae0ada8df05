"""virtio-fs over vhost-user: FUSE requests out of a guest's memory, and replies into it.

    messages of the front end ── channel ──> device ──> queues        (settings, seldom)
    kick ──> queue ──> vring ──> chain ──> Session.receive ──> chain ──> call      (requests)

``backend`` joins the two.  Nothing that a guest or its monitor says is believed: what is
malformed raises Malformed, ProtocolError, BadAddress or BrokenRing, which end the
connection or stop the ring, and never anything else.

``frontend`` is the other side, without a virtual machine.
"""
