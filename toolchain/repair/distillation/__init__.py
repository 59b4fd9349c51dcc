"""The dense model as the teacher: what it says of the answers' tokens, and how far the student is from it."""
