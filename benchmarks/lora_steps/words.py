"""What the metrics are called in the results."""

STEP, CHECKPOINTED, PEAK, KEPT = "step", "step, checkpointed", "peak memory", "kept for backward"
COSINES = {"cosine of dA": (0,), "cosine of dB": (1,), "cosine of dA and dB": (0, 1)}
"""Gradients of all layers together, by which of A (0) and B (1) they belong to."""
