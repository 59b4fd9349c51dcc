"""Deploying: from a model in torch to graph descriptions and `deployment.json`, checked with the family's own processor."""
