"""Models on disk: find them, read them piece by piece, run them block by block, and write changed weights."""
