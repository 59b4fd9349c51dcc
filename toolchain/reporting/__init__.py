"""Reports for users: the model card, inspect, verify-sparsity and tables."""
