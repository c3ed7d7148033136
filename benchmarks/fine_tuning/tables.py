"""The figures of `measure` as tables of docs/fine-tuning.md."""

from typing import Any

from mg_diffusion.training.arguments import FINE_TUNING, build_parser


SCORES = ("color", "texture", "shape", "all three")
TRACKS = {"pictures": "held-out pictures", "rendered": "rendered triples"}


def recipe_table() -> str:
    """The defaults of fine-tuning beside those of training from nothing."""
    needed = ["base", "--train_data_dir", "", "--output_dir", ""]
    usual = vars(build_parser().parse_args(needed))
    lines = ["| flag | with `--init_from` | from nothing |", "|-|-:|-:|"]
    return "\n".join(lines + [f"| `--{name}` | {value:g} | {usual[name]:g} |" for name, value in FINE_TUNING.items()])


def figures_table(found: dict[str, Any]) -> str:
    """Own references nearest of 32 by track, and the loss of held-out samples, of every model."""
    lines = [
        "| own reference nearest of 32, % | " + " | ".join(SCORES) + " | edits, dB | validation loss |",
        "|-|" + "-:|" * (len(SCORES) + 2),
    ]
    for track, title in TRACKS.items():
        for name, one in found["models"].items():
            scores = one["retrieval"][track]
            cells = [_percent(scores[key]) for key in SCORES]
            is_own = track == "pictures"
            cells += [f"{one['edits_psnr']['mean']:.2f}", f"{one['held_out']['val_loss']:.4f}"] if is_own else ["", ""]
            lines.append(f"| {title}: {name} | {' | '.join(cells)} |")
    counts = {track: one["triples"] for track, one in found["models"]["before"]["retrieval"].items()}
    lines += [
        "",
        f"{counts['pictures']} crossed triples of the held-out pictures, {counts['rendered']} rendered ones; 95 % intervals in "
        "brackets; 1 of 32 is chance. Edits: PSNR inside holes of held-out pictures, without references.",
    ]
    for name, one in found["models"].items():
        if "minutes" in one:
            flags = one["flags"]
            seen = flags["max_train_steps"] * flags["train_batch_size"]
            lines.append(f"`{name}`: {one['minutes']:.0f} minutes for {seen:,} samples, validation included.")
    return "\n".join(lines)


def _percent(figure: dict[str, float]) -> str:
    return f"{100 * figure['mean']:.1f} [{100 * figure['low']:.0f}, {100 * figure['high']:.0f}]"
