"""The model card of the embedded default, and the figures of the project's README, from files that commands rewrite.

    python -m mg_diffusion.model_card hub_cards/mg-bazaar [--readme README.md] [--credits DATA_DIR]

reads `bench.json` (`mg-diffusion bench --pictures hub_cards/mg-bazaar/bench`), `speed.json` (`benchmarks/speed.py`) and
`training.json` (the run's `training_config.json`, with the number of `parameters` added), and writes the folder's
README.md. With `--readme` the block between the two `numbers` comments of that file is replaced too. With `--credits`
it lists the authors of the training pictures in CREDITS.md.
"""

import argparse
import sys
from pathlib import Path

from .card import PLACES, model_card, octaves_table, read, speed_table
from .readme import credits, readme_tables, replace_numbers


__all__ = ["PLACES", "main", "octaves_table"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--readme", type=Path)
    parser.add_argument("--credits", type=Path, metavar="DATA_DIR")
    args = parser.parse_args(arguments)
    try:
        if args.credits:
            (args.folder / "CREDITS.md").write_text(credits(args.credits), encoding="utf-8")
        (args.folder / "README.md").write_text(model_card(args.folder), encoding="utf-8")
        if args.readme:
            bench, speed = read(args.folder, "bench.json"), read(args.folder, "speed.json")
            block = readme_tables(bench) + "\n\n" + speed_table(speed)
            text = replace_numbers(args.readme.read_text(encoding="utf-8"), block)
            args.readme.write_text(text, encoding="utf-8")
    except ValueError as error:
        sys.exit(f"error: {error}")
