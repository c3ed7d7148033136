"""The tab Generate: pictures from references and a prompt."""

from typing import Any

import gradio as gr

from demo import links
from demo.page.live import Live
from demo.page.parts import PRIVATE, RAW, buttons, gallery, result_file
from demo.page.shared import Shared
from demo.page.values import Values, asked, told
from demo.page.work import Work
from demo.settings import MAX_COUNT, choice
from demo.uploads import read_palette
from mg_diffusion.granularities import GRANULARITIES


class Generate:
    def __init__(self, shared: Shared, work: Work):
        self.shared, self.work = shared, work
        self.count = gr.Slider(1, MAX_COUNT, 1, step=1, label="Pictures (seeds count up)", elem_id="count")
        self.run, self.stop = buttons("Generate", "generate")
        shown = {"columns": 4, "height": 440, "object_fit": "contain", "preview": True}
        self.gallery = gallery("Pictures", "gallery", buttons=["download", "fullscreen"], **shown)
        self.files = result_file("Download: each file holds its recipe", "files", file_count="multiple")
        self.live = Live(work)
        self.link = gr.Textbox(
            label="Address of these settings (examples and palettes travel, pictures do not)",
            interactive=False,
            placeholder="known when a picture is made",
            buttons=["copy"],
            max_lines=1,
            elem_id="link",
        )

    def generate(self, request: gr.Request, **values: Any) -> tuple[list[tuple[str, str]], list[str]]:
        """Pictures from references and a prompt."""
        paths = self.work.run("generate", request, *asked(values))
        return [(str(path), path.stem) for path in paths], [str(path) for path in paths]

    def show_link(self, **values: Any) -> str:
        return link_of(values, {name: values[f"{name}_example"] for name in GRANULARITIES}, values["tab"])

    def wire(self, tab: gr.State) -> None:
        """`tab`: which tab is open."""
        shared, outputs = self.shared, [self.gallery, self.files]
        inputs = {**shared.inputs, "count": self.count}
        watched = {**inputs, "live": shared.live, "tab": tab}
        hidden = {"api_visibility": "private"}
        jobs = [
            self.work.button(self.run, self.generate, outputs, "generate", count=self.count),
            self.live.wire([slot.scale for slot in shared.slots], watched, outputs),
            self.work.on(shared.prompt.submit, self.generate, outputs, inputs, **hidden),
        ]
        linked = {**shared.inputs, **{f"{slot.name}_example": slot.example for slot in shared.slots}, "tab": tab}
        for job in jobs:
            job.success(told(self.show_link), inputs_kwargs=linked, outputs=self.link, **PRIVATE, **RAW)


def link_of(values: Values, examples: dict[str, str | None], tab: str = "generate") -> str:
    """The query string of what can travel in an address."""
    _, settings, _ = asked(values)
    kept = {f"{name}_scale": scale for name, scale in settings.scales.items()}
    kept |= {
        name: getattr(settings, name)
        for name in ("prompt", "seed", "steps", "aspect", "coarseness", "assignment", "guidance")
    }
    kept |= {"size": str(settings.size)}
    chosen = {name: example for name, example in examples.items() if example}
    kept |= {name: choice(example, "An example", links.EXAMPLES[name]) for name, example in chosen.items()}
    if not examples.get("color"):
        kept["color"] = ", ".join(read_palette(values.get("color_palette") or ""))
    return links.write({**kept, "tab": tab})
