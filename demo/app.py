"""The page: layout and wiring only. `python -m demo.app` opens it; docs/demo.md tells how to set it up.

Inputs are taken as they come (`preprocess=False`): pictures are decoded in `demo.uploads`, after they were checked.
"""

import argparse
import functools
import inspect
import logging
import os
import random
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from demo import links
from demo.about import ABOUT, card_of
from demo.edits import ACTIONS, SIDES, Edit, combine_masks, show_mask
from demo.inference import Axis, Studio
from demo.jobs import Stopped
from demo.limits import MAX_LAYERS, Gate, check_layer
from demo.references import reference, scene
from demo.restoring import restore
from demo.safety import named_check
from demo.settings import (
    GRANULARITIES,
    MAX_ADDED,
    MAX_COUNT,
    MAX_FEATHER,
    MAX_SCALE,
    MAX_STEPS,
    MAX_SWEEP,
    Settings,
    choice,
)
from demo.shelf import StopSign
from demo.uploads import MAX_BYTES, file_bytes, read_palette, read_photo


try:
    from spaces import GPU as on_gpu  # ZeroGPU
except ImportError:

    def on_gpu(work: Callable) -> Callable:
        return work


HERE = Path(__file__).parent
AGE = 3600  # seconds that uploads and results stay
QUEUE = 24  # jobs that may wait
CANVAS = 400  # pixels on a side of what the mask is painted on
MODEL = {"concurrency_id": "model", "concurrency_limit": 1}  # one job at a time
LIGHT = {"concurrency_id": "light", "concurrency_limit": 2, "show_progress": "hidden"}
RAW = {"preprocess": False}
BLOBS = 16  # edits whose painted layers wait in memory
Values = dict[str, Any]
LENDS = {"color": "its palette", "texture": "its material", "shape": "its layout and outlines"}


# ---------------------------------------------------------------------------------------------------------------------
# From the page and to the page
# ---------------------------------------------------------------------------------------------------------------------
def path_of(payload: Any) -> str | None:
    """The path of an uploaded file, which must lie where uploads lie."""
    if not payload:
        return None
    path = payload.get("path") if isinstance(payload, dict) else None
    if not isinstance(path, str) or not path:
        raise ValueError("This is no uploaded file.")
    folder = Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir(), "gradio")).resolve()
    try:
        lies_there, is_there = Path(path).resolve().is_relative_to(folder), Path(path).is_file()
    except (OSError, ValueError) as error:  # a name that no file can have
        raise ValueError("This is no uploaded file.") from error
    if not lies_there:
        raise ValueError("This is no uploaded file.")
    if not is_there:
        raise ValueError("The uploaded file is gone: files are removed after an hour. Give it again.")
    return path


def slot_of(name: str, values: Values) -> dict[str, Any]:
    card = path_of(values.get(f"{name}_card"))
    return {
        "picture": path_of(values.get(f"{name}_picture")),
        "palette": values.get("color_palette") if name == "color" else None,
        "card": card,
    }


def asked(values: Values) -> tuple[dict[str, dict[str, Any]], Settings, str | None]:
    """References, settings and model of the inputs that all tabs share."""
    given = {name: slot_of(name, values) for name in GRANULARITIES}
    scales = {name: values.get(f"{name}_scale") for name in GRANULARITIES}
    settings = Settings(
        scales,
        values.get("prompt") or "",
        values.get("seed"),
        values.get("steps"),
        values.get("count", 1),
        bool(values.get("keep", True)),
    )
    return given, settings, values.get("model")


def told(handler: Callable) -> Callable:
    """What goes wrong in a handler is told in words; what nobody foresaw is logged here and not shown."""

    @functools.wraps(handler)
    def wrapper(*args: Any, **values: Any) -> Any:
        try:
            return handler(*args, **values)
        except Stopped as error:
            raise gr.Error("Stopped.", title="Stopped", print_exception=False, duration=3) from error
        except ValueError as error:
            raise gr.Error(str(error), title="This cannot work", print_exception=False) from error
        except gr.Error:
            raise
        except Exception as error:
            logging.exception("in %s", handler.__name__)
            raise gr.Error("Something went wrong on the server. Try again.", print_exception=False) from error

    return wrapper


def named(handler: Callable, names: Iterable[str]) -> Callable:
    """A handler of **values as one with named parameters: the API has their names, and what has no value is optional."""
    first = [inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)]
    takes_request = "request" in inspect.signature(handler).parameters
    optional = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None) for name in names]
    signature = inspect.Signature([*(first if takes_request else []), *optional])

    @functools.wraps(handler)
    def wrapper(*args: Any, **values: Any) -> Any:
        return handler(**signature.bind(*args, **values).arguments)

    wrapper.__signature__ = signature
    return wrapper


def link_of(values: Values, examples: dict[str, str | None], tab: str = "generate") -> str:
    """The query string of what can travel in an address."""
    _, settings, _ = asked(values)
    kept = {f"{name}_scale": scale for name, scale in settings.scales.items()}
    kept |= {name: getattr(settings, name) for name in ("prompt", "seed", "steps")}
    chosen = {name: example for name, example in examples.items() if example}
    kept |= {name: choice(example, "An example", links.EXAMPLES[name]) for name, example in chosen.items()}
    if not examples.get("color"):
        kept["color"] = ", ".join(read_palette(values.get("color_palette") or ""))
    return links.write({**kept, "tab": tab})


# ---------------------------------------------------------------------------------------------------------------------
# Parts of the page
# ---------------------------------------------------------------------------------------------------------------------
@dataclass
class Slot:
    """The components of one granularity."""

    name: str
    example: gr.Dropdown
    picture: gr.Image
    palette: gr.Textbox | None
    card: gr.File
    seen: gr.Image
    scale: gr.Slider

    @property
    def inputs(self) -> dict[str, gr.components.Component]:
        given = {f"{self.name}_picture": self.picture, f"{self.name}_card": self.card}
        return given | ({"color_palette": self.palette} if self.palette is not None else {})

    @property
    def restorable(self) -> list[gr.components.Component]:
        """What a recipe, a link or an example sets, in the order of `slot_values`."""
        return [self.example, self.picture, *([self.palette] if self.palette else []), self.card, self.scale]


def slot_values(name: str, slot: dict[str, Any], scale: float, example: str | None = None) -> list[Any]:
    palette = [slot.get("palette") or ""] if name == "color" else []
    return [example, slot.get("picture"), *palette, slot.get("card"), scale]


def example_values(name: str, example: str | None, scale: float) -> list[Any]:
    """What an example, or a palette of an address, sets."""
    if name != "color":
        return slot_values(name, {"picture": reference(example)}, scale, example)
    palette = ", ".join(reference(example)) if example in links.EXAMPLES["color"] else example
    return slot_values(name, {"palette": palette}, scale, example if example in links.EXAMPLES["color"] else None)


def draw_slot(name: str) -> Slot:
    with gr.Group(elem_id=f"slot-{name}"):
        with gr.Row(equal_height=True):
            picture = gr.Image(
                label=name.capitalize(),
                type="filepath",
                image_mode=None,
                format="png",
                sources=["upload", "clipboard"],
                height=124,
                min_width=120,
                buttons=[],
                placeholder=f"Lends {LENDS[name]}",
                alt_text=f"The {name} reference",
                elem_id=f"{name}-picture",
            )
            seen = gr.Image(
                label="What it sees",
                interactive=False,
                format="png",
                height=124,
                min_width=120,
                buttons=[],
                elem_classes="seen",
                elem_id=f"{name}-seen",
                alt_text=f"What is read from the {name} reference and nothing else",
            )
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
            card = gr.File(
                label=f"A {name} card (.safetensors)",
                file_types=[".safetensors"],
                height=90,
                elem_id=f"{name}-card",
            )
    return Slot(name, example, picture, palette, card, seen, scale)


def buttons(run: str, name: str) -> tuple[gr.Button, gr.Button]:
    """A button that runs a job and one that stops it."""
    with gr.Row():
        start = gr.Button(run, variant="primary", elem_id=f"{name}-run", elem_classes="run-job", scale=3)
        stop = gr.Button("Stop", variant="stop", elem_id=f"{name}-stop", elem_classes="stop-job", min_width=80)
    return start, stop


def bounded(editor: gr.ImageEditor) -> gr.ImageEditor:
    """The editor with a limit to what may wait in memory: layers arrive one by one, before anyone asks for an edit."""
    accept, lock = editor.accept_blobs, threading.Lock()

    def accept_blobs(data: gr.components.image_editor.AcceptBlobs) -> None:
        fields = getattr(data, "data", None)  # `data` is whatever JSON says where no form was sent
        try:
            if not check_layer(fields, getattr(data, "files", None)):
                return
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        with lock:
            while len(editor.blob_storage) >= BLOBS and fields["id"] not in editor.blob_storage:
                editor.blob_storage.pop(next(iter(editor.blob_storage)))
            accept(data)

    accept_blobs._is_server_fn = True  # what `gradio.components.base.server` marks
    editor.accept_blobs = accept_blobs
    return editor


def strokes_of(editor: gr.ImageEditor, payload: Any) -> list[bytes]:
    """The painted layers of an editor as files."""
    if not isinstance(payload, dict):
        return []
    blobs = editor.blob_storage.pop(payload["id"], None) if payload.get("id") else None
    if blobs is not None:
        return [layer for layer in blobs.layers if layer]
    layers = payload.get("layers") or []
    if len(layers) > MAX_LAYERS:
        raise ValueError(f"A picture has at most {MAX_LAYERS} painted layers, there are {len(layers)}. Paint it anew.")
    return [file_bytes(path) for path in map(path_of, layers) if path]


def local(part: Any) -> None:
    """Keep a component from fetching a file that a request names by its address."""
    move = part.async_move_resource_to_block_cache

    async def move_local(path: Any) -> Any:
        if "://" in str(path):
            raise gr.Error("Files are not fetched from elsewhere. Upload the file.", print_exception=False)
        return await move(path)

    part.async_move_resource_to_block_cache = move_local


class Page:
    """The handlers and how they are wired.

    Args:
        studio: does the work.
    """

    def __init__(self, studio: Studio):
        self.studio = studio
        self.jobs: list[Any] = []  # events that Stop ends

        def work(task: str, session: str, *args: Any) -> Any:
            """A job of the studio with progress on the page, until it is done or stopped."""
            sign, progress = StopSign(studio.shelf, session), gr.Progress()
            sign.take_down()
            try:
                return getattr(studio, task)(
                    *args, report=lambda part, text: progress(part, text), is_stopped=sign.is_up
                )
            finally:
                sign.take_down()

        self.run = on_gpu(work)  # by name, with plain arguments: on ZeroGPU they go to another process

    # -- handlers -----------------------------------------------------------------------------------------------------
    def stop(self, request: gr.Request) -> None:
        StopSign(self.studio.shelf, request.session_hash or "").put_up()

    def generate(self, request: gr.Request, **values: Any) -> tuple[list[tuple[str, str]], list[str]]:
        """Pictures from references and a prompt."""
        given, settings, model = asked(values)
        paths = self.run("generate", request.session_hash or "", given, settings, model)
        return [(str(path), path.stem) for path in paths], [str(path) for path in paths]

    def generate_live(self, request: gr.Request, **values: Any) -> Any:
        """The same, when a strength was moved where pictures are shown."""
        if not values.pop("live") or values.pop("tab") != "generate":
            return gr.skip(), gr.skip()
        return self.generate(request, **values)

    def mask_of(self, size: tuple[int, int], values: Values) -> Any:
        uploaded = path_of(values.get("mask"))
        strokes = strokes_of(self.editor, values.get("painted"))
        return combine_masks(size, uploaded and file_bytes(uploaded), strokes, bool(values.get("invert")))

    def edit_of(self, values: Values) -> Edit:
        path = path_of(values.get("photo"))
        if path is None:
            raise ValueError("There is no picture to edit. Give one first.")
        photo, profile = read_photo(file_bytes(path))
        mask = self.mask_of(photo.size, values)
        added = tuple(values.get(side, 0) for side in SIDES)
        return Edit(photo, mask, values.get("action"), values.get("feather"), added, profile)

    def edit(self, request: gr.Request, **values: Any) -> tuple[tuple[Any, str], str, str]:
        given, settings, model = asked(values)
        edit = self.edit_of(values)
        before, path, differing = self.run("edit", request.session_hash or "", given, settings, edit, model)
        size = (before.width, before.height)
        text = f"{size[0]} x {size[1]} pixels. Pixels outside the mask that differ: {differing}."
        return (before, str(path)), str(path), text

    def show_photo(self, photo: Any) -> Any:
        """The picture to edit on the canvas."""
        path = path_of(photo)
        if path is None:
            return None
        image, _ = read_photo(file_bytes(path))
        image.thumbnail((CANVAS, CANVAS))
        return {"background": image, "layers": [], "composite": image}

    def show_polarity(self, **values: Any) -> tuple[Any, str]:
        if not values.get("photo"):
            return None, "No picture yet."
        photo, _ = read_photo(file_bytes(path_of(values["photo"])))
        return show_mask(photo, self.mask_of(photo.size, values))

    def sweep(self, request: gr.Request, **values: Any) -> tuple[str, str, list[tuple[str, str]]]:
        given, settings, model = asked(values)
        across = Axis(values.get("across"), values.get("columns"), values.get("top"))
        second = values.get("down")
        down = None if second in (None, "nothing") else Axis(second, values.get("rows"), values.get("top"))
        sheet, made = self.run("sweep", request.session_hash or "", given, settings, across, down, model)
        return str(sheet), str(sheet), [(str(path), caption) for path, caption in made]

    def explain(self, request: gr.Request, **values: Any) -> tuple[str, str, str]:
        given, settings, model = asked(values)
        path, drawn, table = self.run("explain", request.session_hash or "", given, settings, model)
        return str(path), str(drawn), table

    def make_card(self, granularity: str, **values: Any) -> str:
        if granularity not in GRANULARITIES:
            raise ValueError(f"A card is of one of {', '.join(GRANULARITIES)}.")
        return str(self.studio.make_card(granularity, slot_of(granularity, values), values.get("model")))

    def mix(self, request: gr.Request, **values: Any) -> tuple[Any, str, str]:
        given, settings, model = asked(values)
        cards = (path_of(values.get("first_card")), path_of(values.get("second_card")))
        seen, path = self.run(
            "mix",
            request.session_hash or "",
            values.get("granularity"),
            cards,
            values.get("share"),
            given,
            settings,
            model,
        )
        return seen, str(path), str(path)

    def restore(self, file: Any) -> list[Any]:
        """Values for everything that a recipe sets, in the order of `restorable`."""
        path = path_of(file)
        if path is None:
            return [gr.skip()] * len(self.restorable)
        found = restore(file_bytes(path), self.studio.shelf, self.studio.models.names)
        for note in found.notes:
            gr.Warning(note)
        gr.Info("Everything is set as it was." if not found.notes else "Set as far as it can be.", duration=4)
        values = []
        for name in GRANULARITIES:
            values += slot_values(name, found.given[name], found.settings.scales[name])
        settings = found.settings
        values += [settings.prompt, settings.seed, settings.steps, found.model or self.studio.models.names[0], 1]
        values.append(gr.Tabs(selected=found.tab))
        return values + self.restored_edit(found.edit) + self.restored_mix(found)

    def restored_edit(self, edit: Edit | None) -> list[Any]:
        if edit is None:
            return [gr.skip()] * len(self.edit_parts)
        mask = None
        if edit.mask is not None:
            mask = str(self.studio.shelf.new("mask.png"))
            edit.mask.save(mask)
        photo = str(self.studio.shelf.new("photo.png"))
        edit.photo.save(photo, icc_profile=edit.profile)
        return [photo, mask, False, edit.action, edit.feather, *edit.added]

    def restored_mix(self, found: Any) -> list[Any]:
        if found.mixed is None:
            return [gr.skip()] * 4
        name, share, first, second = found.mixed
        return [name, first, second, share]

    def open(self, request: gr.Request) -> list[Any]:
        """What a page shows when it is opened: what its address says, or the start."""
        found, complaints = links.parse(dict(request.query_params), self.studio.models.names)
        for complaint in complaints:
            gr.Warning(complaint)
        asks_references = any(name in found for name in GRANULARITIES)
        values = []
        for name in GRANULARITIES:
            example, scale = (
                found.get(name, None if asks_references else links.START[name]),
                found.get(f"{name}_scale", 1.0),
            )
            values += slot_values(name, {}, scale) if example is None else example_values(name, example, scale)
        values += [found.get("prompt", ""), found.get("seed", 0), found.get("steps", 20)]
        values += [found.get("model", self.studio.models.names[0]), 1]
        return [*values, gr.Tabs(selected=found.get("tab", "generate"))]

    def surprise(self) -> list[Any]:
        values = []
        for name in GRANULARITIES:
            values += example_values(name, random.choice(links.EXAMPLES[name]), 1.0)
        return values

    # -- layout -------------------------------------------------------------------------------------------------------
    def draw_references(self) -> None:
        gr.Markdown("### References\nEach lends one thing; strength 0 is off, 1 as trained. They serve every tab.")
        self.slots = [draw_slot(name) for name in GRANULARITIES]
        with gr.Row():
            self.lucky = gr.Button("Surprise me", size="sm", elem_id="surprise")
        self.prompt = gr.Textbox(
            label="Prompt (optional)", placeholder="a red flower", max_lines=2, max_length=300, elem_id="prompt"
        )
        with gr.Row():
            self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=100, elem_id="seed")
            self.steps = gr.Slider(1, MAX_STEPS, 20, step=1, label="Steps", min_width=140, elem_id="steps")
        self.live = gr.Checkbox(True, label="Make a new picture when a strength changes", elem_id="live")
        self.keep = gr.Checkbox(
            True, label="Results carry their references, so that they can be restored", elem_id="keep"
        )
        names = self.studio.models.names
        self.model = gr.Dropdown(
            names, value=names[0], label="Model", visible=len(names) > 1, interactive=True, elem_id="model"
        )
        with gr.Accordion("Restore from a result", open=False):
            self.dropped = gr.File(
                label="Drop a PNG made here: everything is set as it was",
                file_types=[".png"],
                height=110,
                elem_id="restore",
            )

    def draw_generate(self) -> None:
        self.count = gr.Slider(1, MAX_COUNT, 1, step=1, label="Pictures (seeds count up)", elem_id="count")
        self.generate_run, self.generate_stop = buttons("Generate", "generate")
        self.gallery = gr.Gallery(
            label="Pictures",
            columns=2,
            height=440,
            object_fit="contain",
            format="png",
            interactive=False,
            buttons=["download", "fullscreen"],
            preview=True,
            elem_id="gallery",
        )
        self.files = gr.File(
            label="Download: each file holds its recipe",
            file_count="multiple",
            interactive=False,
            height=110,
            elem_id="files",
        )
        self.link = gr.Textbox(
            label="Address of these settings (examples and palettes travel, pictures do not)",
            interactive=False,
            placeholder="known when a picture is made",
            buttons=["copy"],
            max_lines=1,
            elem_id="link",
        )

    def draw_edit(self) -> None:
        with gr.Row():
            with gr.Column(min_width=280):
                self.photo = gr.Image(
                    label="Picture to edit",
                    type="filepath",
                    image_mode=None,
                    format="png",
                    sources=["upload", "clipboard"],
                    height=220,
                    buttons=[],
                    alt_text="The picture to edit",
                    elem_id="photo",
                )
                self.sample = gr.Button("Use the drawn example", size="sm", elem_id="edit-example")
                self.editor = bounded(
                    gr.ImageEditor(
                        label="Paint the mask",
                        type="filepath",
                        sources=(),
                        transforms=(),
                        layers=False,
                        format="png",
                        brush=gr.Brush(default_size=28, colors=["#ff00aa"], color_mode="fixed"),
                        eraser=gr.Eraser(default_size=28),
                        canvas_size=(CANVAS, CANVAS),
                        height=480,
                        buttons=[],
                        elem_id="editor",
                    )
                )
            with gr.Column(min_width=280):
                self.action = gr.Radio(list(ACTIONS), value="repaint", label="Edit", elem_id="action")
                self.meaning = gr.Markdown(ACTIONS["repaint"][0].capitalize() + ".", elem_id="meaning")
                self.feather = gr.Slider(0, MAX_FEATHER, 0, step=1, label="Soft edge (pixels)", elem_id="feather")
                with gr.Accordion("Mask from a file", open=False):
                    self.mask = gr.Image(
                        label="Mask of the picture's size; white is repainted",
                        type="filepath",
                        image_mode=None,
                        format="png",
                        sources=["upload"],
                        height=180,
                        buttons=[],
                        alt_text="The uploaded mask",
                        elem_id="mask",
                    )
                self.invert = gr.Checkbox(False, label="Repaint everything else instead", elem_id="invert")
                with gr.Accordion("Pixels to add (outpaint)", open=False), gr.Row():
                    self.sides = [
                        gr.Number(0, label=side, precision=0, minimum=0, maximum=MAX_ADDED, min_width=70)
                        for side in SIDES
                    ]
                self.polarity = gr.Image(
                    label="What will be repainted",
                    interactive=False,
                    format="png",
                    height=260,
                    buttons=[],
                    alt_text="The picture; what will be repainted is hatched",
                    elem_id="polarity",
                )
                self.polarity_text = gr.Markdown("No picture yet.", elem_id="polarity-text")
        self.edit_run, self.edit_stop = buttons("Edit", "edit")
        self.compared = gr.ImageSlider(
            label="Before | after", interactive=False, format="png", max_height=480, elem_id="compared"
        )
        self.edited_text = gr.Markdown(elem_id="edited-text")
        self.edited = gr.File(label="Download: holds its recipe", interactive=False, height=110, elem_id="edited")
        self.edit_parts = [self.photo, self.mask, self.invert, self.action, self.feather, *self.sides]

    def draw_explore(self) -> None:
        gr.Markdown("#### Sweep: one or two strengths change, all else stays")
        with gr.Row():
            self.across = gr.Dropdown(
                list(GRANULARITIES), value="shape", label="Across", min_width=130, elem_id="across"
            )
            self.columns = gr.Slider(
                2, MAX_SWEEP, 5, step=1, label="Pictures across", min_width=180, elem_id="columns"
            )
            self.top = gr.Slider(0.5, MAX_SCALE, 1.5, step=0.1, label="Up to strength", min_width=180, elem_id="top")
        with gr.Row():
            self.down = gr.Dropdown(
                ["nothing", *GRANULARITIES], value="nothing", label="Down", min_width=130, elem_id="down"
            )
            self.rows = gr.Slider(2, MAX_SWEEP, 3, step=1, label="Pictures down", min_width=180, elem_id="rows")
        self.sweep_run, self.sweep_stop = buttons("Sweep", "sweep")
        self.sheet = gr.Image(
            label="Sweep",
            show_label=False,
            interactive=False,
            type="filepath",
            format="png",
            buttons=["fullscreen"],
            alt_text="Pictures in which only the named strengths differ",
            elem_id="sheet",
        )
        with gr.Accordion("The pictures one by one", open=False):
            self.swept = gr.Gallery(
                label="Each file holds its recipe",
                columns=4,
                format="png",
                interactive=False,
                buttons=["download"],
                elem_id="swept",
            )
            self.sheet_file = gr.File(label="Download the sheet", interactive=False, height=110)
        gr.Markdown(
            "#### Explain: what each reference did, and what leaked\n"
            "The maps show where a reference moved the picture, the curves in which steps. The table: how far the result is "
            "from each reference, smaller is nearer, the nearest in bold."
        )
        self.explain_run, self.explain_stop = buttons("Explain", "explain")
        with gr.Row():
            self.explained = gr.Image(
                label="Picture",
                interactive=False,
                type="filepath",
                format="png",
                height=220,
                min_width=160,
                buttons=["download"],
                alt_text="The picture that is explained",
                elem_id="explained",
            )
            self.maps = gr.Image(
                label="Maps and curves",
                show_label=False,
                interactive=False,
                type="filepath",
                format="png",
                height=220,
                scale=2,
                min_width=260,
                buttons=["fullscreen"],
                alt_text="For each granularity a map over the picture and a curve over the steps",
                elem_id="maps",
            )
        self.table = gr.Markdown(elem_id="nearness")

    def draw_cards(self) -> None:
        gr.Markdown(
            "A card keeps one granularity of a reference, without the picture. It serves wherever a picture does."
        )
        self.granularity = gr.Radio(list(GRANULARITIES), value="texture", label="Granularity", elem_id="granularity")
        with gr.Row():
            self.card_run = gr.Button("Make a card of its reference", elem_id="card-run", variant="primary")
            self.card_use = gr.Button("Put it in place of the reference", elem_id="card-use")
        self.card = gr.File(label="The card", interactive=False, height=110, elem_id="card")
        gr.Markdown("#### Mix two cards\nThe other references, words and numbers are those of this page.")
        with gr.Row():
            self.first = gr.File(
                label="First card", file_types=[".safetensors"], height=110, min_width=240, elem_id="first-card"
            )
            self.second = gr.File(
                label="Second card", file_types=[".safetensors"], height=110, min_width=240, elem_id="second-card"
            )
        self.share = gr.Slider(0, 1, 0.5, step=0.05, label="Share of the second card", elem_id="share")
        self.mix_run, self.mix_stop = buttons("Mix", "mix")
        with gr.Row():
            self.mixed_seen = gr.Image(
                label="What the granularity sees of the mix",
                interactive=False,
                format="png",
                height=220,
                min_width=140,
                buttons=[],
                alt_text="What is read from the mix",
            )
            self.mixed = gr.Image(
                label="Picture",
                interactive=False,
                type="filepath",
                format="png",
                height=220,
                min_width=140,
                buttons=[],
                alt_text="The picture made with the mix",
                elem_id="mixed",
            )
        self.mixed_file = gr.File(
            label="Download: holds its recipe", interactive=False, height=110, elem_id="mixed-file"
        )

    def draw_about(self) -> None:
        gr.Markdown(ABOUT)
        with gr.Accordion("The model card", open=False):
            gr.Markdown(card_of(self.studio.models.card_text()), elem_id="model-card")

    # -- wiring -------------------------------------------------------------------------------------------------------
    @property
    def shared(self) -> dict[str, gr.components.Component]:
        """The inputs of every job, by the names that the API has for them."""
        slots = {
            key: part for slot in self.slots for key, part in {**slot.inputs, f"{slot.name}_scale": slot.scale}.items()
        }
        return {
            **slots,
            "prompt": self.prompt,
            "seed": self.seed,
            "steps": self.steps,
            "keep": self.keep,
            "model": self.model,
        }

    @property
    def openable(self) -> list[gr.components.Component]:
        slots = [part for slot in self.slots for part in slot.restorable]
        return [*slots, self.prompt, self.seed, self.steps, self.model, self.count, self.tabs]

    @property
    def restorable(self) -> list[gr.components.Component]:
        mix = [self.granularity, self.first, self.second, self.share]
        return [*self.openable, *self.edit_parts, *mix]

    def job(self, button: gr.Button, handler: Callable, outputs: list[Any], api: str, **more: Any) -> None:
        """A button that runs a job under a name of the API."""
        inputs = {**self.shared, **more}
        event = button.click(
            told(named(handler, inputs)),
            inputs_kwargs=inputs,
            outputs=outputs,
            api_name=api,
            show_progress_on=outputs[0],
            **MODEL,
            **RAW,
        )
        self.jobs.append(event)

    def wire_slots(self) -> None:
        for slot in self.slots:
            self.wire_sight(slot)
            given = [slot.picture, *([slot.palette] if slot.palette else []), slot.card]
            slot.example.input(
                lambda example, name=slot.name: example_values(name, example, 1.0)[1:-1],
                slot.example,
                given,
                api_visibility="private",
                **LIGHT,
            )
            # What a visitor gives is no example any more.
            theirs = [slot.picture.upload, slot.picture.clear, slot.card.upload]
            theirs += [slot.palette.input] if slot.palette else []
            gr.on(
                theirs, lambda: None, None, slot.example, queue=False, api_visibility="private", show_progress="hidden"
            )
        self.lucky.click(
            self.surprise,
            None,
            [part for slot in self.slots for part in slot.restorable],
            api_visibility="private",
            **LIGHT,
        )

    def wire_sight(self, slot: Slot) -> None:
        """What a granularity sees follows what is given for it."""

        def see(**values: Any) -> Any:
            try:
                return self.studio.see(slot.name, slot_of(slot.name, values), values.get("model"))
            except ValueError as error:
                gr.Warning(str(error), title="This cannot be read")
                return None  # what was seen before is not what is given now

        def see_while_typing(**values: Any) -> Any:
            try:
                return self.studio.see(slot.name, slot_of(slot.name, values), values.get("model"))
            except ValueError:
                return gr.skip()

        inputs = {**slot.inputs, "model": self.model}
        more = {"inputs_kwargs": inputs, "outputs": slot.seen, "trigger_mode": "always_last", **LIGHT, **RAW}
        changed = [slot.picture.change, slot.card.change]
        changed += [slot.palette.submit, slot.palette.blur] if slot.palette else []
        gr.on(changed, told(see), api_visibility="private", **more)
        if slot.palette:
            slot.palette.change(told(see_while_typing), api_visibility="private", **more)

    def wire_generate(self) -> None:
        outputs = [self.gallery, self.files]
        self.job(self.generate_run, self.generate, outputs, "generate", count=self.count)
        inputs = {**self.shared, "count": self.count}
        live = {**inputs, "live": self.live, "tab": self.tab}
        moved = gr.on(
            [slot.scale.release for slot in self.slots],
            told(self.generate_live),
            inputs_kwargs=live,
            outputs=outputs,
            trigger_mode="always_last",
            api_visibility="private",
            show_progress_on=self.gallery,
            **MODEL,
            **RAW,
        )
        entered = self.prompt.submit(
            told(self.generate),
            inputs_kwargs=inputs,
            outputs=outputs,
            api_visibility="private",
            show_progress_on=self.gallery,
            **MODEL,
            **RAW,
        )
        self.jobs += [moved, entered]
        for event in self.jobs[-3:]:
            event.success(
                told(self.show_link),
                inputs_kwargs={
                    **self.shared,
                    **{f"{slot.name}_example": slot.example for slot in self.slots},
                    "tab": self.tab,
                },
                outputs=self.link,
                api_visibility="private",
                **LIGHT,
                **RAW,
            )

    def show_link(self, **values: Any) -> str:
        return link_of(values, {name: values[f"{name}_example"] for name in GRANULARITIES}, values["tab"])

    def wire_edit(self) -> None:
        given = {"photo": self.photo, "mask": self.mask, "painted": self.editor, "invert": self.invert}
        more = {"action": self.action, "feather": self.feather, **dict(zip(SIDES, self.sides, strict=True))}
        outputs = [self.compared, self.edited, self.edited_text]
        self.job(self.edit_run, self.edit, outputs, "edit", **given, **more)
        private = {"api_visibility": "private", **LIGHT}
        self.action.change(
            lambda action: ACTIONS[action][0].capitalize() + "." if action in ACTIONS else "",
            self.action,
            self.meaning,
            **private,
        )
        self.sample.click(scene, None, self.photo, **private)
        self.photo.change(told(self.show_photo), self.photo, self.editor, **private, **RAW)
        gr.on(
            [self.photo.change, self.mask.change, self.editor.change, self.invert.change],
            told(self.show_polarity),
            inputs_kwargs=given,
            outputs=[self.polarity, self.polarity_text],
            trigger_mode="always_last",
            **private,
            **RAW,
        )

    def wire_explore(self) -> None:
        axes = {"across": self.across, "columns": self.columns, "down": self.down, "rows": self.rows, "top": self.top}
        self.job(self.sweep_run, self.sweep, [self.sheet, self.sheet_file, self.swept], "sweep", **axes)
        self.job(self.explain_run, self.explain, [self.explained, self.maps, self.table], "explain")

    def wire_cards(self) -> None:
        inputs = {"granularity": self.granularity, **self.shared}
        self.card_run.click(
            told(named(self.make_card, inputs)),
            inputs_kwargs=inputs,
            outputs=self.card,
            api_name="make_card",
            **LIGHT,
            **RAW,
        )
        self.card_use.click(
            told(self.use_card),
            inputs_kwargs={"granularity": self.granularity, "card": self.card},
            outputs=[part for slot in self.slots for part in slot.restorable],
            api_visibility="private",
            **LIGHT,
            **RAW,
        )
        more = {
            "granularity": self.granularity,
            "first_card": self.first,
            "second_card": self.second,
            "share": self.share,
        }
        self.job(self.mix_run, self.mix, [self.mixed_seen, self.mixed, self.mixed_file], "mix", **more)

    def use_card(self, granularity: str, card: Any) -> list[Any]:
        """The card that was made in its slot, in place of what is there."""
        path = path_of(card)
        if path is None:
            raise ValueError("There is no card yet. Make one first.")
        values = []
        for slot in self.slots:
            count = len(slot.restorable)
            mine = [*slot_values(slot.name, {"card": path}, 1.0)[:-1], gr.skip()]
            values += mine if slot.name == granularity else [gr.skip()] * count
        return values

    def wire_page(self, page: gr.Blocks) -> None:
        page.load(self.open, None, self.openable, api_visibility="private", **LIGHT)
        self.dropped.upload(
            told(self.restore), self.dropped, self.restorable, api_visibility="private", **LIGHT, **RAW
        )
        stops = [self.generate_stop, self.edit_stop, self.sweep_stop, self.explain_stop, self.mix_stop]
        # Outside the queue, so that a full one does not keep a job alive; only what is in it can show a message.
        stopped = gr.on(
            [button.click for button in stops],
            self.stop,
            None,
            None,
            cancels=self.jobs,
            queue=False,
            api_visibility="private",
            show_progress="hidden",
        )
        stopped.then(lambda: gr.Info("Stopped.", duration=4), None, None, api_visibility="private", **LIGHT)
        page.unload(self.leave)

    def leave(self, request: gr.Request) -> None:
        """Nobody waits any more for the job of a page that was closed."""
        StopSign(self.studio.shelf, request.session_hash or "").put_up()

    def build(self) -> gr.Blocks:
        with gr.Blocks(title="MG-Diffusion", analytics_enabled=False, delete_cache=(AGE // 6, AGE)) as page:
            gr.Markdown(
                "# MG-Diffusion\nWhat do **color**, **texture** and **shape** each do? Move one slider and see."
            )
            self.tab = gr.State("generate")
            with gr.Row():
                with gr.Column(scale=4, min_width=280):
                    self.draw_references()
                with gr.Column(scale=7, min_width=280), gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as self.tabs:
                    drawn = {
                        "generate": self.draw_generate,
                        "edit": self.draw_edit,
                        "explore": self.draw_explore,
                        "cards": self.draw_cards,
                        "about": self.draw_about,
                    }
                    for name, draw in drawn.items():
                        with gr.Tab(name.capitalize(), id=name) as tab:
                            draw()
                        tab.select(
                            lambda name=name: name,
                            None,
                            self.tab,
                            queue=False,
                            api_visibility="private",
                            show_progress="hidden",
                        )
            self.wire_slots()
            self.wire_generate()
            self.wire_edit()
            self.wire_explore()
            self.wire_cards()
            self.wire_page(page)
        for part in page.blocks.values():
            local(part)
        page.queue(max_size=QUEUE, default_concurrency_limit=1, api_open=False)
        return page


# ---------------------------------------------------------------------------------------------------------------------
# The server
# ---------------------------------------------------------------------------------------------------------------------
def theme() -> gr.Theme:
    """Calm, and without fonts from elsewhere."""
    fonts = ["system-ui", "sans-serif"]
    return gr.themes.Base(
        primary_hue="teal", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "monospace"], radius_size="sm"
    )


def launch(page: gr.Blocks, **options: Any) -> tuple[Any, str, str]:
    """Serve the page; `options` go to `Blocks.launch`."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return page.launch(
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
        state_session_capacity=1000,
        app_kwargs={"middleware": [Middleware(Gate, limit=MAX_BYTES + 2**20, closed=("/gradio_api/deep_link",))]},
        **options,
    )


def load_early(studio: Studio) -> None:
    try:
        studio.models.get()
    except (ValueError, OSError) as error:  # the page tells it as well, whenever someone asks for a picture
        print(f"error: the model cannot be loaded: {error}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Serve the page; MG_MODEL and MG_SAFETY_CHECK: docs/demo.md")
    parser.add_argument("--open", action="store_true", help="open it in a browser")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    options = parser.parse_args(arguments)
    try:
        studio = Studio(check=named_check(os.environ.get("MG_SAFETY_CHECK")))
        page = Page(studio).build()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    # The page opens at once; the first picture waits for the rest of the loading only.
    threading.Thread(target=load_early, args=(studio,), daemon=True).start()
    try:
        launch(page, inbrowser=options.open, server_port=options.port)
    finally:
        studio.shelf.close()


if __name__ == "__main__":
    main()
