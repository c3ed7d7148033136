"""What fine-tuning the embedded default on somebody's own folder gains: the figures of docs/fine-tuning.md."""
