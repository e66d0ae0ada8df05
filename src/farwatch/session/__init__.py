"""One client: request bytes in, reply bytes out, and what its agent is told."""
