"""What a run says of itself while it goes on: records of losses and speed."""

import json
import time
from pathlib import Path

from accelerate import Accelerator


class Journal:
    """Log records: kept, sent to the trackers, appended to `log.jsonl`."""

    def __init__(self, accelerator: Accelerator, output_dir: str):
        self.accelerator, self.path = accelerator, Path(output_dir, "log.jsonl")
        self.records: list[dict[str, float]] = []

    def write(self, record: dict[str, float]) -> None:
        self.records.append(record)
        self.accelerator.log({k: v for k, v in record.items() if k != "step"}, step=int(record["step"]))
        if self.accelerator.is_main_process:
            with open(self.path, "a") as log:
                log.write(json.dumps(record) + "\n")


class Meter:
    """Mean loss and speed since they were last read."""

    def __init__(self, samples_per_batch: int):
        self.samples_per_batch = samples_per_batch
        self._restart()

    def _restart(self) -> None:
        self.total, self.batches, self.since = 0.0, 0, time.time()

    def add(self, loss: float) -> None:
        self.total, self.batches = self.total + loss, self.batches + 1

    def read(self) -> dict[str, float]:
        speed = self.batches * self.samples_per_batch / (time.time() - self.since)
        result = {"loss": self.total / self.batches, "samples_per_second": round(speed, 2)}
        self._restart()
        return result
