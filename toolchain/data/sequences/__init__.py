"""Lazy sequences of samples: a part of another, a mixture, one without unreadable images."""
