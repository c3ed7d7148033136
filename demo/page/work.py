"""Jobs of the studio, as buttons run and stop them."""

import math
import time
from collections.abc import Callable
from typing import Any

import gradio as gr

from demo.inference import Studio
from demo.page.parts import AT_ONCE, MODEL, PRIVATE, RAW
from demo.page.values import Values, named, told
from demo.shelf import StopSign, Turn


try:
    from spaces import GPU as on_gpu  # ZeroGPU
except ImportError:

    def on_gpu(work: Callable) -> Callable:
        return work


QUIET = 3.0  # seconds after which nobody else is taken to be at work


class Work:
    """Runs jobs, remembers their events, and stops them.

    Args:
        studio: does the work.
        shared: the inputs of every job, by the names that the API has for them.
    """

    def __init__(self, studio: Studio, shared: dict[str, gr.components.Component]):
        self.studio, self.shared = studio, shared
        self.events: list[Any] = []
        self.last: tuple[str, float] = ("", -math.inf)  # whose picture was made last, and when

        def work(task: str, session: str, phase: int | None, *args: Any) -> Any:
            """A job of the studio with progress on the page, until it is done, stopped or stale."""
            sign, turn, progress = StopSign(studio.shelf, session), Turn(studio.shelf, session), gr.Progress()
            sign.take_down()

            def is_stopped() -> bool:
                return sign.is_up() or (phase is not None and turn.reached > phase)

            try:
                return getattr(studio, task)(
                    *args, report=lambda part, text: progress(part, text), is_stopped=is_stopped
                )
            finally:
                sign.take_down()

        self._work = on_gpu(work)  # by name, with plain arguments: on ZeroGPU they go to another process

    def run(self, task: str, request: gr.Request, *args: Any, phase: int | None = None) -> Any:
        """A method of the studio, for the visitor of a request; one that follows a strength ends with its `phase`."""
        self.studio.is_wanted.set()
        session, is_draft = request.session_hash or "", phase is not None and phase % 2 == 1
        try:
            if not is_draft:
                self.last = (session, time.monotonic())
            return self._work(task, session, phase, *args)
        finally:
            if not is_draft:
                self.last = (session, time.monotonic())

    def is_alone(self, request: gr.Request) -> bool:
        """Whether nobody else asked for a picture a moment ago, who may want the next one."""
        session, when = self.last
        return session == (request.session_hash or "") or time.monotonic() - when > QUIET

    def turn(self, request: gr.Request) -> Turn:
        """How far the strengths of a page were moved."""
        return Turn(self.studio.shelf, request.session_hash or "")

    def on(self, triggers: Any, handler: Callable, outputs: list[Any], inputs: Values, **options: Any) -> Any:
        """Run a job when something happens."""
        options |= {"inputs_kwargs": inputs, "outputs": outputs, "show_progress_on": outputs[0]}
        event = gr.on(triggers, told(handler), **MODEL, **RAW, **options)
        self.events.append(event)
        return event

    def button(self, button: gr.Button, handler: Callable, outputs: list[Any], api: str, **more: Any) -> Any:
        """Run a job under a name of the API; `more` are its inputs besides those that all share."""
        inputs = {**self.shared, **more}
        return self.on(button.click, named(handler, inputs), outputs, inputs, api_name=api)

    def stop(self, request: gr.Request) -> None:
        """Nobody waits any more for the job of this page: Stop was pressed, or it was closed."""
        StopSign(self.studio.shelf, request.session_hash or "").put_up()

    def wire_stops(self, stops: list[gr.Button]) -> None:
        # Outside the queue, so that a full one does not keep a job alive; only what is in it can show a message.
        stopped = gr.on([button.click for button in stops], self.stop, None, None, cancels=self.events, **AT_ONCE)
        stopped.then(lambda: gr.Info("Stopped.", duration=4), None, None, **PRIVATE)
