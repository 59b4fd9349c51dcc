"""The parts of the benchmark of training steps: what is trained, by which methods, how it is measured, the page's table."""
