"""Where changes come from: each source gives a stream of records."""
