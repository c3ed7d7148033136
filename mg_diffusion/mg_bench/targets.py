"""What the embedded default is meant to reach, beside what it reaches. Reads nothing but the figures of a run."""

from collections.abc import Iterator, Mapping
from typing import Any

from mg_diffusion.granularities import GRANULARITIES

from .tables import TRACKS, table


# Own reference nearest of 32, by track.
NEAREST = {
    "synthetic": {"color": 0.90, "texture": 0.60, "shape": 0.95, "joint": 0.50},
    "photographic": {"color": 0.80, "texture": 0.35, "shape": 0.80},
}
Target = tuple[str, float, float, bool]  # what, measured, wanted, whether more is better


def targets(result: Mapping[str, Any]) -> Iterator[Target]:
    """The targets whose sections were run."""
    for track in NEAREST:
        if f"retrieval_{track}" in result:
            yield from _retrieval(result[f"retrieval_{track}"]["method"], track)
    for track in NEAREST:
        if f"leakage_{track}" in result:
            yield from _leakage(result[f"leakage_{track}"]["method"]["by_everything"], track)
    if "response" in result:
        for name in GRANULARITIES:
            yield (
                f"slider response, rank correlation, {name}",
                result["response"][name]["spearman_of_mean"],
                0.95,
                True,
            )
    if "editing_fidelity" in result:
        yield from _editing(result["editing_fidelity"])
    if "editing_control" in result and "retrieval_photographic" in result:
        hole, whole = (result[name]["method"]["top1"] for name in ("editing_control", "retrieval_photographic"))
        for name in GRANULARITIES:
            share = hole[name]["mean"] / max(whole[name]["mean"], 1e-6)
            yield f"own reference nearest inside a hole, share of the whole picture's, {name}", share, 0.8, True
    if "diversity" in result:
        yield "diversity over seeds, of real variance", result["diversity"]["ratio"]["mean"], 0.3, True
    if "memorisation" in result:
        yield "memorisation, AUC of pixels", result["memorisation"]["pixels"]["auc"]["mean"], 0.40, True


def _retrieval(method: Mapping[str, Any], track: str) -> Iterator[Target]:
    for name, wanted in NEAREST[track].items():
        found = method["joint"] if name == "joint" else method["top1"][name]
        title = "all three" if name == "joint" else name
        yield f"own reference nearest, {TRACKS[track]}, {title}", found["mean"], wanted, True
    worst = max(method["leak"][name]["mean"] for name in GRANULARITIES)
    yield f"another reference nearest, {TRACKS[track]}, worst", worst, 0.05, False


def _leakage(figures: Mapping[str, Any], track: str) -> Iterator[Target]:
    cells = {(swap, name): figures["matrix"][swap][name]["mean"] for swap in GRANULARITIES for name in GRANULARITIES}
    least = min(value for (swap, name), value in cells.items() if swap == name)
    worst = max(value for (swap, name), value in cells.items() if swap != name)
    yield f"leakage, {TRACKS[track]}, least of the diagonal", least, 0.80, True
    yield f"leakage, {TRACKS[track]}, largest other cell", worst, 0.25, False
    yield f"leakage, {TRACKS[track]}, diagonal minus the rest", figures["dominance"]["mean"], 0.65, True


def _editing(found: Mapping[str, Any]) -> Iterator[Target]:
    method, lines = found["method"], found["reference_lines"]
    yield "edits: pixels changed outside the mask", float(method["exactness"]["pixels"]), 0.0, False
    if "telea" in lines:
        gain = method["psnr"]["mean"] - lines["telea"]["psnr"]["mean"]
        yield "edits without references: PSNR over Telea's, dB", gain, 1.0, True
    yield "edits without references: seam ratio", method["seam"]["mean"], 1.2, False


def targets_table(result: Mapping[str, Any]) -> str:
    """One row for each target: what it is, what was measured, and whether it is held."""
    rows = []
    for title, measured, wanted, is_more in targets(result):
        held = measured >= wanted if is_more else measured <= wanted
        rows.append([title, f"{measured:.3f}", f"{'>=' if is_more else '<='} {wanted:g}", "yes" if held else "**no**"])
    return table(["target", "measured", "wanted", "held"], rows)
