"""Training of the embedded default and of adapters for existing checkpoints."""
