"""A model larger than memory: its parameters are read when they are needed, its blocks run one at a time."""
