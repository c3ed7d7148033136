"""Pictures that follow a strength while it is moved: small ones meanwhile, one of the chosen size when it is let go.

The page counts in `window.mgPhase` how often a strength was taken and let go, so that the number is odd while one is moved
(page.js). Every run knows the phase that it began in, and ends when the page has gone on from there: a small picture when
the strength is let go, a large one when it is taken again. Small ones of one move do not end each other, or none would be
finished. There is one listener for moving and letting go, and it always runs for what happened last: so the last picture
is the large one, whatever order runs and messages take.
"""

from dataclasses import replace
from typing import Any

import gradio as gr

from demo.jobs import Stopped
from demo.page.parts import AT_ONCE
from demo.page.values import Values, asked, told
from demo.page.work import Work
from demo.settings import DRAFT_SIZE, DRAFT_STEPS, MAX_PHASE, whole


ADD_PHASE = "(...values) => [...values.slice(0, -1), window.mgPhase]"


class Live:
    """Runs when strengths are moved.

    Args:
        work: runs jobs.
    """

    def __init__(self, work: Work):
        self.work = work
        self.phase = gr.Number(0, visible=False, elem_id="phase")
        self.turned = gr.Button("", visible="hidden", elem_id="turned")

    def generate_live(self, request: gr.Request, **values: Any) -> tuple[Any, Any]:
        """What the gallery shows and which files are offered, when a strength was moved or let go where pictures are shown."""
        phase = whole(values.pop("phase"), "The phase of the strengths", 0, MAX_PHASE)
        if not values.pop("live") or values.pop("tab") != "generate":
            return gr.skip(), gr.skip()
        is_moved = phase % 2 == 1
        try:
            given, settings, model = asked(values)
            if is_moved:
                if settings.steps > DRAFT_STEPS or not self.work.is_alone(request):
                    return gr.skip(), gr.skip()
                settings = replace(settings, count=1, size=min(settings.size, DRAFT_SIZE))
            paths = self.work.run("generate", request, given, settings, model, phase=phase)
        except Stopped:
            if self.work.turn(request).reached > phase:
                return gr.skip(), gr.skip()  # nobody stopped it: the next one comes
            raise
        except ValueError:
            if is_moved:  # what is wrong is told when the strength is let go; an error would end the series
                return gr.skip(), gr.skip()
            raise
        if is_moved:
            return [(str(paths[0]), "draft")], None  # no result to take home
        return [(str(path), path.stem) for path in paths], [str(path) for path in paths]

    def turn(self, request: gr.Request, phase: Any) -> None:
        """A strength was taken or let go."""
        self.work.turn(request).reach(whole(phase, "The phase of the strengths", 0, MAX_PHASE))

    def wire(self, sliders: list[gr.Slider], inputs: Values, outputs: list[Any]) -> Any:
        """`inputs`: of `generate_live`, without the phase; returns the event."""
        moved = [event for slider in sliders for event in (slider.input, slider.release)]
        options = {"trigger_mode": "always_last", "api_visibility": "private", "show_progress": "minimal"}
        self.turned.click(
            told(self.turn), self.phase, None, js="() => [window.mgPhase]", trigger_mode="multiple", **AT_ONCE
        )
        return self.work.on(
            moved, self.generate_live, outputs, {**inputs, "phase": self.phase}, js=ADD_PHASE, **options
        )
