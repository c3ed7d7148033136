"""What is taken from a reference. The only definition; it imports nothing, so that anything may import it."""

GRANULARITIES = ("color", "texture", "shape")
MOST_STRENGTH = 100.0  # of one, and of guidance; far beyond what means anything, and far from where numbers overflow
