"""What users read: the model card, inspect, verify-sparsity, and tables."""
