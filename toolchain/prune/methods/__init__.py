"""Methods: how one layer is pruned, by its weight and the statistics of its inputs; the table of them is in `prune`."""
