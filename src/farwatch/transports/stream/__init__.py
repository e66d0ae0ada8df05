"""FUSE messages on sockets: Unix, TCP with and without TLS, and between host and guest.

    address ──listen──> socket ──accept──> greeting ──> connection      (``serving.door``)

A greeting is all that somebody unknown can make the server do; a connection has a thread
of its own.  What comes is never believed: see ``abi.stream``.
"""
