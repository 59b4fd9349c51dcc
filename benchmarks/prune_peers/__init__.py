"""What benchmarks/prune.py runs beside itself: each contestant in a process of its own, on the same model and tokens."""
