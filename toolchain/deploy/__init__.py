"""Deploying: from a model in torch to graph descriptions and `deployment.json`, proven on the family's own processor."""
