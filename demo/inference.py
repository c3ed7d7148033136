"""What the demo does, without its page: pictures, edits, sweeps, explanations and granularity cards from checked inputs.

    studio = Studio()
    given = {"color": {"palette": "#023047, #219ebc"}, "shape": {"picture": "leaf.png"}}
    (path,) = studio.generate(given, Settings(dict.fromkeys(GRANULARITIES, 1.0)))

`given` holds, by granularity, paths of uploads and palettes: {"picture": path, "palette": text, "card": path}, each
optional; what is given for one granularity is averaged. Results are PNG files on a `Shelf`, with their recipe. Every
method raises `ValueError` with a message that can be shown, and `Stopped` where its job was stopped.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

from demo import sheets, uploads, views
from demo.checked_references import CheckedReference
from demo.edits import Edit
from demo.jobs import Job
from demo.models import Loaded, Models
from demo.nearness import as_table, nearness
from demo.safety import Check, hold_back
from demo.settings import ASPECTS, MAX_SCALE, MAX_SWEEP, Settings, choice, number, whole
from demo.shelf import Shelf
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.recipe import save_png


Given = dict[str, dict[str, Any]]
References = dict[str, list[CheckedReference]]
SHOWN = 192  # pixels on the shorter side of what is drawn over, at least


@dataclass(frozen=True)
class Axis:
    """One strength that a sweep takes from 0 to `top` in `count` pictures."""

    granularity: str
    count: int
    top: float

    def __post_init__(self):
        choice(self.granularity, "What is swept", GRANULARITIES)
        object.__setattr__(self, "count", whole(self.count, "The number of strengths", 2, MAX_SWEEP))
        object.__setattr__(self, "top", number(self.top, "The largest strength", 0.1, MAX_SCALE))

    @property
    def values(self) -> list[float]:
        return [round(self.top * index / (self.count - 1), 3) for index in range(self.count)]


class Studio:
    """One model at work; jobs wait for each other. Those that make pictures take `report` and `is_stopped` of `Job`.

    Args:
        models: which there are; shelf: where results lie; check: of a deployer, see `demo.safety`.
    """

    def __init__(self, models: Models | None = None, shelf: Shelf | None = None, check: Check | None = None):
        self.models, self.shelf, self.check = models or Models(), shelf or Shelf(), check
        self.lock = threading.Lock()  # a pipeline and its scheduler hold the state of one call
        self.is_wanted = threading.Event()  # set when a visitor asks for something

    # -- references ---------------------------------------------------------------------------------------------------
    def read(self, given: Given, loaded: Loaded) -> References:
        """Uploads and palettes, checked; granularities for which nothing is given are left out."""
        read = {name: self.read_slot(name, given.get(name) or {}, loaded) for name in GRANULARITIES}
        return {name: row for name, row in read.items() if row}

    def read_slot(self, name: str, slot: dict[str, Any], loaded: Loaded) -> list[CheckedReference]:
        row = []
        if slot.get("picture"):
            content = uploads.file_bytes(slot["picture"])
            row.append(CheckedReference("picture", uploads.read_reference(content, f"The {name} reference")))
        colors = uploads.read_palette(slot.get("palette") or "")
        if colors:
            choice(name, "A palette's granularity", ("color",))
            row.append(CheckedReference("palette", colors))
        if slot.get("card"):
            uploads.check_card(slot["card"], name, loaded.pipe.mg_encoder, loaded.card_shapes[name])
            row.append(CheckedReference("card", uploads.file_bytes(slot["card"])))
        return row

    def argument(self, reference: CheckedReference) -> Any:
        """A reference as pipelines take it: a granularity card is a path there."""
        if reference.kind != "card":
            return reference.value
        path = self.shelf.new("card.safetensors")
        path.write_bytes(reference.value)
        return str(path)

    def arguments(self, references: References) -> dict[str, list[Any]]:
        return {name: [self.argument(one) for one in row] for name, row in references.items()}

    def see(self, name: str, slot: dict[str, Any], model: str | None = None) -> PIL.Image.Image | None:
        """What one granularity sees of what is given for it; `None` if nothing is."""
        loaded = self.models.get(model)
        row = self.read_slot(choice(name, "The granularity", GRANULARITIES), slot, loaded)
        if not row:
            return None
        given = [self.argument(one) for one in row]
        return views.see(loaded.pipe.mg_encoder, name, given, loaded.pipe.default_size(None, None))

    # -- pictures -----------------------------------------------------------------------------------------------------
    def run(
        self,
        call: Callable[..., Any],
        references: dict[str, list[Any]],
        settings: Settings,
        seed: int,
        job: Job,
        scales: dict[str, float] | None = None,
        **options: Any,
    ) -> Any:
        """One call of a pipeline, or of an edit with one."""
        import torch  # late: the page opens without it

        with self.lock:
            job.check()
            return call(
                reference_image=references or None,
                granularity_scale=scales or settings.scales,
                prompt=settings.prompt or None,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                texture_scale=settings.coarseness,
                assignment=settings.assignment,
                generator=torch.Generator().manual_seed(seed),
                callback_on_step_end=job.after_step,
                **options,
            )

    def make(
        self, loaded: Loaded, references: dict[str, list[Any]], settings: Settings, *watched: Any, **options: Any
    ):
        """One call of the pipeline that generates, in the size and aspect that are asked for."""
        height, width = self.size_of(loaded, references, settings)
        options |= {"height": height, "width": width}
        return self.run(loaded.pipe, references, settings, *watched, **options)

    @staticmethod
    def size_of(loaded: Loaded, references: dict[str, list[Any]], settings: Settings) -> tuple[int, int]:
        """(height, width) in pixels, in the size and aspect that are asked for; without a detail network the model's own."""
        side = None if loaded.pipe.mg_detail is None else settings.size
        return loaded.pipe.output_size(None, None, references, side, ASPECTS[settings.aspect])

    def save(
        self,
        image: PIL.Image.Image,
        name: str,
        loaded: Loaded,
        settings: Settings,
        references: References,
        **more: Any,
    ) -> Path:
        """A result as a PNG file with its recipe, if the safety checks let it pass."""
        hold_back([self.check, loaded.checker], [image], settings.prompt)
        path, profile = self.shelf.new(f"{name}.png"), more.pop("profile", None)
        recorded = {name: [one.recipe(settings.keep) for one in row] for name, row in references.items()}
        recipe = {"command": "demo.generate", "model": loaded.name, **settings.recipe, "references": recorded, **more}
        save_png(image, path, recipe, profile)
        return path

    def generate(self, given: Given, settings: Settings, model: str | None = None, **watch: Any) -> list[Path]:
        """Pictures from references and a prompt, one for each seed from `settings.seed` on."""
        loaded = self.models.get(model)
        references = self.read(given, loaded)
        arguments, job, paths = self.arguments(references), Job(settings.count, **watch), []
        for seed in range(settings.seed, settings.seed + settings.count):
            image = self.make(loaded, arguments, settings, seed, job).images[0]
            paths.append(self.save(image, f"seed-{seed}", loaded, settings, references, seed=seed))
        return paths

    def compose(self, given: Given, settings: Settings, model: str | None = None, **watch: Any) -> Path:
        """The references laid together; no network paints."""
        loaded = self.models.get(model)
        references = self.read(given, loaded)
        if not references:
            raise ValueError("There is nothing to compose. Give a color, a texture or a shape.")
        arguments, job = self.arguments(references), Job(1, **watch)
        height, width = self.size_of(loaded, arguments, settings)
        import torch  # late: the page opens without it

        from mg_diffusion import compose

        with self.lock:
            job.check()
            (image,) = compose(
                arguments,
                height,
                width,
                granularity_scale=settings.scales,
                texture_scale=settings.coarseness,
                assignment=settings.assignment,
                generator=torch.Generator().manual_seed(settings.seed),
                encoder=loaded.pipe.mg_encoder,
                callback=job.after_share,
            )
        more = {"command": "demo.compose", "seed": settings.seed}
        return self.save(image, "composition", loaded, settings, references, **more)

    def edit(
        self, given: Given, settings: Settings, edit: Edit, model: str | None = None, **watch: Any
    ) -> tuple[PIL.Image.Image, Path, int]:
        """An edit of a picture.

        Returns:
            the picture as it was, on gray if the result is larger; the result; pixels outside the mask that differ.
        """
        loaded = self.models.get(model)
        references = self.read(given, loaded)
        call = edit.call_of(loaded.inpaint, set(references))
        arguments, job = self.arguments(references), Job(1, **watch)
        options = {"mask_feather": edit.feather, "callback": job.after_share}
        image = self.run(call, arguments, settings, settings.seed, job, **options)
        more = {"command": "demo.edit", "seed": settings.seed, "edit": edit.recipe(settings.keep)}
        path = self.save(image, edit.action, loaded, settings, references, **more, profile=edit.profile)
        return edit.before(image.size), path, edit.count_outside(image)

    # -- exploring ----------------------------------------------------------------------------------------------------
    def sweep(
        self,
        given: Given,
        settings: Settings,
        across: Axis,
        down: Axis | None = None,
        model: str | None = None,
        **watch: Any,
    ) -> tuple[Path, list[tuple[Path, str]]]:
        """A strip or a grid in which one or two strengths change and all else stays, seed included.

        Returns:
            a labeled sheet, and the pictures with their captions, row by row.
        """
        loaded = self.models.get(model)
        references = self.read(given, loaded)
        axes = [across] if down is None else [across, down]
        if down is not None and down.granularity == across.granularity:
            raise ValueError("The two strengths of a grid must be of different granularities.")
        for axis in axes:
            if (name := axis.granularity) not in references:
                raise ValueError(f"There is no {name} reference whose strength could be swept. Give one first.")
        arguments, rows = self.arguments(references), [None] if down is None else down.values
        job = Job(len(rows) * across.count, **watch)
        made, images = [], []
        for second in rows:
            for first in across.values:
                scales = {**settings.scales, across.granularity: first}
                scales |= {} if down is None else {down.granularity: second}
                image = self.make(loaded, arguments, settings, settings.seed, job, scales).images[0]
                caption = ", ".join(f"{axis.granularity} {scales[axis.granularity]:g}" for axis in axes)
                name = caption.replace(", ", "-").replace(" ", "-")
                more = {"seed": settings.seed, "granularity_scale": scales}
                made.append((self.save(image, name, loaded, settings, references, **more), caption))
                images.append(image)
        sheet = sheets.grid(images, across.granularity, across.values, down and down.granularity, rows)
        path = self.shelf.new("sweep.png")
        save_png(sheet, path, {"command": "demo.sweep", "model": loaded.name, "seed": settings.seed})
        return path, made

    def explain(
        self, given: Given, settings: Settings, model: str | None = None, **watch: Any
    ) -> tuple[Path, Path, str]:
        """A picture, where and when each reference moved it, and how near it is to each of them (markdown)."""
        loaded = self.models.get(model)
        references = self.read(given, loaded)
        if not references:
            raise ValueError("There is no reference to explain. Give at least one.")
        from mg_diffusion.attribution import draw_attribution  # with it comes torch

        arguments, job = self.arguments(references), Job(1, **watch)
        made = self.make(loaded, arguments, settings, settings.seed, job, return_attribution=True)
        path = self.save(made.images[0], "explained", loaded, settings, references, seed=settings.seed)
        drawn = self.shelf.new("attribution.png")
        shown = made.images[0]
        if min(shown.size) < SHOWN:  # or there would be no room for names and curves
            factor = SHOWN / min(shown.size)
            shown = shown.resize(tuple(round(factor * side) for side in shown.size), PIL.Image.Resampling.LANCZOS)
        recipe = {"command": "demo.explain", "model": loaded.name, "seed": settings.seed}
        save_png(draw_attribution(shown, made.attribution), drawn, recipe)
        return path, drawn, as_table(nearness(loaded.pipe.mg_encoder, made.images[0], arguments))

    # -- granularity cards --------------------------------------------------------------------------------------------
    def make_card(self, name: str, slot: dict[str, Any], model: str | None = None) -> Path:
        """A granularity card of what is given for a granularity: one picture or one palette."""
        loaded = self.models.get(model)
        row = self.read_slot(choice(name, "The granularity", GRANULARITIES), slot, loaded)
        if len(row) != 1 or row[0].kind == "card":
            raise ValueError(f"A card is made of one {name} reference, a picture or a palette; there are {len(row)}.")
        path = self.shelf.new(f"{name}.safetensors")
        loaded.pipe.mg_encoder.save_card(path, name, row[0].value)
        return path

    def mix(
        self,
        name: str,
        cards: tuple[str | None, str | None],
        share: float,
        given: Given,
        settings: Settings,
        model: str | None = None,
        **watch: Any,
    ) -> tuple[PIL.Image.Image, Path]:
        """Two granularity cards in the place of its reference.

        Args:
            share: of the second card, from 0 to 1.

        Returns:
            what the granularity sees of the mix, and the picture.
        """
        loaded = self.models.get(model)
        share = number(share, "The share of the second card", 0, 1)
        choice(name, "The granularity", GRANULARITIES)
        if not all(cards):
            raise ValueError("Two cards are needed. The upper half of this page makes them.")
        rows = [self.read_slot(name, {"card": card}, loaded)[0] for card in cards]
        weighted = [(one, weight) for one, weight in zip(rows, (1 - share, share), strict=True) if weight > 0]
        others = {key: slot for key, slot in given.items() if key != name}
        references = self.read(others, loaded)
        mixed = [{"image": self.argument(one), "weight": weight} for one, weight in weighted]
        seen = views.see(loaded.pipe.mg_encoder, name, mixed, loaded.pipe.default_size(None, None))
        arguments, job = {**self.arguments(references), name: mixed}, Job(1, **watch)
        image = self.make(loaded, arguments, settings, settings.seed, job).images[0]
        more = {"command": "demo.mix", "seed": settings.seed, "mixed": {"granularity": name, "share": share}}
        return seen, self.save(image, "mix", loaded, settings, {**references, name: rows}, **more)
