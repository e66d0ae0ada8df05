"""Byte layouts, as declarations: no I/O."""
