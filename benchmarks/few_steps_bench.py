"""MG-Bench of the distilled UNet beside that of the one that it has learned from.

    mg-diffusion bench --data PHOTOGRAPHS --features SQUEEZENET -o few.json
    mg-diffusion bench --data PHOTOGRAPHS --features SQUEEZENET --many-steps -o many.json
    python -m benchmarks.few_steps_bench few.json many.json

Writes benchmarks/results/few_steps_bench.json; `python -m benchmarks.pages` puts it into docs/few-steps.md.
"""

import json
import sys
from pathlib import Path
from typing import Any

from mg_diffusion.granularities import GRANULARITIES


OUTPUT = Path(__file__).parent / "results" / "few_steps_bench.json"
SECTIONS = {
    "retrieval_photographic": "photographs",
    "retrieval_synthetic": "rendered triples",
    "editing_control": "edits of photographs",
}
SETTINGS = ("data", "split", "seed", "sizes")  # that both must have alike
EDITS = {"psnr": "edits without references, PSNR in dB", "ssim": "the same, SSIM", "seam": "the same, seam"}


def figures(found: dict[str, Any]) -> dict[str, float]:
    """What is compared, by its name; means."""
    rows = {}
    for section, label in SECTIONS.items():
        method = found[section]["method"]
        rows |= {f"{label}: own {name} nearest of 32": method["top1"][name]["mean"] for name in GRANULARITIES}
        rows[f"{label}: all three"] = method["joint"]["mean"]
    rows["Frechet distance"] = found["quality"]["samples"]["frechet"]["mean"]
    rows["diversity"] = found["diversity"]["ratio"]["mean"]
    fidelity = found["editing_fidelity"]["method"]
    return {name: round(value, 4) for name, value in rows.items()} | {
        label: round(fidelity[name]["mean"], 4) for name, label in EDITS.items()
    }


def compare(few: dict[str, Any], many: dict[str, Any]) -> dict[str, Any]:
    """Both by their figures; a ValueError if they were not measured alike."""
    settings = [{name: one["settings"][name] for name in SETTINGS} for one in (few, many)]
    if settings[0] != settings[1]:
        raise ValueError(
            f"Both files must be of the same pictures, seed and sizes; got {settings[0]} and {settings[1]}."
        )
    steps = [one["settings"]["call"]["num_inference_steps"] for one in (few, many)]
    return {"settings": settings[0], "steps": steps, "few": figures(few), "many": figures(many)}


def table(found: dict[str, Any]) -> str:
    few, many = found["steps"]
    lines = [f"| | {many} steps | {few} steps, distilled |", "|-|-:|-:|"]
    return "\n".join(
        [*lines, *(f"| {name} | {found['many'][name]:.3f} | {value:.3f} |" for name, value in found["few"].items())]
    )


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    found = compare(*(json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:]))
    OUTPUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
