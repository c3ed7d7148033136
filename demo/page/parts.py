"""Components that several places use, and how events are run."""

from typing import Any

import gradio as gr


MODEL = {"concurrency_id": "model", "concurrency_limit": 1}  # one job at a time
LIGHT = {"concurrency_id": "light", "concurrency_limit": 2, "show_progress": "hidden"}
RAW = {"preprocess": False}
PRIVATE = {"api_visibility": "private", **LIGHT}
AT_ONCE = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}


def buttons(run: str, name: str) -> tuple[gr.Button, gr.Button]:
    """A button that runs a job and one that stops it."""
    with gr.Row():
        start = gr.Button(run, variant="primary", elem_id=f"{name}-run", elem_classes="run-job", scale=3)
        stop = gr.Button("Stop", variant="stop", elem_id=f"{name}-stop", elem_classes="stop-job", min_width=80)
    return start, stop


def asked_picture(label: str, name: str, alt: str, **options: Any) -> gr.Image:
    """Where a visitor gives a picture; it arrives as the file that it is."""
    options = {"sources": ["upload", "clipboard"], **options}
    return gr.Image(
        label=label, type="filepath", image_mode=None, format="png", buttons=[], alt_text=alt, elem_id=name, **options
    )


def shown_picture(label: str, name: str, alt: str, **options: Any) -> gr.Image:
    """Where a picture is shown."""
    options = {"buttons": [], **options}
    return gr.Image(
        label=label, interactive=False, type="filepath", format="png", alt_text=alt, elem_id=name, **options
    )


def result_file(label: str, name: str, **options: Any) -> gr.File:
    """Where results are taken home."""
    return gr.File(label=label, interactive=False, height=110, elem_id=name, **options)


def card_file(label: str, name: str, **options: Any) -> gr.File:
    """Where a visitor gives a granularity card."""
    return gr.File(label=label, file_types=[".safetensors"], elem_id=name, **options)


def note(text: str) -> gr.Markdown:
    """What a note says; one that says nothing takes no room."""
    return gr.Markdown(text, visible=bool(text))
