"""What the benchmark of the batcher asks, how, and of which models."""
