"""Layer-wise ratios: a percentage shared out over a model's blocks, by how much each can lose."""
