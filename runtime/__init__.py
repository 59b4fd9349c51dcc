"""What an inference server installs: load a vlmc artifact and answer questions about images, without torch."""

__version__ = "0.1.0"
