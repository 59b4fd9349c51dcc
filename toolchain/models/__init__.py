"""Models on disk: found, read piece by piece, run block by block, and written with what changed."""
