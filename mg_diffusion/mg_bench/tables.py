"""What a run of MG-Bench found, as markdown. Reads nothing but the figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from mg_diffusion.granularities import GRANULARITIES


TRACKS = {"synthetic": "rendered pictures", "photographic": "photographs"}
LINES = {
    "oracle": "the true answer",
    "copy_color": "copy the color reference",
    "copy_texture": "copy the texture reference",
    "copy_shape": "copy the shape reference",
    "reinhard": "Reinhard color transfer onto the shape reference",
    "random_picture": "a random picture",
    "source": "the hole left as it was",
    "unfilled": "the hole left gray",
    "biharmonic": "biharmonic (scikit-image)",
    "telea": "Telea (OpenCV)",
    "navier_stokes": "Navier-Stokes (OpenCV)",
}


def percent(figure: Mapping[str, float] | float) -> str:
    """A figure of `mg_diffusion.evaluation` in percent, with its 95 % interval if it has one."""
    if isinstance(figure, float):
        return f"{100 * figure:.1f}"
    return f"{100 * figure['mean']:.1f} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


def plain(figure: Mapping[str, float], digits: int = 2) -> str:
    """A figure and its 95 % interval as they are."""
    return f"{figure['mean']:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def retrieval_table(found: Mapping[str, Any], method: str, share: str = "top1") -> str:
    """Rows: the method, then every reference line and chance. `share`: "top1", "pairwise", "mrr" or "leak"."""
    rows = {f"**{method}**": found["method"]}
    rows |= {LINES.get(name, name): row for name, row in found["reference_lines"].items()}
    rows["chance"] = found["chance"]
    is_joint = share == "top1"  # what "joint" counts
    cells = [
        [name, *(percent(row[share][one]) for one in GRANULARITIES), *([percent(row["joint"])] if is_joint else [])]
        for name, row in rows.items()
    ]
    return table(["%", *GRANULARITIES, *(["all three nearest"] if is_joint else [])], cells)


def leakage_table(figures: Mapping[str, Any], name: str = "by_everything") -> str:
    """Rows: the reference that was swapped. Columns: the attribute that moved."""
    matrix = figures[name]["matrix"]
    rows = [[f"swap {swap}", *(plain(row[attribute]) for attribute in GRANULARITIES)] for swap, row in matrix.items()]
    return table(["", *(f"{attribute} moves" for attribute in GRANULARITIES)], rows)


def dominance_of(found: Mapping[str, Any]) -> str:
    """Mean of the diagonal minus mean of the rest, of the method and of the reference lines."""
    lines = {LINES.get(name, name): row for name, row in found["reference_lines"].items()}
    others = "; ".join(f"{name}: {plain(row['by_everything']['dominance'])}" for name, row in lines.items())
    return f"Diagonal minus the rest: {plain(found['method']['by_everything']['dominance'])} ({others})."


def editing_table(found: Mapping[str, Any], method: str) -> str:
    rows = {f"**{method}**": found["method"]}
    rows |= {LINES.get(name, name): row for name, row in found["reference_lines"].items()}
    cells = [
        [name, str(row["exactness"]["pixels"]), plain(row["seam"]), plain(row["psnr"]), plain(row["ssim"])]
        for name, row in rows.items()
    ]
    return table(["", "pixels changed outside", "seam ratio", "PSNR inside, dB", "SSIM inside"], cells)


def quality_table(found: Mapping[str, Any]) -> str:
    rows = [
        [title, *(plain(found[name][key], 4) for key in ("frechet", "kernel", "sliced_wasserstein"))]
        for name, title in (
            ("samples", "outputs of crossed references"),
            ("reconstructions", "real pictures through the autoencoder"),
            ("real", "other real pictures (floor)"),
        )
        if name in found
    ]
    return table([f"{found['features']} features", "Frechet", "kernel", "sliced Wasserstein"], rows)


def response_table(found: Mapping[str, Any]) -> str:
    rows = [
        [name, f"{row['spearman_of_mean']:.2f}", plain(row["spearman"]), "yes" if row["monotone"] else "no"]
        for name, row in ((name, found[name]) for name in GRANULARITIES)
    ]
    return table(["", "rank correlation of the mean curve", "of each triple", "monotone"], rows)


def diversity_text(found: Mapping[str, Any]) -> str:
    return f"Variance over seeds under fixed references, over that of real pictures: {plain(found['ratio'])}."


def memorisation_text(found: Mapping[str, Any]) -> str:
    rows = [[name, plain(found[name]["auc"])] for name in ("pixels", "features") if name in found]
    note = "0.5: outputs are no nearer to training pictures than held-out pictures are; 0: all are copies."
    return f"{table(['compared by', 'AUC'], rows)}\n\n{note}"


def methods_table(results: Sequence[Mapping[str, Any]], track: str) -> str:
    """One row for each method that was benched on a track, "synthetic" or "photographic", with its Frechet distance."""
    rows = []
    for result in results:
        found = result[f"retrieval_{track}"]["method"]
        quality = plain(result["quality"]["samples"]["frechet"], 3) if "quality" in result else ""
        rows.append(
            [
                result["settings"]["model"],
                *(percent(found["top1"][one]) for one in GRANULARITIES),
                percent(found["joint"]),
                quality,
            ]
        )
    return table(["%", *GRANULARITIES, "all three nearest", "Frechet distance, photographs"], rows)


def markdown(result: Mapping[str, Any], heading: str = "##") -> str:
    """All sections of a result that were run, each under its heading."""
    return "\n\n".join(f"{heading} {title}\n\n{text}" for title, text in parts(result))


def parts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(title, text) of each section that was run."""
    method, found = result["settings"]["model"], []
    for name, track in ((f"retrieval_{track}", title) for track, title in TRACKS.items()):
        if name in result:
            count = result[name]["settings"]["candidates"]
            found += [
                (f"Own reference nearest of {count}, {track}", retrieval_table(result[name], method)),
                (f"Own reference nearer than another, {track}", retrieval_table(result[name], method, "pairwise")),
                (f"Another reference nearest, {track}", retrieval_table(result[name], method, "leak")),
            ]
    for name, track in ((f"leakage_{track}", title) for track, title in TRACKS.items()):
        if name in result:
            text = f"{leakage_table(result[name]['method'])}\n\n{dominance_of(result[name])}"
            found.append((f"Leakage, {track}", text))
    texts = {
        "response": ("Sliders", response_table),
        "quality": ("Quality", quality_table),
        "editing_fidelity": ("Editing without references", lambda one: editing_table(one, method)),
        "editing_control": ("Editing with references", lambda one: retrieval_table(one, method)),
        "diversity": ("Diversity", diversity_text),
        "memorisation": ("Memorisation", memorisation_text),
    }
    return found + [(title, text(result[name])) for name, (title, text) in texts.items() if name in result]
