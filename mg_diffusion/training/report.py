"""The card of a run and its curves, from the files it wrote, into `weights/`.

    python -m mg_diffusion.training.report OUTPUT_DIR

reads `training_config.json`, `environment.json`, `log.jsonl` and the last `grid-*.png`, and writes `README.md`,
`curves.png` and `grid.png` into `OUTPUT_DIR/weights`. Every run that ends does so by itself.
"""

import argparse
import shutil
import sys
from pathlib import Path

from accelerate import PartialState

from .checkpoints import writing
from .curves import draw_curves
from .hub import push
from .run_card import card
from .run_files import read_run


def write_report(output_dir: str | Path) -> Path:
    """Write card, curves and grid into `weights/`; the path of the card. May be called at any time after a checkpoint.

    Raises:
        ValueError: see `read_run`.
    """
    run = read_run(output_dir)
    weights = run.folder / "weights"
    draw_curves(run).savefig(weights / "curves.png", dpi=110)
    for grid in sorted(run.folder.glob("grid-*.png"))[-1:]:
        shutil.copyfile(grid, weights / "grid.png")
    (weights / "README.md").write_text(card(run), encoding="utf-8")
    if run.damaged:
        print(f"log.jsonl: lines {run.damaged} are damaged and were left out.", file=sys.stderr)
    return weights / "README.md"


def finish(output_dir: str | Path, hub_model_id: str | None = None) -> None:
    """What the main process does once a run has ended: the report, and the push to `hub_model_id` if given.

    Raises:
        WriteError: if the disk is full.
    """
    if not PartialState().is_main_process:
        return
    with writing("The card", output_dir):
        place = write_report(output_dir)
    print(f"{place}: what was trained, how, and how to use it")
    if hub_model_id:
        config = read_run(output_dir).config
        message = f"Weights of {config['max_train_steps']} steps of stage {config['stage']}"
        print(f"pushed: {push(output_dir, hub_model_id, message)}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output_dir", type=Path)
    try:
        print(write_report(parser.parse_args(arguments).output_dir))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
