"""What cannot come to much, told before it is made."""

import argparse
import sys

from ..granularities import GRANULARITIES


def tell_of_nothing_given(options: argparse.Namespace) -> None:
    """Warn where the embedded model, which hardly knows words, gets no reference."""
    if options.model is not None or any(getattr(options, name) for name in GRANULARITIES):
        return
    said = "a prompt alone" if options.prompt else "neither a prompt nor references"
    print(
        f"warning: {said} says little to the embedded model, which paints after references and hardly knows words: expect a "
        f"blur. Give --color, --texture or --shape, best all of them, or another --model.",
        file=sys.stderr,
    )
