"""The models of the demo: those that are configured, one of them loaded."""

import logging
import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
from safetensors import safe_open

from demo.safety import Check, checker_of
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.loading import EMBEDDED_NAME, embedded_model, load_pipeline, model_name, quiet


def configured() -> list[str]:
    """The models of MG_MODEL, folders or Hub ids between commas; the first is the default; "" is the embedded one.

    Raises:
        ValueError: if one is the path of a folder that is not there.
    """
    named = [name.strip() for name in os.environ.get("MG_MODEL", "").split(",")]
    for name in named:
        if name.startswith((".", "/", "~")) and not Path(name).is_dir():
            raise ValueError(f"MG_MODEL must name folders or Hub ids; there is no folder {name!r}.")
    return [name for name in named if name] or [EMBEDDED_NAME]


@dataclass(frozen=True)
class Loaded:
    """A model, its pipelines over the same components, and what a granularity card of its encoder holds."""

    name: str
    pipe: Any
    inpaint: Any
    card_shapes: dict[str, dict[str, tuple[int, ...]]]  # granularity -> shapes by name
    checker: Check | None


class Models:
    """Loads on demand, keeps one: memory is bounded, whatever visitors choose."""

    def __init__(self, places: list[str] | None = None):
        self.places = {model_name(place): place for place in places or configured()}
        self.lock = threading.Lock()
        self.loaded: Loaded | None = None

    @property
    def names(self) -> list[str]:
        return list(self.places)

    def model_card(self) -> str:
        """The README of the default model, where its folder holds one."""
        readme = Path(folder_of(self.places[self.names[0]]), "README.md")
        return readme.read_text(encoding="utf-8") if readme.is_file() else ""

    def get(self, name: str | None = None) -> Loaded:
        """A configured model, by the name that the page shows.

        Raises:
            ValueError: for any other name, and for a model that cannot be loaded.
        """
        name = name or self.names[0]
        if not isinstance(name, str) or name not in self.places:
            raise ValueError(f"There is no model of this name here; there are {', '.join(self.names)}.")
        with self.lock:
            if self.loaded is None or self.loaded.name != name:
                self.loaded = None  # first, so that two never are in memory
                try:
                    self.loaded = load(name, self.places[name])
                except OSError as error:
                    logging.error("The model %s cannot be loaded: %s", self.places[name], error)
                    reason = "cannot be loaded. Whoever runs this page can read in its log why."
                    raise ValueError(f"The model {name} {reason}") from error
            return self.loaded


def folder_of(place: str) -> str:
    """The folder or Hub id of a configured model."""
    return str(embedded_model()) if place == EMBEDDED_NAME and not Path(place).exists() else place


def load(name: str, place: str) -> Loaded:
    quiet()
    from diffusers import DiffusionPipeline  # late, as all that comes with torch: the page opens without it

    import mg_diffusion

    folder = folder_of(place)
    family = "MGXL" if "XL" in str(DiffusionPipeline.load_config(folder)["_class_name"]) else "MG"
    pipe = load_pipeline(getattr(mg_diffusion, f"{family}Pipeline"), folder)
    if pipe.mg_encoder is None or pipe.mg_adapter is None:
        raise ValueError(f"The model {name} has no encoder and adapter, without which there is nothing to show.")
    inpaint = getattr(mg_diffusion, f"{family}InpaintPipeline")(**pipe.components)
    for each in (pipe, inpaint):
        each.set_progress_bar_config(disable=True)
    return Loaded(name, pipe, inpaint, blank_cards(pipe.mg_encoder), checker_of(folder))


def blank_cards(encoder: Any) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shapes of what this encoder keeps, read from granularity cards of a gray picture."""
    gray, shapes = PIL.Image.new("RGB", (64, 64), "#808080"), {}
    with tempfile.TemporaryDirectory() as folder:
        for name in GRANULARITIES:
            path = Path(folder, f"{name}.safetensors")
            encoder.save_card(path, name, gray)
            with safe_open(path, "pt") as opened:
                shapes[name] = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    return shapes
