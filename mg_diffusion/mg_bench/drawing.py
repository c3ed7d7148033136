"""What a run of MG-Bench found, as pictures: grids of outputs, leakage matrices, slider curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from matplotlib.figure import Figure  # not pyplot, which keeps figures alive and looks for a screen

from mg_diffusion.evaluation.metrics import Pictures, describe, distances
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.recipe import replacing, save_png

from .sections import Bench, photographic_triples, synthetic_triples


COLUMNS = 12
Row = tuple[str, Pictures]


def draw_all(bench: Bench, result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write grid.png, failures.png, pairs.png and plots.png, those that the sections that were run allow."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"grid.png": grid_rows(bench), "failures.png": failure_rows(bench), "pairs.png": pair_rows(bench, result)}
    paths = []
    for name, rows in drawn.items():
        if rows:
            paths.append(folder / name)
            save_png(picture_grid(rows), paths[-1], {"command": "bench", **result["settings"]})
    figure = plots(result)
    if figure is not None:
        paths.append(folder / "plots.png")
        with replacing(paths[-1]) as part:
            figure.savefig(part, dpi=110, format="png")
    return paths


def picture_grid(rows: Sequence[Row]) -> PIL.Image.Image:
    """Pictures (H, W, 3) in [0, 1] of one size, a labeled row for each (label, pictures)."""
    height, width = rows[0][1][0].shape[:2]
    label, gap = 84, 4
    columns = max(len(pictures) for _, pictures in rows)
    image = PIL.Image.new("RGB", (label + columns * (width + gap), len(rows) * (height + gap)), "white")
    draw = PIL.ImageDraw.Draw(image)
    font = PIL.ImageFont.load_default(size=14)
    for y, (name, pictures) in enumerate(rows):
        draw.text((6, y * (height + gap) + height // 2), name, fill="black", anchor="lm", font=font)
        for x, picture in enumerate(pictures):
            pixels = PIL.Image.fromarray((picture * 255).round().astype(np.uint8))
            image.paste(pixels, (label + x * (width + gap), y * (height + gap)))
    return image


def grid_rows(bench: Bench) -> list[Row]:
    """The first triples of each track, and what was made of them."""
    rows = []
    if "synthetic" in bench.made:
        shown = synthetic_triples(bench)[:COLUMNS]
        rows += _reference_rows(bench.rendered.pictures, shown)
        rows.append(("output", bench.made["synthetic"][:: bench.sizes.synthetic_seeds][:COLUMNS]))
        rows.append(("true answer", [bench.rendered.oracle(triple) for triple in shown]))
    if "photographic" in bench.made:
        rows += _reference_rows(bench.photographs.pictures, photographic_triples(bench)[:COLUMNS])
        rows.append(("output", bench.made["photographic"][:COLUMNS]))
    return rows


def failure_rows(bench: Bench) -> list[Row]:
    """The outputs of photographs that are farthest from their references, all three attributes counting alike."""
    if "photographic" not in bench.made:
        return []
    triples, made, pool = photographic_triples(bench), bench.made["photographic"], bench.photographs.pictures
    references = {place: describe(pool[place]) for triple in triples for place in triple.values()}
    found = []
    for triple, picture in zip(triples, made, strict=True):
        output = describe(picture)
        found.append([distances(output, references[triple[name]])[name] for name in GRANULARITIES])
    far = (np.array(found) / np.mean(found, 0)).sum(1)
    worst = np.argsort(-far)[:COLUMNS]
    rows = _reference_rows(pool, [triples[place] for place in worst])
    return [*rows, ("output", [made[place] for place in worst])]


def pair_rows(bench: Bench, result: Mapping[str, Any]) -> list[Row]:
    """The outputs nearest to a training picture, over that picture."""
    if "memorisation" not in result:
        return []
    pairs = result["memorisation"]["pixels"]["worst"]
    nearest = [np.asarray(bench.training[pair["train"]]) for pair in pairs]
    turned = [picture[:, ::-1] if pair["flipped"] else picture for pair, picture in zip(pairs, nearest, strict=True)]
    return [("output", [bench.made["photographic"][pair["sample"]] for pair in pairs]), ("training", turned)]


def plots(result: Mapping[str, Any]) -> Figure | None:
    """The leakage matrices and the slider curves, those that were run."""
    matrices = [name for name in ("leakage_synthetic", "leakage_photographic") if name in result]
    panels = len(matrices) + ("response" in result)
    if not panels:
        return None
    figure = Figure(figsize=(4 * panels, 3.6), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for ax, name in zip(axes, matrices, strict=False):
        _draw_matrix(ax, result[name]["method"]["by_everything"]["matrix"])
        ax.set_title(name.replace("_", ", "))
    if "response" in result:
        _draw_curves(axes[-1], result["response"])
    return figure


def _reference_rows(pool: Pictures, triples: Sequence[Mapping[str, int]]) -> list[Row]:
    return [(name, [pool[triple[name]] for triple in triples]) for name in GRANULARITIES]


def _draw_matrix(ax: Any, matrix: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    values = np.array([[matrix[swap][name]["mean"] for name in GRANULARITIES] for swap in GRANULARITIES])
    ax.imshow(values, vmin=0, vmax=1, cmap="Blues")
    ax.set_xticks(range(3), [f"{name}\nmoves" for name in GRANULARITIES])
    ax.set_yticks(range(3), [f"swap\n{name}" for name in GRANULARITIES])
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black")


def _draw_curves(ax: Any, response: Mapping[str, Any]) -> None:
    for name in GRANULARITIES:
        curve = response[name]["curve"]
        start = curve[0]["mean"] or 1.0
        strengths = [point["strength"] for point in curve]
        ax.plot(strengths, [point["mean"] / start for point in curve], marker="o", label=name)
        low, high = ([point[end] / start for point in curve] for end in ("low", "high"))
        ax.fill_between(strengths, low, high, alpha=0.15)
    ax.set_xlabel("strength")
    ax.set_title("distance to the reference,\nover that at strength 0")
    ax.legend()
