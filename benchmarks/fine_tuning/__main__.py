"""What fine-tuning the embedded default gains on a folder of another kind; docs/fine-tuning.md shows it.

python -m benchmarks.fine_tuning pictures --font NotoColorEmoji.ttf -o runs/emoji
... the commands of docs/fine-tuning.md, with --train_data_dir runs/emoji ...
python -m benchmarks.fine_tuning measure runs/fine-tuned runs/lora
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mg_diffusion.recipe import prepare_output, replacing, save_json, save_png, versions

from .pictures import draw_folder


DEFAULT_OUTPUT = "benchmarks/results/fine_tuning.json"


def measure(options: argparse.Namespace) -> None:
    from mg_diffusion.mg_bench.sections import QUICK

    from .measure import FULL, draw_curves, measure

    output = prepare_output(options.output, ".json")
    found, grid = measure([Path(run) for run in options.runs], QUICK if options.quick else FULL)
    save_json({**found, "versions": versions()}, output)
    save_png(grid, output.with_suffix(".png"), {"command": "benchmarks.fine_tuning", "data": found["data"]})
    with replacing(output.with_name(f"{output.stem}_curves.png")) as part:
        draw_curves(found).savefig(part, dpi=110, format="png")
    print(output)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fine_tuning", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("pictures", help="draw the folder: emoji on paper, train/ and val/")
    one.add_argument("--font", required=True, metavar="FILE.ttf", help="NotoColorEmoji.ttf")
    one.add_argument("-o", "--output", required=True, metavar="FOLDER")
    one = commands.add_parser("measure", help="the embedded default, and runs that started from it")
    one.add_argument("runs", nargs="+", metavar="RUN", help="--output_dir of a run, of which all read the same folder")
    one.add_argument("--quick", action="store_true", help="fewer triples, wider intervals")
    one.add_argument("-o", "--output", default=DEFAULT_OUTPUT, metavar="FILE.json", help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        if options.command == "pictures":
            print(draw_folder(options.font, options.output))
        else:
            measure(options)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
