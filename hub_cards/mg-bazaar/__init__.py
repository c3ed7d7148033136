"""The embedded default model, laid out as a Hub repository."""
