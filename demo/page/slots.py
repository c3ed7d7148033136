"""One reference of one granularity: what is given for it, what it sees, how strong it is."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from demo import links
from demo.inference import Studio
from demo.page.parts import AT_ONCE, PRIVATE, RAW, asked_picture, card_file, note, shown_picture
from demo.page.values import slot_of, told
from demo.references import reference
from demo.settings import MAX_SCALE
from demo.uploads import read_palette


LENDS = {"color": "its palette", "texture": "its material", "shape": "its layout and outlines"}


def slot_values(name: str, slot: dict[str, Any], scale: Any, example: str | None = None) -> list[Any]:
    """What `Slot.restorable` is set to, from what is given for a granularity."""
    palette = [slot.get("palette") or ""] if name == "color" else []
    return [example, slot.get("picture"), *palette, slot.get("card"), scale]


def example_values(name: str, example: str | None, scale: float) -> list[Any]:
    """What an example, or a palette of an address, sets."""
    if name != "color":
        return slot_values(name, {"picture": reference(example)}, scale, example)
    palette = ", ".join(reference(example)) if example in links.EXAMPLES["color"] else example
    return slot_values(name, {"palette": palette}, scale, example if example in links.EXAMPLES["color"] else None)


@dataclass
class Slot:
    """The components of one granularity."""

    name: str
    example: gr.Dropdown
    picture: gr.Image
    palette: gr.Textbox | None
    card: gr.File
    seen: gr.Image
    note: gr.Markdown
    scale: gr.Slider

    @classmethod
    def draw(cls, name: str) -> "Slot":
        with gr.Group(elem_id=f"slot-{name}"):
            with gr.Row(equal_height=True):
                size = {"height": 124, "min_width": 120}
                lends = {"placeholder": f"Lends {LENDS[name]}"}
                picture = asked_picture(name.capitalize(), f"{name}-picture", f"The {name} reference", **size, **lends)
                alt = f"What is read from the {name} reference and nothing else"
                seen = shown_picture("What it sees", f"{name}-seen", alt, elem_classes="seen", **size)
            said = gr.Markdown(visible=False, elem_id=f"{name}-note", elem_classes="note")
            palette = None
            if name == "color":
                palette = gr.Textbox(
                    label="or a palette", placeholder="#ff8800:3, #224466", max_lines=1, elem_id="color-palette"
                )
            scale = gr.Slider(0, MAX_SCALE, 1.0, step=0.05, label=f"Strength of {name}", elem_id=f"{name}-scale")
            with gr.Accordion("Example, card", open=False):
                example = gr.Dropdown(
                    list(links.EXAMPLES[name]), value=None, label=f"Example for {name}", elem_id=f"{name}-example"
                )
                card = card_file(f"A {name} card (.safetensors)", f"{name}-card", height=90)
        return cls(name, example, picture, palette, card, seen, said, scale)

    @property
    def given(self) -> list[gr.components.Component]:
        """Where something can be given for this granularity."""
        return [self.picture, *([self.palette] if self.palette else []), self.card]

    @property
    def inputs(self) -> dict[str, gr.components.Component]:
        given = {f"{self.name}_picture": self.picture, f"{self.name}_card": self.card}
        return given | ({"color_palette": self.palette} if self.palette is not None else {})

    @property
    def restorable(self) -> list[gr.components.Component]:
        """What a recipe, a link or an example sets, in the order of `slot_values`."""
        return [self.example, *self.given, self.scale]

    def wire(self, studio: Studio, model: gr.Dropdown) -> None:
        self.wire_example()
        self.wire_sight(studio, model)

    def wire_example(self) -> None:
        self.example.input(
            lambda example: example_values(self.name, example, 1.0)[1:-1], self.example, self.given, **PRIVATE
        )
        # What a visitor gives is no example any more.
        theirs = [self.picture.clear, self.card.upload, *([self.palette.input] if self.palette else [])]
        gr.on(theirs, lambda: None, None, self.example, **AT_ONCE)
        if self.palette is None:
            self.picture.upload(lambda: None, None, self.example, **AT_ONCE)
        else:  # a picture takes the place of a palette that was an example
            both = [self.example, self.palette]
            self.picture.upload(lambda name: [None, "" if name else gr.skip()], self.example, both, **AT_ONCE)

    def wire_sight(self, studio: Studio, model: gr.Dropdown) -> None:
        """What a granularity sees follows what is given for it."""

        def see(**values: Any) -> list[Any]:
            try:
                slot = slot_of(self.name, values)
                return [studio.see(self.name, slot, values.get("model")), note(kinds_of(slot))]
            except ValueError as error:
                return [None, note(str(error))]  # what was seen before is not what is given now

        def see_while_typing(**values: Any) -> list[Any]:
            return [gr.skip(), gr.skip()] if is_unfinished(values["color_palette"]) else see(**values)

        more = {"inputs_kwargs": {**self.inputs, "model": model}, "outputs": [self.seen, self.note]}
        more |= {"trigger_mode": "always_last", **PRIVATE, **RAW}
        changed = [self.picture.change, self.card.change]
        if self.palette is None:
            gr.on(changed, told(see), **more)
        else:  # one listener for all of them: of two, the one that began earlier may end later
            gr.on([*changed, self.palette.change], told(see_while_typing), **more)
            gr.on([self.palette.submit, self.palette.blur], told(see), **more)


def is_unfinished(palette: str) -> bool:
    """Whether a palette that is being typed is none yet."""
    try:
        read_palette(palette or "")
        return False
    except ValueError:
        return True


def kinds_of(slot: dict[str, Any]) -> str:
    """What is not plain to see: that something comes from a granularity card, or is averaged."""
    kinds = [f"a {kind}" for kind in ("picture", "palette", "card") if slot.get(kind)]
    if len(kinds) > 1:
        return f"The average of {', '.join(kinds[:-1])} and {kinds[-1]}."
    return "From a card: open “Example, card” to change it." if kinds == ["a card"] else ""
