"""How packed weights in int8 are laid out in columns, for who only has to know that."""

SPAN = 128
"""Columns that share a scale, unless something else is asked for."""
CHUNK = 32
"""What a span must be a multiple of: the kernels read so many columns at a time."""
