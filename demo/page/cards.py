"""The tab Cards: granularity cards are made, used and mixed."""

from typing import Any

import gradio as gr

from demo.page.parts import LIGHT, PRIVATE, RAW, buttons, card_file, result_file, shown_picture
from demo.page.shared import Shared
from demo.page.values import asked, named, path_of, slot_of, told
from demo.page.work import Work
from mg_diffusion.granularities import GRANULARITIES


class Cards:
    def __init__(self, shared: Shared, work: Work):
        self.shared, self.work = shared, work
        gr.Markdown(
            "A card keeps one granularity of a reference, without the picture. It serves wherever a picture does."
        )
        self.granularity = gr.Radio(list(GRANULARITIES), value="texture", label="Granularity", elem_id="granularity")
        with gr.Row():
            self.make = gr.Button("Make a card of its reference", elem_id="card-run", variant="primary")
            self.use = gr.Button("Put it in place of the reference", elem_id="card-use")
        self.card = result_file("The card", "card")
        gr.Markdown("#### Mix two cards\nThe other references, words and numbers are those of this page.")
        size = {"height": 110, "min_width": 240}
        with gr.Row():
            self.first = card_file("First card", "first-card", **size)
            self.second = card_file("Second card", "second-card", **size)
        self.share = gr.Slider(0, 1, 0.5, step=0.05, label="Share of the second card", elem_id="share")
        self.run, self.stop = buttons("Mix", "mix")
        size = {"height": 220, "min_width": 140}
        with gr.Row():
            label = "What the granularity sees of the mix"
            self.seen = shown_picture(label, "mixed-seen", "What is read from the mix", **size)
            self.mixed = shown_picture("Picture", "mixed", "The picture made with the mix", **size)
        self.mixed_file = result_file("Download: holds its recipe", "mixed-file")

    def make_card(self, granularity: str, **values: Any) -> str:
        """A granularity card of the reference of a granularity."""
        if granularity not in GRANULARITIES:
            raise ValueError(f"A card is of one of {', '.join(GRANULARITIES)}.")
        return str(self.work.studio.make_card(granularity, slot_of(granularity, values), values.get("model")))

    def use_card(self, granularity: str, card: Any) -> list[Any]:
        """The granularity card that was made in its slot, in place of what is there."""
        path = path_of(card)
        if path is None:
            raise ValueError("There is no card yet. Make one first.")
        return self.shared.with_card(granularity, path)

    def mix(self, request: gr.Request, **values: Any) -> tuple[Any, str, str]:
        """Two granularity cards in the place of its reference."""
        given, settings, model = asked(values)
        cards = (path_of(values.get("first_card")), path_of(values.get("second_card")))
        mixed = (values.get("granularity"), cards, values.get("share"))
        seen, path = self.work.run("mix", request, *mixed, given, settings, model)
        return seen, str(path), str(path)

    @property
    def restorable(self) -> list[gr.components.Component]:
        return [self.granularity, self.first, self.second, self.share]

    def restored(self, mixed: tuple[str, float, str, str] | None) -> list[Any]:
        """Values of `restorable` from the mix that a result came from."""
        if mixed is None:
            return [gr.skip()] * len(self.restorable)
        name, share, first, second = mixed
        return [name, first, second, share]

    def wire(self) -> None:
        inputs = {"granularity": self.granularity, **self.shared.inputs}
        self.make.click(
            told(named(self.make_card, inputs)),
            inputs_kwargs=inputs,
            outputs=self.card,
            api_name="make_card",
            **LIGHT,
            **RAW,
        )
        self.use.click(
            told(self.use_card),
            inputs_kwargs={"granularity": self.granularity, "card": self.card},
            outputs=self.shared.references,
            **PRIVATE,
            **RAW,
        )
        more = {
            "granularity": self.granularity,
            "first_card": self.first,
            "second_card": self.second,
            "share": self.share,
        }
        self.work.button(self.run, self.mix, [self.seen, self.mixed, self.mixed_file], "mix", **more)
