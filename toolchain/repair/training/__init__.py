"""Training: steps, learning rate, precision, validation, checkpoints and reports."""
