"""The command line: `mg-diffusion generate | edit | recolor | ... | palette | encode | export | bench | data`.

    mg-diffusion generate --color sunset.jpg --texture wool.jpg --shape rose.jpg -o rose.png
    mg-diffusion generate --color "#ff8800:3,#224466" --shape rose.jpg --scale shape=0.8 --seed 7 -o rose.png
    mg-diffusion generate --color "a.jpg,region=0:0:0.5:1" --color "b.jpg,region=0.5:0:1:1" --shape s.png -o two.png
    mg-diffusion edit photo.jpg --mask mask.png --color sunset.jpg -o edited.png
    mg-diffusion recolor photo.jpg --color sunset.jpg -o recolored.png
    mg-diffusion palette photo.jpg --colors 4
    mg-diffusion encode jacket.jpg --granularity texture -o denim.safetensors
    mg-diffusion export --base FOLDER_OR_HUB_ID --adapter FOLDER_OR_HUB_ID -o my-model
    mg-diffusion bench --data pictures --quick -o bench.json --pictures bench
    mg-diffusion data check pictures
    mg-diffusion data bazaar128 bazaar128

Every PNG file that is written holds its recipe: see `mg_diffusion.recipe.read_recipe`.
"""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

from .parser import build_parser
from .refusals import sentence_of


def one_line(message: Warning | str, *place: Any) -> str:
    """A warning as a command tells it; where in the code it was met is nobody's business."""
    return f"warning: {' '.join(str(message).split())}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 if `data check` found problems, or 2 after an error in what was asked for."""
    options = build_parser().parse_args(arguments)
    options.is_alone = arguments is None  # in its process, see `load`
    shown, warnings.formatwarning = warnings.formatwarning, one_line
    try:
        return options.run(options) or 0
    except (ValueError, OSError) as error:
        print(f"error: {sentence_of(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    finally:
        warnings.formatwarning = shown
