"""Refinements: what may follow a method, namely another mask, better weights for a layer's mask, or for a whole block's."""
