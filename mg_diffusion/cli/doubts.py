"""What cannot come to much, told before it is made."""

import argparse
import sys

from ..granularities import GRANULARITIES


LEAST_SHOWN = 64  # pixels of a side, at which the embedded model was trained


def tell_of_doubts(options: argparse.Namespace) -> None:
    """Warn where little but a blur can come of the embedded model."""
    if options.model is not None:
        return
    if options.command in ("generate", "edit") and not any(getattr(options, name) for name in GRANULARITIES):
        said = "a prompt alone" if options.prompt else "neither a prompt nor references"
        print(
            f"warning: {said} says little to the embedded model, which paints after references and hardly knows words: expect a "
            f"blur. Give --color, --texture or --shape, best all of them, or another --model.",
            file=sys.stderr,
        )
    sides = [getattr(options, name, None) for name in ("size", "height", "width")]
    if small := [side for side in sides if isinstance(side, int) and side < LEAST_SHOWN]:
        print(
            f"warning: a side of {small[0]} pixels is below the {LEAST_SHOWN} that the model was trained at, so expect a blur. Paint "
            f"larger, and shrink the result.",
            file=sys.stderr,
        )
