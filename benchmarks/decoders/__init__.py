"""What `cpu24.py --decoders` measures: whole decoders with random 2:4 weights, by everyone who can run them."""
