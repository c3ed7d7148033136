"""The text of the model card, and its sections."""

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

from ..granularities import GRANULARITIES
from ..mg_bench.tables import TRACKS, methods_table, parts, percent, table
from ..mg_bench.targets import targets_table


# Settings that name a place on the machine of the run; they are nobody's business.
PLACES = {"train_data_dir", "output_dir", "cache_dir", "resume_from_checkpoint", "init_from", "vae"}

# The entries of `ratio_to_stock_step` of benchmarks/speed.py, for people.
TIMED: dict[str, str] = tomllib.loads(Path(__file__).with_name("timed.toml").read_text(encoding="utf-8"))


# What writes the measurements of a model, in a folder.
COMMANDS = {
    "bench.json": "mg-diffusion bench --model {0} --data PICTURES -o {0}/bench.json --pictures {0}/bench",
    "speed.json": "python benchmarks/speed.py --model {0} -o {0}/speed.json",
    "training.json": "mg-diffusion export RUN/weights -o {0} --force",
}


def read(folder: Path, name: str) -> dict[str, Any]:
    """A file of measurements."""
    path = folder / name
    if not path.is_file():
        written = f" This writes it: {COMMANDS[name].format(shlex.quote(str(folder)))}" if name in COMMANDS else ""
        raise ValueError(f"{path} is missing, or no file.{written}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error


def fill(name: str, **fields: Any) -> str:
    """A template with its fields."""
    text = (Path(__file__).parent / "templates" / f"{name}.md").read_text(encoding="utf-8")
    return text.rstrip().format(**fields)


def model_card(folder: Path) -> str:
    """The text of the folder's README.md.

    Raises:
        ValueError: if one of the three measurement files is missing, or an entry the card needs.
    """
    bench, speed, training = (read(folder, f"{name}.json") for name in ("bench", "speed", "training"))
    missing = [name for name in ("parameters", "resolution") if name not in training]
    if missing:
        raise ValueError(f"{folder / 'training.json'} lacks {', '.join(missing)}.")
    told = {name: value for name, value in sorted(training.items()) if name not in PLACES and value is not None}
    settings = "\n".join(["| setting | value |", "|-|-|", *(f"| {name} | {value} |" for name, value in told.items())])
    card = fill(
        "model_card",
        index=model_index(bench),
        parameters=training["parameters"] / 1e6,
        resolution=training["resolution"],
        targets=targets_table(bench),
        measured="\n\n".join(f"### {title}\n\n{text}" for title, text in parts(bench)),
        other_data=other_data(folder),
        baselines=baselines(folder),
        controls=controls(folder),
        octaves=octaves(folder),
        speed=speed_table(speed),
        training=settings,
    )
    return f"{card}\n"


def model_index(bench: dict[str, Any]) -> str:
    """The `model-index` of the front matter: top-1 retrieval of both tracks, and the dominance of the leakage matrices."""
    settings = bench["settings"]
    tracks = {"synthetic": TRACKS["synthetic"], "photographic": f"{settings['data']} ({settings['split'] or 'all'})"}
    results = []
    for track, data in tracks.items():
        metrics = []
        if f"retrieval_{track}" in bench:
            method = bench[f"retrieval_{track}"]["method"]
            metrics += [(f"{name}, own reference nearest", method["top1"][name]["mean"]) for name in GRANULARITIES]
            metrics.append(("all three nearest", method["joint"]["mean"]))
        if f"leakage_{track}" in bench:
            dominance = bench[f"leakage_{track}"]["method"]["by_everything"]["dominance"]["mean"]
            metrics.append(("leakage matrix, diagonal minus rest", dominance))
        rows = [
            {"type": name.replace(", ", "_").replace(" ", "_"), "name": name, "value": round(value, 4)}
            for name, value in metrics
        ]
        if rows:
            task = {"type": "image-to-image", "name": "crossed references"}
            results.append({"task": task, "dataset": {"type": track, "name": data}, "metrics": rows})
    return "model-index: " + json.dumps([{"name": settings["model"].split()[0], "results": results}])


def speed_table(speed: dict[str, Any]) -> str:
    """Markdown table of the ratios of `speed.json`."""
    place = f"{speed['settings']['cores']} CPU cores" if speed["settings"]["device"] == "cpu" else "GPU"
    ratios = speed["ratio_to_stock_step"]
    order = [*(name for name in TIMED if name in ratios), *(name for name in ratios if name not in TIMED)]
    rows = (f"| {TIMED.get(name, name)} | {ratios[name]:.2f} |" for name in order)
    return "\n".join([f"| in steps of the stock UNet, {place} | |", "|-|-|", *rows])


def other_data(folder: Path) -> str:
    """What was measured on other pictures, from `other_data/*.json` in the folder; empty where nothing was."""
    texts = []
    for path in sorted(folder.glob("other_data/*.json")):
        bench = read(path.parent, path.name)
        settings = bench["settings"]
        if "tracks" in bench:  # of `benchmarks.octaves`
            texts.append(fill("other_octaves", table=octaves_table(bench), **settings))
            continue
        texts.append(fill("other_data", data=settings["data"], count=settings["pictures"]))
        texts += [f"{title}:\n\n{text}" for title, text in parts(bench)]
    return "\n\n".join(texts)


def baselines(folder: Path) -> str:
    """The section on other methods, from `baselines/*.json` in the folder; empty where none was measured."""
    results = []
    for path in sorted(folder.glob("baselines/*.json")):
        result = read(path.parent, path.name)
        results.append({**result, "settings": {**result["settings"], "model": path.stem}})  # not the folder it lay in
    if not results:
        return ""
    text = fill("baselines")
    for track in ("photographic", "synthetic"):
        benched = [result for result in results if f"retrieval_{track}" in result]
        if benched:
            text += f"\n\nOwn reference nearest, {TRACKS[track]}:\n\n{methods_table(benched, track)}"
    return text


def octaves_table(found: dict[str, Any]) -> str:
    """Markdown table of `octaves.json`: crossings at the sizes that octaves reach."""
    names = ("color", "texture", "texture by Gram", "shape", "recognition")
    rows = []
    for track, result in found["tracks"].items():
        for method, row in result["methods"].items():
            cells = [f"{row[one]['nearest']:.2f} / {row[one]['pairwise']:.2f}" if one in row else "-" for one in names]
            cells += [f"{row['all three']:.2f}", f"{row['sharpness']:.2f}", str(row.get("naturalness", "-"))]
            cells.append(f"{row['diversity']:.3f}" if "diversity" in row else "-")
            rows.append([f"{track}, {result['size']} px: {method}", *cells])
    return table(["", *names, "all three", "sharpness", "naturalness", "diversity"], rows)


def octaves(folder: Path) -> str:
    """The section on larger pictures, from `octaves.json`; empty where they were not measured."""
    if not (folder / "octaves.json").is_file():
        return ""
    found = read(folder, "octaves.json")
    return fill("octaves", table=octaves_table(found), **found["settings"])


def controls(folder: Path) -> str:
    """The section on further controls, from `control_surface.json`; empty where they were not measured."""
    if not (folder / "control_surface.json").is_file():
        return ""
    found = read(folder, "control_surface.json")
    columns = [*GRANULARITIES, "color_by_histogram"]
    kinds = [
        [kind, *(percent(shares[name]) for name in columns)] for kind, shares in found["feature_guidance"].items()
    ]
    response = found["strength_response"].items()
    costs = sorted(found["cost_over_plain_call"].items())
    return fill(
        "controls",
        count=found["settings"]["count"],
        guidance=table(["%", *GRANULARITIES, "color, by histograms"], kinds),
        share=100 * found["two_palettes"]["share"],
        halves=found["two_palettes"]["halves"],
        response=", ".join(f"{name} {one['rank_correlation']:.2f}" for name, one in response),
        with_context=found["context_color_distance"]["with"],
        without_context=found["context_color_distance"]["without"],
        costs=", ".join(f"{name.replace('_', ' ')} {ratio:.2f}" for name, ratio in costs),
    )
