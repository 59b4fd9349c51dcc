"""Adapters: put on a model, saved, merged into its weights, and the proof that a merge changed no answer."""
