"""Edits at a picture's own resolution against classical methods: `python -m benchmarks.edits`; shown in docs/edits.md."""
