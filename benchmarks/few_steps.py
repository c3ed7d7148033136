"""Few steps against many: what the distilled UNet finds of its references, and how long it takes.

    python -m benchmarks.few_steps --data PHOTOGRAPHS --squeezenet WEIGHTS

Crossings of `val` pictures as `benchmarks.octaves` draws and judges them, by three: the UNet that the shipped one has learned
from, in its own 20 steps; the same in 4, not distilled; and the shipped one. Each reference alone as well: how often it is the
nearest of 32. Seconds are medians of whole calls that take turns, with references never seen and with the same ones again.
Writes benchmarks/results/few_steps.json; `python -m benchmarks.pages` puts it into docs/few-steps.md.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mg_diffusion import MGPipeline
from mg_diffusion.evaluation.metrics import describe, distances
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.loading import load_pipeline
from mg_diffusion.mg_bench.pools import read_pool

from .octaves import Crossing, Judges, draw_crossings, to_array


SIZE = 256
MANY = {"num_inference_steps": 20, "num_detail_steps": 6}
UNDISTILLED = {"num_inference_steps": 4, "num_detail_steps": 3}
OUTPUT = Path(__file__).parent / "results" / "few_steps.json"


class Contestant:
    """A pipeline and how it is called; `seconds` of its calls."""

    def __init__(self, pipe: MGPipeline, options: dict[str, int]):
        self.pipe, self.options = pipe, options
        self.seconds: dict[str, list[float]] = {"new": [], "again": []}
        pipe.set_progress_bar_config(disable=True)

    def forget(self) -> None:
        """What was remembered of references."""
        self.pipe.mg_encoder.remembered.results.clear()
        self.pipe.mg_adapter.remembered.results.clear()

    def paint(self, references: dict[str, np.ndarray], seed: int, timed: str | None = None) -> np.ndarray:
        start = time.perf_counter()
        made = self.pipe(
            reference_image=references,
            height=SIZE,
            width=SIZE,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
            **self.options,
        ).images.float()
        if timed:
            self.seconds[timed].append(time.perf_counter() - start)
        return to_array(made)


def alone(judges: Judges, contestant: Contestant, crossings: list[Crossing]) -> dict[str, float]:
    """How often a reference that is given alone is the nearest of 32, by granularity."""
    found = {}
    for name in GRANULARITIES:
        hits = []
        for seed, crossing in enumerate(crossings):
            own = getattr(crossing, name)
            output = describe(contestant.paint({name: judges.pools[name][own]}, seed))
            among = [judges._described(name, one) for one in judges._candidates(name, own)]
            first, *others = (distances(output, other)[name] for other in among)
            hits.append(first < min(others))
        found[name] = round(float(np.mean(hits)), 3)
    return found


def compare(args: argparse.Namespace) -> dict[str, Any]:
    photos = read_pool(args.data, None, SIZE).pictures
    crossings = draw_crossings(len(photos), None, args.count, args.seed)
    judges = Judges(photos, photos, args.squeezenet, args.seed)
    many = load_pipeline(MGPipeline, args.model, many_steps=True)
    shipped = load_pipeline(MGPipeline, args.model)
    contestants = {
        "20 steps": Contestant(many, MANY),
        "4 steps, not distilled": Contestant(many, UNDISTILLED),
        "4 steps, distilled": Contestant(shipped, {"composed_start": 0}),
        "the same by default": Contestant(shipped, {}),  # of a whole sketch one step
    }
    made = {name: [] for name in contestants}
    for seed, one in enumerate(crossings):
        references = {name: judges.pools[name][getattr(one, name)] for name in GRANULARITIES}
        for name, contestant in contestants.items():
            contestant.forget()
            made[name].append(contestant.paint(references, seed, "new"))
            contestant.paint(references, seed + args.count, "again")
        print(f"{seed + 1} of {args.count}", flush=True)
    rows = {}
    for name, contestant in contestants.items():
        seconds = {f"seconds, {kind}": round(float(np.median(v)), 3) for kind, v in contestant.seconds.items()}
        rows[name] = {**judges(crossings, made[name]), "alone": alone(judges, contestant, crossings), **seconds}
        print(name, rows[name], flush=True)
    return {"settings": {"count": args.count, "seed": args.seed, "threads": torch.get_num_threads()}, "rows": rows}


def table_of(found: dict[str, Any]) -> str:
    """The table of docs/few-steps.md."""
    head = ["", *GRANULARITIES, "all three", "recognition", "sharpness", "Frechet"]
    head += [*(f"{name} alone" for name in GRANULARITIES), "seconds, new references", "again"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, row in found["rows"].items():
        cells = [f"{row[one]['nearest']:.2f} / {row[one]['pairwise']:.2f}" for one in GRANULARITIES]
        cells += [f"{row['all three']:.2f}", f"{row['recognition']['nearest']:.2f}", f"{row['sharpness']:.2f}"]
        cells += [str(row["naturalness"]), *(f"{row['alone'][one]:.2f}" for one in GRANULARITIES)]
        cells += [f"{row['seconds, new']:.2f}", f"{row['seconds, again']:.2f}"]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    settings = found["settings"]
    threads = f"{settings['threads']} thread" + ("s" if settings["threads"] > 1 else "")
    return f"{settings['count']} crossings of photographs, {SIZE} px, {threads}.\n\n" + "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.few_steps", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of photographs with val/")
    parser.add_argument("--squeezenet", required=True, help="weights, for recognition and naturalness")
    parser.add_argument("--model", help="MGPipeline with a distilled UNet; default: the embedded one")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE.json")
    args = parser.parse_args()
    found = compare(args)
    args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table_of(found))


if __name__ == "__main__":
    main()
