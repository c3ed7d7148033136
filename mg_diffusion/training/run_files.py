"""What a run left behind in its folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .arguments import STAGES


@dataclass
class Run:
    """What a run left behind.

    Attributes:
        steps: figures by step, in order; those that a resumed run wrote again are the later ones.
        seconds: time spent, pauses and repeated steps included; `None` where the log does not tell.
        damaged: numbers of the lines of `log.jsonl` that cannot be read.
    """

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    steps: dict[int, dict[str, float]]
    seconds: float | None
    damaged: list[int]

    @property
    def samples(self) -> int:
        per_step = self.config["train_batch_size"] * self.config["gradient_accumulation_steps"]
        sharing = 1 if self.config.get("split_batches") else self.environment.get("processes", 1)
        return max(self.steps) * per_step * sharing

    @property
    def kind(self) -> str:
        """The stage, or "text" where a base was trained without references."""
        return "text" if self.config.get("text_only") else self.config["stage"]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of a figure."""
        found = {step: figures[name] for step, figures in self.steps.items() if name in figures}
        return list(found), list(found.values())

    def names(self, beginning: str) -> list[str]:
        return list(dict.fromkeys(n for figures in self.steps.values() for n in figures if n.startswith(beginning)))


def read_run(output_dir: str | Path) -> Run:
    """Read the files of a run.

    Raises:
        ValueError: if the folder holds no run, or one without a readable record or without weights.
    """
    folder = Path(output_dir)
    missing = [n for n in ("training_config.json", "log.jsonl", "weights") if not Path(folder, n).exists()]
    if missing:
        raise ValueError(
            f"{str(folder)!r} holds no run with a checkpoint, for {', '.join(missing)} is missing. Give the --output_dir of "
            f"a training, after its first checkpoint."
        )
    config = json.loads((folder / "training_config.json").read_text(encoding="utf-8"))
    if config.get("stage") not in STAGES:
        raise ValueError(
            f"{str(folder / 'training_config.json')!r} names the stage {config.get('stage')!r}, not {STAGES}."
        )
    path = folder / "environment.json"
    environment = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    steps: dict[int, dict[str, float]] = {}
    sessions, damaged = [], []
    for number, line in enumerate((folder / "log.jsonl").read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            step = int(record.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged.append(number)
            continue
        steps[step] = {**steps.get(step, {}), **record}
        if "elapsed" in record:
            if sessions and record["elapsed"] >= sessions[-1]:
                sessions.pop()
            sessions.append(record["elapsed"])
    if not steps:
        raise ValueError(f"{str(folder / 'log.jsonl')!r} has no readable record.")
    return Run(folder, config, environment, dict(sorted(steps.items())), sum(sessions) or None, damaged)
