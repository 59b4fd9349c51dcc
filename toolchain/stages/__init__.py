"""The steps of the chain: each reads one artifact and writes another."""
