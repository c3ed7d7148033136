"""The tab Edit: a picture, a mask, and what becomes of it."""

from typing import Any

import gradio as gr

from demo.edits import ACTIONS, SIDES, Edit, combine_masks, show_mask
from demo.page.painting import CANVAS, draw_editor, strokes_of
from demo.page.parts import PRIVATE, RAW, asked_picture, buttons, result_file, shown_picture
from demo.page.values import Values, asked, path_of, told
from demo.page.work import Work
from demo.references import scene
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
        alt = "The picture; what will be repainted is hatched"
        self.polarity = shown_picture("What will be repainted", "polarity", alt, height=260)
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
            mask = str(shelf.new("mask.png"))
            edit.mask.save(mask)
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
        inputs, shown = {**given, "action": self.action}, [self.polarity, self.polarity_text]
        options = {"inputs_kwargs": inputs, "outputs": shown, "trigger_mode": "always_last", **PRIVATE, **RAW}
        gr.on([part.change for part in inputs.values()], told(self.show_polarity), **options)
