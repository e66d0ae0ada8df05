"""One client's server, whatever its requests come through."""
