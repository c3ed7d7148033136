"""The tab Explore: sweeps of one or two strengths, and what each reference did to a picture."""

from typing import Any

import gradio as gr

from demo.inference import Axis
from demo.page.parts import buttons, result_file, shown_picture
from demo.page.values import asked
from demo.page.work import Work
from demo.settings import MAX_SCALE, MAX_SWEEP
from mg_diffusion.granularities import GRANULARITIES


EXPLAIN = """\
#### Explain: what each reference did, and what leaked
The maps show where a reference moved the picture, the curves in which steps. The table: how far the result is from each
reference, smaller is nearer, the nearest in bold."""


class Explore:
    def __init__(self, work: Work):
        self.work = work
        gr.Markdown("#### Sweep: one or two strengths change, all else stays")
        self.draw_axes()
        self.sweep_run, self.sweep_stop = buttons("Sweep", "sweep")
        alt = "Pictures in which only the named strengths differ"
        self.sheet = shown_picture("Sweep", "sheet", alt, show_label=False, buttons=["fullscreen"])
        with gr.Accordion("The pictures one by one", open=False):
            self.swept = gr.Gallery(
                label="Each file holds its recipe",
                columns=4,
                format="png",
                interactive=False,
                buttons=["download"],
                elem_id="swept",
            )
            self.sheet_file = result_file("Download the sheet", "sheet-file")
        gr.Markdown(EXPLAIN)
        self.explain_run, self.explain_stop = buttons("Explain", "explain")
        self.draw_explanation()

    def draw_axes(self) -> None:
        names = list(GRANULARITIES)
        with gr.Row():
            self.across = gr.Dropdown(names, value="shape", label="Across", min_width=130, elem_id="across")
            self.columns = gr.Slider(
                2, MAX_SWEEP, 5, step=1, label="Pictures across", min_width=180, elem_id="columns"
            )
            self.top = gr.Slider(0.5, MAX_SCALE, 1.5, step=0.1, label="Up to strength", min_width=180, elem_id="top")
        with gr.Row():
            self.down = gr.Dropdown(["nothing", *names], value="nothing", label="Down", min_width=130, elem_id="down")
            self.rows = gr.Slider(2, MAX_SWEEP, 3, step=1, label="Pictures down", min_width=180, elem_id="rows")

    def draw_explanation(self) -> None:
        with gr.Row():
            self.explained = shown_picture(
                "Picture",
                "explained",
                "The picture that is explained",
                buttons=["download"],
                height=220,
                min_width=160,
            )
            self.maps = shown_picture(
                "Maps and curves",
                "maps",
                "For each granularity a map over the picture and a curve over the steps",
                show_label=False,
                buttons=["fullscreen"],
                height=220,
                scale=2,
                min_width=260,
            )
        self.table = gr.Markdown(elem_id="nearness")

    def sweep(self, request: gr.Request, **values: Any) -> tuple[str, str, list[tuple[str, str]]]:
        """A strip or grid in which one or two strengths change."""
        given, settings, model = asked(values)
        across = Axis(values.get("across"), values.get("columns"), values.get("top"))
        second = values.get("down")
        down = None if second in (None, "nothing") else Axis(second, values.get("rows"), values.get("top"))
        sheet, made = self.work.run("sweep", request, given, settings, across, down, model)
        return str(sheet), str(sheet), [(str(path), caption) for path, caption in made]

    def explain(self, request: gr.Request, **values: Any) -> tuple[str, str, str]:
        """A picture, where and when each reference moved it, and how near it is to each."""
        path, drawn, table = self.work.run("explain", request, *asked(values))
        return str(path), str(drawn), table

    def wire(self) -> None:
        axes = {"across": self.across, "columns": self.columns, "down": self.down, "rows": self.rows, "top": self.top}
        sheet = [self.sheet, self.sheet_file, self.swept]
        self.work.button(self.sweep_run, self.sweep, sheet, "sweep", **axes)
        self.work.button(self.explain_run, self.explain, [self.explained, self.maps, self.table], "explain")
