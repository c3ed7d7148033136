"""The progress of a job, and its end when someone stops it."""

from collections.abc import Callable
from typing import Any


Report = Callable[[float, str], None]  # fraction done, what is going on


class Stopped(Exception):
    """The visitor pressed Stop."""


class Job:
    """Counts the steps of one picture after the other; the pipelines call it after each step.

    Args:
        pictures: how many there will be.
        report: told of every step; is_stopped: asked after every step.
    """

    def __init__(self, pictures: int, report: Report | None = None, is_stopped: Callable[[], bool] | None = None):
        self.pictures, self.report, self.is_stopped = pictures, report, is_stopped
        self.done = 0
        self.check()

    def check(self) -> None:
        if self.is_stopped is not None and self.is_stopped():
            raise Stopped("Stopped.")

    def after_share(self, share: float) -> None:
        """As `callback` of an edit that samples nothing."""
        self.check()
        if self.report is not None:
            self.report((self.done + share) / self.pictures, f"{share:.0%}")

    def after_step(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """As `callback_on_step_end` of a pipeline."""
        self.check()
        if self.report is not None:
            part = (step + 1) / pipe.num_timesteps
            text = f"step {step + 1} of {pipe.num_timesteps}"
            if self.pictures > 1:
                text = f"picture {self.done + 1} of {self.pictures}, {text}"
            self.report((self.done + part) / self.pictures, text)
        if step + 1 == pipe.num_timesteps:
            self.done += 1
        return {}
