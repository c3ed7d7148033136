"""What diffusers loads where this folder is given as a `custom_pipeline`: a sentence that says what to give instead."""

from .source_only import SENTENCE  # noqa: F401
