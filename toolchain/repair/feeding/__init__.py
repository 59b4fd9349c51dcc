"""Feeding: which samples a run is trained and validated on, in which batches, encoded ahead of the steps."""
