"""A machine that is about to be taken away says so by SIGTERM, a person by Ctrl-C: the run saves and ends."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

import torch
from accelerate import Accelerator


EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not finished, to be tried again
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def outlive_one(worker: int) -> None:
    """`worker_init_fn` of a DataLoader: a worker leaves the first signal of each kind to the run that it loads data for.

    Schedulers and terminals signal all processes of a group. PyTorch's own handlers would end a worker by it, and the
    run would fail before it has saved. A second one ends it, unless it is stuck outside of Python.
    """

    def note(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, note)


class Stop:
    """Inside the block the first SIGTERM or SIGINT is noted, a second one ends the process as ever."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.former: dict[int, object] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell sets SIGINT in the background
                    self.former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        while self.former:
            signal.signal(*self.former.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.__exit__()
        self.name = signal.Signals(number).name
        os.write(2, f"\n{self.name}: the run saves after this step. A second one ends it at once.\n".encode())

    def is_asked(self, accelerator: Accelerator) -> bool:
        """Whether a signal came, to any of the processes: all of them call this at every step."""
        if accelerator.num_processes == 1:
            return self.name is not None
        flag = torch.tensor(float(self.name is not None), device=accelerator.device)
        return accelerator.reduce(flag).item() > 0

    def leave(self, accelerator: Accelerator, step: int) -> NoReturn:
        """End the process, with `EXIT_CODE`, after the checkpoint of a step was saved."""
        if accelerator.is_main_process:
            print(
                f"Stopped and saved after step {step}. To go on, give the same command --resume_from_checkpoint latest.",
                file=sys.stderr,
            )
        accelerator.end_training()
        sys.exit(EXIT_CODE)
