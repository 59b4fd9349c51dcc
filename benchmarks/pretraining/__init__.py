"""What the benchmark of a pretrained model runs and measures."""
