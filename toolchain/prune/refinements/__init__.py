"""Refinements that may follow a method: another mask, or better weights for a layer's mask or a whole block's masks."""
