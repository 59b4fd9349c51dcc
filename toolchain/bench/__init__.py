"""bench: a model's dense twin, its twin with the adapter left apart, the merged sparse model and its packed forms, timed."""
