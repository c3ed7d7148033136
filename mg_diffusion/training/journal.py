"""What a run says of itself while it goes on: records of losses and speed."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator

from .checkpoints import writing


class Journal:
    """Log records: kept, sent to the trackers, appended to `log.jsonl`.

    Args:
        records: those of the run until it was interrupted, which the file holds already.
    """

    def __init__(self, accelerator: Accelerator, output_dir: str, records: Sequence[dict[str, float]] = ()):
        self.accelerator, self.path = accelerator, Path(output_dir, "log.jsonl")
        self.records = [*records]

    def at(self, step: int) -> list[dict[str, float]]:
        return [record for record in self.records if record["step"] == step]

    def write(self, record: dict[str, float]) -> None:
        self.records.append(record)
        self.accelerator.log({k: v for k, v in record.items() if k != "step"}, step=int(record["step"]))
        if self.accelerator.is_main_process:
            with writing("A record of the log", self.path.parent), open(self.path, "a") as log:
                log.write(json.dumps(record) + "\n")
                log.flush()
                os.fsync(log.fileno())  # a checkpoint that outlives a crash has its records


class Meter:
    """Mean loss and speed since they were last read; what the loss is made of goes along with a checkpoint."""

    def __init__(self, samples_per_batch: int):
        self.samples_per_batch = samples_per_batch
        self._restart()

    def _restart(self) -> None:
        self.total, self.batches, self.timed, self.since = 0.0, 0, 0, time.time()

    def state_dict(self) -> dict[str, float]:
        return {"total": self.total, "batches": self.batches}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.total, self.batches = state["total"], state["batches"]

    def add(self, loss: float) -> None:
        self.total, self.batches, self.timed = self.total + loss, self.batches + 1, self.timed + 1

    def read(self) -> dict[str, float]:
        speed = self.timed * self.samples_per_batch / (time.time() - self.since)
        result = {"loss": self.total / self.batches, "samples_per_second": round(speed, 2)}
        self._restart()
        return result
