"""Training on more pictures than fit: one window of a stream after another (`--streaming`).

A window is the next so many rows that this process gets of the stream. Its pictures are read, their views made, and a
fixed number of samples drawn from them; then the next window takes its place. Window `k` is a function of the seed, the
process and `k`, so that sample `i` of a run still is one of (seed, `i`), and a resumed run goes on in the same window.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import Dataset

from .fingerprints import picture_fingerprint
from .pictures import REPORT, Limits, Pictures, account, limits_of, read_rows, source_of
from .settings import Data, RunSettings
from .skipping import Skipped
from .sources import READING_ERRORS, Row, Split, causes


class Windows:
    """Windows of the part of a stream that one process of a run gets, by their number.

    Each pass of the stream takes the shards in an order of its own. Pictures go to one process each: whole shards where
    their number is a multiple of that of the processes, single rows otherwise.

    Args:
        split: streamed.
        size: rows of a window. One that the stream ends in goes on with the next pass, but holds no more than one pass.
        rank, world: which of how many processes.
        folder: keeps where each window begins, so that a resumed run does not read again what lies before. Without it,
            or where the notes are of other data or settings, it does.
    """

    def __init__(
        self,
        split: Split,
        limits: Limits,
        size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        folder: str | Path | None = None,
    ):
        self.split, self.limits, self.size, self.seed = split, limits, size, seed
        self.rank, self.world = rank, world
        self.notes = Path(folder, f"stream-{rank}.jsonl") if folder else None
        identity = repr([split.source, split.source.version(split.name), split.name, size, seed, rank, world])
        self.key = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.next = 0  # the window that begins where the stream stands
        self._begin_pass(0)

    def __getitem__(self, window: int) -> Pictures:
        """Raises:
        ValueError: if too much of the window is skipped, or the stream cannot be read.
        """
        self._seek(window)
        skipped = Skipped({"split": self.split.name, "window": window})
        pictures = read_rows(self._window(), self.limits, self.seed, skipped)
        share = len(skipped) / max(1, len(skipped) + len(pictures or ()))
        return account(pictures, skipped, share, f"window {window} of {self.split}", self.limits)

    def _seek(self, window: int) -> None:
        """Stand where a window begins."""
        if window != self.next:
            self._go_to(self._nearest_note(window))
        while self.next < window:
            for _ in self._window():
                pass

    def _window(self) -> Iterator[Row]:
        """The rows of the next window."""
        self._take_note()
        is_whole = self.row == 0
        for taken in range(self.size):
            row = self._next_row()
            if row is None:
                self._begin_pass(self.number + 1)
                if is_whole and taken:
                    break
                row = self._next_row()
            if row is None:
                raise ValueError(
                    f"Process {self.rank} of {self.world} gets no row of {self.split}; use fewer processes."
                )
            yield row
        self.next += 1

    def _begin_pass(self, number: int, row: int = 0, state: dict[str, Any] | None = None) -> None:
        """Stand at a row of a pass over the stream; `state` is what the data noted there."""
        generator = np.random.default_rng([11, self.seed, number])
        # A buffer would be lost between two runs; a window is one.
        data = self.split.data.shuffle(generator=generator, buffer_size=1, max_buffer_input_shards=1)
        self.data: IterableDataset = split_dataset_by_node(data, self.rank, self.world)
        if state:
            self.data.load_state_dict(state)
        self.number, self.row, self.rows = number, row, iter(self.data)

    def _next_row(self) -> Row | None:
        try:
            record = next(self.rows, None)
        except READING_ERRORS as error:
            raise ValueError(f"{self.split} cannot be read on after row {self.row}: {causes(error)}") from error
        if record is None:
            return None
        self.row += 1
        return self.split.row(record, f"row {self.row - 1} of pass {self.number}, process {self.rank}")

    def _take_note(self) -> None:
        note = {"key": self.key, "window": self.next, "pass": self.number, "row": self.row}
        if self.notes and note not in [{name: line[name] for name in note} for line in self.noted]:
            line = json.dumps({**note, "state": self.data.state_dict() if self.row else None})
            self.noted.append(json.loads(line))
            with self.notes.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    @cached_property
    def noted(self) -> list[dict[str, Any]]:
        """The notes of this stream."""
        if not self.notes or not self.notes.exists():
            return []
        lines = []
        for line in self.notes.read_text("utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:  # cut off where a run ended
                continue
        return [line for line in lines if line["key"] == self.key]

    def _nearest_note(self, window: int) -> dict[str, Any]:
        """The last window that is known to begin at or before `window`."""
        first = {"window": 0, "pass": 0, "row": 0, "state": None}
        earlier = [line for line in self.noted if line["window"] <= window]
        return max([first, *earlier], key=lambda line: line["window"])

    def _go_to(self, note: dict[str, Any]) -> None:
        self._begin_pass(note["pass"], note["row"], note["state"])
        self.next = note["window"]


class StreamedSamples(Dataset):
    """Sample `i` of a run, drawn from the window that the process which gets it has then.

    Args:
        make: samples of the pictures of a window; item `i` of them is sample `i` of the run.
        per_window: how many samples are drawn from one.
        length: of the run.
        batch_size, world: batches go to the processes in turns, as accelerate deals them out.
        fingerprint: of as much of the data as tells whether a resumed run has the same.
    """

    def __init__(
        self,
        windows: Windows,
        make: Callable[[Pictures], Dataset],
        per_window: int,
        length: int,
        batch_size: int,
        world: int,
        fingerprint: str | None = None,
    ):
        self.windows, self.make, self.per_window, self.length = windows, make, per_window, length
        self.batch_size, self.world, self.fingerprint = batch_size, world, fingerprint
        self.window: int | None = None
        self.samples: Dataset | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        own = index // (self.batch_size * self.world) * self.batch_size + index % self.batch_size
        window = own // self.per_window
        if window != self.window:
            self.samples = None  # memory is for one window at a time
            self.samples = self.make(self.windows[window])
            self.window = window
        return self.samples[index]


def samples_of(
    settings: RunSettings, data: Data, pictures: Pictures, make: Callable[[Pictures, int], Dataset]
) -> Dataset:
    """The samples of a run: those of `pictures`, or with `--streaming`, where these are its first, of window after window.

    Args:
        make: (pictures, number of samples of the run) -> its samples, of these pictures.
    """
    rank, world, folder = PartialState().process_index, PartialState().num_processes, Path(settings.output_dir)
    length, batch_size = settings.num_samples(world), settings.batches.train_batch_size
    if not data.streaming:
        return make(pictures, length)
    report = folder / REPORT
    limits = replace(limits_of(data), report=report.with_stem(f"{report.stem}-{rank}") if rank else report)
    split = source_of(data).open("train", is_streamed=True)
    windows = Windows(split, limits, data.streaming_window, data.seed, rank, world, folder)
    per_window = data.streaming_window * data.samples_per_picture
    fingerprint = picture_fingerprint(pictures.whole, pictures.captions)
    return StreamedSamples(
        windows, lambda some: make(some, length), per_window, length, batch_size, world, fingerprint
    )
