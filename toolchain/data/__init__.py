"""Data sets: where questions, images and answers come from."""
