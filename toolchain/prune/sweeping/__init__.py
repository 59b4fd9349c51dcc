"""The sweep over a model's blocks: each is run on the calibration data, pruned, refined, and written to the journal."""
