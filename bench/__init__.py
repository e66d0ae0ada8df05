"""The benchmark: everything as a ratio to the same thing done natively, beside it."""
