"""The column that serves every tab: references, prompt, numbers; and what sets it: an address, a result, chance."""

import random
from typing import Any

import gradio as gr

from demo import links
from demo.inference import Studio
from demo.page.parts import PRIVATE
from demo.page.slots import Slot, example_values, slot_values
from demo.settings import (
    ASPECT,
    ASPECTS,
    ASSIGNMENTS,
    COARSENESS,
    MAX_GUIDANCE,
    MAX_STEPS,
    SIZE,
    SIZES,
    start_guidance,
    start_steps,
)
from mg_diffusion.granularities import GRANULARITIES


class Shared:
    """The inputs that all tabs share.

    Args:
        studio: what sees references; names the models.
    """

    def __init__(self, studio: Studio):
        self.studio = studio
        gr.Markdown("### References\nEach lends one thing; strength 0 is off, 1 as trained. They serve every tab.")
        self.slots = [Slot.draw(name) for name in GRANULARITIES]
        with gr.Row():
            self.lucky = gr.Button("Surprise me", size="sm", elem_id="surprise")
        self.prompt = gr.Textbox(
            label="Prompt (optional)", placeholder="a red flower", max_lines=2, max_length=300, elem_id="prompt"
        )
        with gr.Row():
            self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=100, elem_id="seed")
            self.steps = gr.Slider(1, MAX_STEPS, start_steps(), step=1, label="Steps", min_width=140, elem_id="steps")
        with gr.Row():
            self.size = gr.Dropdown(
                list(map(str, SIZES)), value=str(SIZE), label="Size", min_width=100, elem_id="size"
            )
            self.aspect = gr.Dropdown(list(ASPECTS), value=ASPECT, label="Aspect", min_width=140, elem_id="aspect")
        with gr.Row():
            label = "Coarseness of texture (1 is as in the reference)"
            self.coarseness = gr.Slider(*COARSENESS, 1.0, step=0.05, label=label, min_width=180, elem_id="coarseness")
            choices = list(zip(("dark to dark", "as the seed has it"), ASSIGNMENTS, strict=True))
            self.assignment = gr.Dropdown(
                choices, value=ASSIGNMENTS[0], label="Colors go", min_width=140, elem_id="assignment"
            )
        label = "Guidance (1 is off; more of it follows words and references more closely)"
        self.guidance = gr.Slider(1, MAX_GUIDANCE, start_guidance(), step=0.5, label=label, elem_id="guidance")
        self.live = gr.Checkbox(True, label="Make a new picture when a strength changes", elem_id="live")
        self.keep = gr.Checkbox(
            True, label="Results carry their references, so that they can be restored", elem_id="keep"
        )
        names = studio.models.names
        self.model = gr.Dropdown(
            names, value=names[0], label="Model", visible=len(names) > 1, interactive=True, elem_id="model"
        )
        with gr.Accordion("Restore from a result", open=False):
            label = "Drop a PNG made here: everything is set as it was"
            self.dropped = gr.File(label=label, file_types=[".png"], height=110, elem_id="restore")

    # What is chosen beside the references, by the names that addresses and the API have for it.
    chosen = ("prompt", "seed", "steps", "size", "aspect", "coarseness", "assignment", "guidance")

    @property
    def inputs(self) -> dict[str, gr.components.Component]:
        """By the names that the API has for them."""
        slots = {
            key: part for slot in self.slots for key, part in {**slot.inputs, f"{slot.name}_scale": slot.scale}.items()
        }
        return slots | {name: getattr(self, name) for name in (*self.chosen, "keep", "model")}

    @property
    def references(self) -> list[gr.components.Component]:
        return [part for slot in self.slots for part in slot.restorable]

    @property
    def restorable(self) -> list[gr.components.Component]:
        """What an address or a recipe sets, in the order of `found` and `restored`."""
        return [
            *self.references,
            *(getattr(self, name) for name in self.chosen),
            self.model,
        ]

    def found(self, found: dict[str, Any]) -> list[Any]:
        """Values of what an address says, or of the start."""
        asks_references = any(name in found for name in GRANULARITIES)
        values = []
        for name in GRANULARITIES:
            example = found.get(name, None if asks_references else links.START[name])
            scale = found.get(f"{name}_scale", 1.0)
            values += slot_values(name, {}, scale) if example is None else example_values(name, example, scale)
        start = ("", 0, start_steps(), str(SIZE), ASPECT, 1.0, ASSIGNMENTS[0], start_guidance())
        values += [found.get(name, value) for name, value in zip(self.chosen, start, strict=True)]
        return [*values, found.get("model", self.studio.models.names[0])]

    def restored(self, found: Any) -> list[Any]:
        """Values of what was found in a result."""
        values, settings = [], found.settings
        for name in GRANULARITIES:
            values += slot_values(name, found.given[name], settings.scales[name])
        values += [str(settings.size) if name == "size" else getattr(settings, name) for name in self.chosen]
        return [*values, found.model or self.studio.models.names[0]]

    def with_card(self, granularity: str, path: str) -> list[Any]:
        """Values of `references`: a granularity card in place of what is there."""
        values = []
        for slot in self.slots:
            mine = [*slot_values(slot.name, {"card": path}, 1.0)[:-1], gr.skip()]
            values += mine if slot.name == granularity else [gr.skip()] * len(slot.restorable)
        return values

    def surprise(self) -> list[Any]:
        rows = (example_values(name, random.choice(links.EXAMPLES[name]), 1.0) for name in GRANULARITIES)
        return [value for row in rows for value in row]

    def wire(self) -> None:
        for slot in self.slots:
            slot.wire(self.studio, self.model)
        self.lucky.click(self.surprise, None, self.references, **PRIVATE)
