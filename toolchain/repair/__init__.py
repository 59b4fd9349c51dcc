"""Repair: adapters that train the kept weights of a pruned model, and never the pruned ones."""
