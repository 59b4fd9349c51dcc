"""Repair: adapters that train the kept weights of a pruned model, and never the pruned ones.

The rooms, each of which imports only those before it:

- `kernels`: the linear map with a masked low-rank update, and its exact gradient.
- `methods`: what is trained on one layer; a table of methods.
- `loading`: models in memory: type, shards, recomputed blocks.
- `feeding`: samples, batches, encoding ahead, the held-out part.
- `adapters`: on a model, on disk, merged, and the proof of a merge.
- `distillation`: the dense model as the teacher, and the losses.
- `training`: the steps, from the first to the reports.
"""
