"""The page: layout and wiring only. `python -m demo.app` opens it; docs/demo.md tells how to set it up."""

import argparse
import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


if not __package__:  # `python demo/app.py`, `gradio demo/app.py`: Python looks beside this file, and `demo` lies above
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import gradio as gr
from starlette.middleware import Middleware

from demo import links, memory, warming
from demo.about import ABOUT, model_card_of
from demo.inference import Studio
from demo.limits import Gate
from demo.page import agents
from demo.page.cards import Cards
from demo.page.compose import Compose
from demo.page.edit import EditTab
from demo.page.explore import Explore
from demo.page.generate import Generate
from demo.page.parts import AT_ONCE, PRIVATE, RAW, note
from demo.page.shared import Shared
from demo.page.values import path_of, told
from demo.page.work import Work
from demo.restoring import restore
from demo.safety import named_check
from demo.uploads import MAX_BYTES, file_bytes


HERE = Path(__file__).parent
CACHE_AGE = 3600  # seconds that uploads stay, as results do on a `Shelf`
CACHE_SWEEP = 600  # seconds between looks for those that are older
QUEUE = 24  # jobs that may wait
CLOSED = ("/gradio_api/deep_link", *agents.CLOSED)  # services that would keep files, or connections
SESSIONS = 200  # visitors whose state is kept; each takes a quarter of a MiB


class Page:
    """All of it: the shared column, the tabs, and what sets several of them.

    Args:
        studio: does the work.
    """

    def __init__(self, studio: Studio):
        self.studio = studio

    def build(self) -> gr.Blocks:
        agents.keep_files(self.studio.shelf)
        with gr.Blocks(title="MG-Diffusion", analytics_enabled=False, delete_cache=(CACHE_SWEEP, CACHE_AGE)) as page:
            what = "What do **color**, **texture** and **shape** each do? Move one slider and see."
            gr.Markdown(f"# MG-Diffusion\n{what}")
            self.said = gr.Markdown(visible=False, elem_id="note", elem_classes="note")
            self.draw()
            self.wire(page)
        page.queue(max_size=QUEUE, default_concurrency_limit=1, api_open=False)
        return page

    def draw(self) -> None:
        self.tab = gr.State("generate")
        with gr.Row():
            with gr.Column(scale=4, min_width=280, elem_id="references"):
                self.shared = Shared(self.studio)
            self.work = Work(self.studio, self.shared.inputs)
            with (
                gr.Column(scale=7, min_width=280, elem_id="work"),
                gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as self.tabs,
            ):
                with self.draw_tab("generate"):
                    self.generate = Generate(self.shared, self.work)
                with self.draw_tab("compose"):
                    self.compose = Compose(self.work)
                with self.draw_tab("edit"):
                    self.edit = EditTab(self.work)
                with self.draw_tab("explore"):
                    self.explore = Explore(self.work)
                with self.draw_tab("cards"):
                    self.cards = Cards(self.shared, self.work)
                with self.draw_tab("about"):
                    gr.Markdown(ABOUT)
                    with gr.Accordion("The model card", open=False):
                        gr.Markdown(model_card_of(self.studio.models.model_card()), elem_id="model-card")

    def draw_tab(self, name: str) -> gr.Tab:
        tab = gr.Tab(name.capitalize(), id=name)
        tab.select(lambda: name, None, self.tab, **AT_ONCE)
        return tab

    def wire(self, page: gr.Blocks) -> None:
        self.shared.wire()
        self.generate.wire(self.tab)
        self.compose.wire()
        self.edit.wire()
        self.explore.wire()
        self.cards.wire()
        jobs = (self.generate, self.compose, self.edit, self.cards)
        self.work.wire_stops([*(tab.stop for tab in jobs), self.explore.sweep_stop, self.explore.explain_stop])
        page.load(self.open, None, [self.said, *self.openable], **AT_ONCE)  # not in the queue, which may be full
        self.shared.dropped.upload(told(self.restore), self.shared.dropped, self.restorable, **PRIVATE, **RAW)
        page.unload(self.work.stop)

    @property
    def openable(self) -> list[gr.components.Component]:
        return [*self.shared.restorable, self.generate.count, self.tabs]

    @property
    def restorable(self) -> list[gr.components.Component]:
        return [*self.openable, *self.edit.restorable, *self.cards.restorable]

    def open(self, request: gr.Request) -> list[Any]:
        """What a page shows when it is opened: what its address says, and says in vain, or the start."""
        found, complaints = links.parse(dict(request.query_params), self.studio.models.names)
        tabs = gr.Tabs(selected=found.get("tab", "generate"))
        return [note("\n\n".join(complaints)), *self.shared.found(found), 1, tabs]

    def restore(self, file: Any) -> list[Any]:
        """Values for everything that a recipe sets, in the order of `restorable`."""
        path = path_of(file)
        if path is None:
            return [gr.skip()] * len(self.restorable)
        found = restore(file_bytes(path), self.studio.shelf, self.studio.models.names)
        for missing in found.notes:
            gr.Warning(missing)
        gr.Info("Everything is set as it was." if not found.notes else "Set as far as it can be.", duration=4)
        opened = [*self.shared.restored(found), 1, gr.Tabs(selected=found.tab)]
        return opened + self.edit.restored(found.edit) + self.cards.restored(found.mixed)


def theme() -> gr.Theme:
    """Calm, and without fonts from elsewhere."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gr.themes.Base(primary_hue="teal", neutral_hue="slate", radius_size="sm", **fonts)


def free_port(name: str) -> int:
    """The first free port from 7860 on. (gradio tries one after the other, but what speaks MCP starts only once.)"""
    for port in range(7860, 7960):
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind((name, port))
            return port
    raise OSError("No port from 7860 to 7959 is free. Name another one: --port.")


def launch(page: gr.Blocks, **options: Any) -> tuple[Any, str, str]:
    """Serve the page; `options` go to `Blocks.launch`."""
    if options.get("server_port") is None and "GRADIO_SERVER_PORT" not in os.environ:
        name = options.get("server_name") or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
        options["server_port"] = free_port(name)
    # All components ask the module for it; sessions make components anew, so that it cannot be set on those.
    gr.processing_utils.async_ssrf_protected_download = agents.download_nothing
    script = (HERE / "page.js").read_text(encoding="utf-8")
    served = page.launch(
        theme=theme(),
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        head=f'<meta name="viewport" content="width=device-width, initial-scale=1"><script>{script}</script>',
        max_file_size=MAX_BYTES,
        show_error=False,
        share=False,
        ssr_mode=False,
        footer_links=["api", "settings"],
        run_history=False,
        enable_monitoring=False,
        mcp_server=agents.IS_SPOKEN,
        state_session_capacity=SESSIONS,
        app_kwargs={"middleware": [Middleware(Gate, limit=MAX_BYTES + 2**20, closed=CLOSED)]},
        **options,
    )
    agents.show_pictures(page)
    return served


def main(arguments: Sequence[str] | None = None) -> None:
    purpose = "Serve the page; MG_MODEL, MG_GUIDANCE, MG_STEPS, MG_SAFETY_CHECK and MG_WARM_UP: docs/demo.md"
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("--open", action="store_true", help="open it in a browser")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    options = parser.parse_args(arguments)
    memory.share_heaps()
    try:
        studio = Studio(check=named_check(os.environ.get("MG_SAFETY_CHECK")))
        warming.is_wanted()  # what it cannot read is told now
        page = Page(studio).build()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    warming.start(studio)
    try:
        served = {"inbrowser": options.open, "server_port": options.port}
        _, url, _ = launch(page, **served, prevent_thread_lock=True, quiet=True)
        print(f"The page is at {url}", flush=True)
        page.block_thread()
    except OSError as error:  # no free port
        sys.exit(f"error: {error}")
    finally:
        studio.shelf.close()


if __name__ == "__main__" and gr.NO_RELOAD:  # `gradio demo/app.py` runs the file once more, to watch it
    main()
