"""Write the figures of benchmarks/results into the pages of docs/ that show them: `python -m benchmarks.pages`."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.model_card import octaves_table

from .adapter_cost import table as adapter_cost_table
from .backends import OUTPUT as BACKENDS
from .backends import table as backends_table
from .bases import table as bases_table
from .demo_load import OUTPUT as DEMO_LOAD
from .demo_load import table as demo_load_table
from .edits import clear, filling, moving, restoring
from .few_steps import OUTPUT as FEW_STEPS
from .few_steps import table_of as few_steps_table
from .few_steps_bench import OUTPUT as FEW_STEPS_BENCH
from .few_steps_bench import table as few_steps_bench_table
from .fine_tuning.tables import figures_table, recipe_table
from .real_size import table as speed_table
from .real_start import table as real_start_table
from .scaling import OUTPUT as SCALING
from .scaling import table as scaling_table
from .sizes import OUTPUT as SIZES
from .sizes import table as sizes_table
from .soak import DEFAULT_OUTPUT as SOAK
from .soak import table as soak_table
from .starts import OUTPUT as STARTS
from .starts import table as starts_table
from .training_speed import DEFAULT_OUTPUT as TRAINING_SPEED
from .training_speed import text as training_speed_text
from .unadapted import DEFAULT_OUTPUT as UNADAPTED
from .unadapted import cost_table
from .unadapted import table as unadapted_table


RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    "bases",
    "training",
    "fine-tuning",
    "demo",
    "detail",
    "edits",
    "loading",
    "few-steps",
    "your-checkpoint",
    "reliability",
)
PAGES = tuple(ROOT / "docs" / f"{name}.md" for name in NAMES)
(
    PAGE,
    TRAINING,
    FINE_TUNING_PAGE,
    DEMO_PAGE,
    DETAIL_PAGE,
    EDITS_PAGE,
    LOADING,
    FEW_STEPS_PAGE,
    CHECKPOINT_PAGE,
    RELIABILITY,
) = PAGES
BASELINES = ROOT / "hub_cards" / "mg-bazaar" / "baselines"


def read(place: Path) -> dict[str, Any]:
    return json.loads(place.read_text(encoding="utf-8"))


def scores(found: dict[str, Any], track: str) -> list[float]:
    """Own reference nearest of 32 for color, texture and shape, and all three; in percent."""
    method = found[track]["method"]
    return [100 * method["top1"][name]["mean"] for name in GRANULARITIES] + [100 * method["joint"]["mean"]]


def share_table() -> str:
    """What an adapter on a frozen base without our parts reaches, and its share of the others."""
    runs = {
        "stage `adapter` on the frozen, text-only base": read(RESULTS / "adapter_stage.json"),
        "the same budget on the frozen base that learned along": read(BASELINES / "mg_adapter.json"),
        "the shipped model, trained jointly": read(BASELINES / "mg-bazaar.json"),
    }
    budgets = [
        f"`{name}`: {run['max_train_steps']:,} steps of {run['train_batch_size']}, learning rate {run['learning_rate']:g}, "
        f"`--snr_gamma {run['snr_gamma']:g}`"
        for name, run in sorted(read(RESULTS / "adapter_stage_runs.json").items(), reverse=True)
    ]
    lines = [
        "; ".join(budgets) + ".",
        "",
        "| own reference nearest of 32, % | color | texture | shape | all three |",
        "|-|-:|-:|-:|-:|",
    ]
    for track, name in (("retrieval_synthetic", "rendered"), ("retrieval_photographic", "photographs")):
        rows = {label: scores(run, track) for label, run in runs.items()}
        lines += [
            f"| {name}: {label} | " + " | ".join(f"{one:.1f}" for one in row) + " |" for label, row in rows.items()
        ]
        first, *_, joint = rows.values()
        shares = [f"{100 * a / b:.0f} %" if b else "-" for a, b in zip(first, joint, strict=True)]
        lines.append(f"| {name}: share of the shipped model's | " + " | ".join(shares) + " |")
    return "\n".join(lines)


def speed_text() -> str:
    found = read(RESULTS / "real_size.json")
    settings = found["settings"]
    mode = "compiled" if settings["compiled"] else "eager"
    where = "{device}, {threads} threads, {dtype}, latents of {side} x {side}, batch 2".format(**settings)
    return f"{where}, {mode}:\n\n{speed_table(found['methods'])}"


def blocks_of(place: Path) -> dict[str, str]:
    """What the marked blocks of a page should hold."""
    if place == TRAINING:
        tables = {"scaling": (SCALING, scaling_table), "training-speed": (TRAINING_SPEED, training_speed_text)}
        return {name: made(read(Path(place))) for name, (place, made) in tables.items() if Path(place).exists()}
    if place == FINE_TUNING_PAGE:
        return {"recipe": recipe_table(), "fine-tuning": figures_table(read(RESULTS / "fine_tuning.json"))}
    if place == DETAIL_PAGE:
        card = ROOT / "hub_cards" / "mg-bazaar"
        figures, elsewhere = (octaves_table(read(card / name)) for name in ("octaves.json", "other_data/octaves.json"))
        return {"octaves": figures, "elsewhere": elsewhere, "sizes": sizes_table(read(SIZES))}
    if place == FEW_STEPS_PAGE:
        tables = {
            "few-steps": (FEW_STEPS, few_steps_table),
            "few-steps-bench": (FEW_STEPS_BENCH, few_steps_bench_table),
            "backends": (BACKENDS, backends_table),
        }
        return {name: made(read(place)) for name, (place, made) in tables.items() if place.exists()}
    if place == EDITS_PAGE:
        found = read(RESULTS / "edits.json")
        moved = {name: found[name] for name in ("recoloring", "retexturing")}
        return {
            "filling": filling.table(found["filling"]),
            "small-filling": filling.table(found["small_filling"]),
            "clear-areas": clear.table(found["clear_areas"]),
            "moving": moving.table(moved),
            "restoring": restoring.table(found["restoring"]),
        }
    if place == RELIABILITY:
        return {"soak": soak_table(read(ROOT / SOAK))}
    if place == CHECKPOINT_PAGE:
        found = read(ROOT / UNADAPTED)
        started = real_start_table(read(RESULTS / "real_start.json"))
        taken = adapter_cost_table(read(RESULTS / "adapter_cost.json"))
        return {
            "unadapted": unadapted_table(found),
            "unadapted-text-only": unadapted_table(read(RESULTS / "unadapted_text_only.json")),
            "cost": cost_table(found),
            "adapter-cost": taken,
            "real-start": started,
        }
    if place == LOADING:
        return {"starts": starts_table(read(STARTS))}
    if place == DEMO_PAGE:
        return {"load": demo_load_table(read(DEMO_LOAD))}
    return {"bases": bases_table(read(RESULTS / "bases.json")["bases"]), "share": share_table(), "speed": speed_text()}


def rewritten(page: str, place: Path = PAGE) -> str:
    """The text of a page with each marked block made anew."""
    for name, text in blocks_of(place).items():
        page, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, t=text: f"{m[1]}{t}\n{m[2]}", page, flags=re.DOTALL
        )
        if count != 1:
            raise ValueError(f"{place.name} must have one block `<!-- {name} -->` ... `<!-- end -->`, it has {count}.")
    return page


def main() -> int:
    for place in PAGES:
        place.write_text(rewritten(place.read_text(encoding="utf-8"), place), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
