"""The tab Compose: the references laid together; no model paints."""

from typing import Any

import gradio as gr

from demo.page.parts import buttons, result_file, shown_picture
from demo.page.values import asked
from demo.page.work import Work


WHAT = """\
#### The palette in the regions of the shape, the texture over it
No model paints, so it comes at once: a poster, or a start for image-to-image on any checkpoint."""


class Compose:
    def __init__(self, work: Work):
        self.work = work
        gr.Markdown(WHAT)
        self.run, self.stop = buttons("Compose", "compose")
        options = {"height": 440, "buttons": ["download", "fullscreen"]}
        self.shown = shown_picture("Composition", "composition", "The references, laid together", **options)
        self.file = result_file("Download: the file holds its recipe", "composition-file")

    def compose(self, request: gr.Request, **values: Any) -> tuple[str, str]:
        """The references laid together, which no model paints."""
        path = self.work.run("compose", request, *asked(values))
        return str(path), str(path)

    def wire(self) -> None:
        self.work.button(self.run, self.compose, [self.shown, self.file], "compose")
