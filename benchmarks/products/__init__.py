"""What `cpu24.py` measures: products of some rows with many weights, by everyone who can multiply."""
