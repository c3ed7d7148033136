"""The tab Edit: a picture, a mask, and what becomes of it."""

from collections.abc import Callable
from typing import Any

import gradio as gr
import PIL.Image
import PIL.ImageChops

from demo.edits import ACTIONS, SIDES, Edit, combine_masks, show_mask
from demo.page.painting import CANVAS, draw_editor, strokes_of
from demo.page.parts import PRIVATE, RAW, asked_picture, buttons, result_file, shown_picture
from demo.page.values import Values, asked, path_of, told
from demo.page.work import Work
from demo.references import scene
from demo.selecting import MAX_TOLERANCE, grown, region_at, region_of
from demo.settings import MAX_ADDED, MAX_FEATHER
from demo.uploads import file_bytes, read_photo


def meaning_of(action: Any) -> str:
    return ACTIONS[action][0].capitalize() + "." if action in ACTIONS else ""


def reads_mask(action: Any) -> bool:
    """Whether an edit does; of what is no edit, `Edit` will tell."""
    return not isinstance(action, str) or ACTIONS.get(action, ("", ""))[1] != "unused"


def not_read(action: str) -> str:
    return f"{action.capitalize()} takes the whole picture; no mask is read."


class EditTab:
    def __init__(self, work: Work):
        self.work = work
        with gr.Row():
            with gr.Column(min_width=280):
                self.draw_picture()
            with gr.Column(min_width=280):
                self.draw_choices()
        self.run, self.stop = buttons("Edit", "edit")
        self.compared = gr.ImageSlider(
            label="Before | after", interactive=False, format="png", max_height=480, elem_id="compared"
        )
        self.text = gr.Markdown(elem_id="edited-text")
        self.edited = result_file("Download: holds its recipe", "edited")

    def draw_picture(self) -> None:
        self.photo = asked_picture("Picture to edit", "photo", "The picture to edit", height=220)
        self.sample = gr.Button("Use the drawn example", size="sm", elem_id="edit-example")
        self.editor = draw_editor()
        with gr.Row():
            self.turn = gr.Button("Invert mask", size="sm", elem_id="mask-invert")
            self.grow = gr.Button("Grow mask", size="sm", elem_id="mask-grow")
        with gr.Row():
            self.color = gr.ColorPicker("#c81e1e", label="Color", min_width=80, elem_id="select-color")
            self.tolerance = gr.Slider(
                1, MAX_TOLERANCE, 20, step=1, label="Tolerance", min_width=120, elem_id="select-tolerance"
            )
            self.by_color = gr.Button("Select this color", size="sm", elem_id="select-by-color")

    def draw_choices(self) -> None:
        self.action = gr.Radio(list(ACTIONS), value="repaint", label="Edit", elem_id="action")
        self.meaning = gr.Markdown(meaning_of("repaint"), elem_id="meaning")
        self.feather = gr.Slider(0, MAX_FEATHER, 0, step=1, label="Soft edge (pixels)", elem_id="feather")
        with gr.Accordion("Mask from a file", open=False):
            label = "Mask of the picture's size; white is repainted"
            self.mask = asked_picture(label, "mask", "The uploaded mask", height=180, sources=["upload"])
        self.invert = gr.Checkbox(False, label="Repaint everything else instead", elem_id="invert")
        self.adding = gr.Accordion("Pixels to add (outpaint)", open=False)
        with self.adding, gr.Row():
            self.sides = [
                gr.Number(0, label=side, precision=0, minimum=0, maximum=MAX_ADDED, min_width=70) for side in SIDES
            ]
        alt = "The picture; what will be repainted is hatched; a click selects what is connected and of that color"
        label = "What will be repainted; click to select more"
        self.polarity = shown_picture(label, "polarity", alt, height=260)
        self.polarity_text = gr.Markdown("No picture yet.", elem_id="polarity-text")

    # -- handlers -----------------------------------------------------------------------------------------------------
    def mask_of(self, size: tuple[int, int], values: Values) -> Any:
        uploaded = path_of(values.get("mask"))
        strokes = strokes_of(self.editor, values.get("painted"))
        return combine_masks(size, uploaded and file_bytes(uploaded), strokes, bool(values.get("invert")))

    def edit_of(self, values: Values) -> Edit:
        if (path := path_of(values.get("photo"))) is None:
            raise ValueError("There is no picture to edit. Give one first.")
        photo, profile = read_photo(file_bytes(path))
        mask, added = self.mask_of(photo.size, values), tuple(values.get(side, 0) for side in SIDES)
        return Edit(photo, mask, values.get("action"), values.get("feather"), added, profile)

    def edit(self, request: gr.Request, **values: Any) -> tuple[tuple[Any, str], str, str]:
        """A picture, what is repainted in it, and references."""
        given, settings, model = asked(values)
        edit = self.edit_of(values)
        before, path, differing = self.work.run("edit", request, given, settings, edit, model)
        said = f"{before.width} x {before.height} pixels. Pixels outside the mask that differ: {differing}."
        if edit.mask is not None and not reads_mask(edit.action):
            said += f" {not_read(edit.action)}"
        return (before, str(path)), str(path), said

    def extended(self, photo: Any, mask: Any, more: Callable[[PIL.Image.Image], PIL.Image.Image]) -> str:
        """A file of the uploaded mask, and more of the photo beside."""
        if (path := path_of(photo)) is None:
            raise ValueError("There is no picture to select in. Give one first.")
        image, _ = read_photo(file_bytes(path))
        uploaded = path_of(mask)
        before = combine_masks(image.size, uploaded and file_bytes(uploaded), [])
        region = more(image)
        return self.mask_file(region if before is None else PIL.ImageChops.lighter(before, region))

    def mask_file(self, mask: PIL.Image.Image) -> str:
        path = str(self.work.studio.shelf.new("mask.png"))
        mask.save(path)
        return path

    def select_at(self, photo: Any, mask: Any, tolerance: Any, clicked: gr.SelectData) -> str:
        """The mask with what is connected with the pixel that was clicked on."""
        return self.extended(photo, mask, lambda image: region_at(image, clicked.index, tolerance))

    def select_by_color(self, photo: Any, mask: Any, tolerance: Any, color: Any) -> str:
        """The mask with what has a color."""
        return self.extended(photo, mask, lambda image: region_of(image, color, tolerance))

    def grow_mask(self, **values: Any) -> str:
        """What was painted and uploaded, a little larger."""
        if (path := path_of(values.get("photo"))) is None:
            raise ValueError("There is no picture, so there is no mask. Give one first.")
        photo, _ = read_photo(file_bytes(path))
        mask = self.mask_of(photo.size, {**values, "invert": False})
        if mask is None:
            raise ValueError("There is no mask that could grow. Paint one, or select something.")
        return self.mask_file(grown(mask))

    def show_meaning(self, action: Any) -> list[Any]:
        return [meaning_of(action), gr.Accordion(open=action == "outpaint")]

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
        if not reads_mask(values.get("action")):
            return show_mask(photo, None)[0], not_read(values.get("action"))
        return show_mask(photo, self.mask_of(photo.size, values))

    # -- what a result sets -------------------------------------------------------------------------------------------
    @property
    def restorable(self) -> list[gr.components.Component]:
        return [self.photo, self.mask, self.invert, self.action, self.feather, *self.sides]

    def restored(self, edit: Edit | None) -> list[Any]:
        """Values of `restorable` from the edit that a result came from."""
        if edit is None:
            return [gr.skip()] * len(self.restorable)
        shelf, mask = self.work.studio.shelf, None
        if edit.mask is not None:
            mask = self.mask_file(edit.mask)
        photo = str(shelf.new("photo.png"))
        edit.photo.save(photo, icc_profile=edit.profile)
        return [photo, mask, False, edit.action, edit.feather, *edit.added]

    # -- wiring -------------------------------------------------------------------------------------------------------
    def wire(self) -> None:
        given = {"photo": self.photo, "mask": self.mask, "painted": self.editor, "invert": self.invert}
        more = {"action": self.action, "feather": self.feather, **dict(zip(SIDES, self.sides, strict=True))}
        self.work.button(self.run, self.edit, [self.compared, self.edited, self.text], "edit", **given, **more)
        self.action.change(self.show_meaning, self.action, [self.meaning, self.adding], **PRIVATE)
        self.sample.click(scene, None, self.photo, **PRIVATE)
        self.photo.change(told(self.show_photo), self.photo, self.editor, **PRIVATE, **RAW)
        self.turn.click(lambda inverted: not inverted, self.invert, self.invert, **PRIVATE)
        self.grow.click(told(self.grow_mask), inputs_kwargs=given, outputs=self.mask, **PRIVATE, **RAW)
        selecting = [self.photo, self.mask, self.tolerance]
        self.polarity.select(told(self.select_at), selecting, self.mask, **PRIVATE, **RAW)
        self.by_color.click(told(self.select_by_color), [*selecting, self.color], self.mask, **PRIVATE, **RAW)
        inputs, shown = {**given, "action": self.action}, [self.polarity, self.polarity_text]
        options = {"inputs_kwargs": inputs, "outputs": shown, "trigger_mode": "always_last", **PRIVATE, **RAW}
        gr.on([part.change for part in inputs.values()], told(self.show_polarity), **options)
