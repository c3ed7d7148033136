"""What is taken from a reference. The only definition; it imports nothing, so that anything may import it."""

GRANULARITIES = ("color", "texture", "shape")
