"""Compression: prune, repair, merge, verify, evaluate, and the command line that drives them."""
