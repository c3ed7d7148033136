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
    purpose = "of a model, with bench.json, speed.json and training.json; its README.md is written"
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=purpose)
    purpose = "the project's, whose block between the comments <!-- numbers --> and <!-- /numbers --> is written too"
    parser.add_argument("--readme", type=Path, metavar="README.md", help=purpose)
    purpose = "training pictures with metadata.jsonl, whose authors FOLDER/CREDITS.md then lists"
    parser.add_argument("--credits", type=Path, metavar="DATA_DIR", help=purpose)
    args = parser.parse_args(arguments)
    try:
        for path, text in written(args).items():
            path.write_text(text, encoding="utf-8")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def written(args: argparse.Namespace) -> dict[Path, str]:
    """All texts by their files, so that nothing is written where one cannot be.

    Raises:
        ValueError: for files that are missing, or lack what a text needs.
    """
    if args.readme and not args.readme.is_file():
        raise ValueError(f"There is no file at {str(args.readme)!r}. --readme names a README that is there.")
    texts = {args.folder / "CREDITS.md": credits(args.credits)} if args.credits else {}
    texts[args.folder / "README.md"] = model_card(args.folder)
    if args.readme:
        bench, speed = read(args.folder, "bench.json"), read(args.folder, "speed.json")
        block = readme_tables(bench) + "\n\n" + speed_table(speed)
        texts[args.readme] = replace_numbers(args.readme.read_text(encoding="utf-8"), block)
    return texts
