"""The command line: `mg-diffusion generate | edit | recolor | ... | palette | encode | export | bench | data`.

    mg-diffusion generate --color sunset.jpg --texture wool.jpg --shape rose.jpg -o rose.png
    mg-diffusion generate --color "#ff8800:3,#224466" --shape rose.jpg --scale shape=0.8 --seed 7 -o rose.png
    mg-diffusion generate --color "a.jpg,region=0:0:0.5:1" --color "b.jpg,region=0.5:0:1:1" --shape s.png -o two.png
    mg-diffusion edit photo.jpg --mask mask.png --color sunset.jpg -o edited.png
    mg-diffusion recolor photo.jpg --color sunset.jpg -o recolored.png
    mg-diffusion palette photo.jpg --colors 4
    mg-diffusion encode jacket.jpg --granularity texture -o denim.safetensors
    mg-diffusion export --base FOLDER_OR_HUB_ID --adapter FOLDER_OR_HUB_ID -o my-model
    mg-diffusion bench --data pictures --quick -o bench.json --pictures bench
    mg-diffusion data check pictures
    mg-diffusion data bazaar128 bazaar128

Every PNG file that is written holds its recipe: see `mg_diffusion.recipe.read_recipe`.
"""

import argparse
import functools
import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch

from . import __version__, edits
from .attribution import draw_attribution
from .data.flags import add_bazaar_flags, add_check_flags
from .granularities import GRANULARITIES
from .loading import load_pipeline, model_name, quiet
from .mg_bench.flags import add_bench_flags, whole
from .palettes import extract_palette
from .recipe import describe_file, describe_reference, prepare_output, save_png


SIDES = ("left", "top", "right", "bottom")
# The edits that have a name: what they do, the flags they need, those they may have.
NAMED_EDITS = {
    "recolor": ("other colors, the same texture and shape", ("color",), ("mask",)),
    "retexture": ("another texture, the same colors and shape", ("texture",), ("mask",)),
    "reshape": ("new content in the mask, in its shape or that of a reference", ("mask",), GRANULARITIES),
    "remove": ("what is in the mask goes, its surroundings go on", ("mask",), ()),
    "variation": ("another picture of the same colors, texture and shape", (), ()),
    "outpaint": ("a larger picture around the picture", (), SIDES),
}
REFERENCE_OPTION = re.compile(r",(?P<key>mask|weight|region)=(?P<value>[^,]*)$")
# Flags that go to the pipeline under its own names; where one is not given, the pipeline's default holds.
PIPELINE_FLAGS = (
    "prompt",
    "negative_prompt",
    "height",
    "width",
    "num_inference_steps",
    "guidance_scale",
    "strength",
    "padding_mask_crop",
    "mask_feather",
    "context_scale",
    "feature_guidance_window",
    "feature_guidance_decoder",
    "feature_guidance_full",
)


# ---------------------------------------------------------------------------------------------------------------------
# Values of flags
# ---------------------------------------------------------------------------------------------------------------------
def number(text: str) -> float:
    """A type for argparse: a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}")
    return value


def named(text: str, wanted: str) -> tuple[str, str]:
    """The granularity of NAME=VALUE, and what stands for its value."""
    name, equals, value = text.partition("=")
    if name not in GRANULARITIES or not equals:
        raise argparse.ArgumentTypeError(f"must be color=, texture= or shape= and {wanted}, got {text!r}")
    return name, value


def strength_of_one(text: str) -> tuple[str, float]:
    """A type for argparse: color=1.0."""
    name, value = named(text, "a number")
    strength = number(value)
    if strength < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0 (0 is off, 1 is as trained), got {text!r}")
    return name, strength


def schedule_of_one(text: str) -> tuple[str, tuple[float, float] | list[float]]:
    """A type for argparse: texture=0:0.6, a window, or texture=1,0.5,0, a curve."""
    name, curve = named(text, "START:END or factors between commas")
    if ":" in curve:
        return name, window(curve)
    return name, [number(factor) for factor in curve.split(",")]


def window(text: str) -> tuple[float, float]:
    """A type for argparse: START:END."""
    start, colon, end = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"must be START:END in fractions of the run, got {text!r}")
    return number(start), number(end)


def as_flag(value: Any) -> Any:
    """A window as its flag has it, START:END: in JSON it could not be told from a curve."""
    return f"{value[0]:g}:{value[1]:g}" if isinstance(value, tuple) else value


def region_of(text: str) -> str | tuple[float, ...]:
    """What follows region=: a mask to lay over the output, or a box, LEFT:TOP:RIGHT:BOTTOM in fractions."""
    if text.count(":") == 3 and not Path(text).exists():
        return tuple(number(value) for value in text.split(":"))
    if not Path(text).is_file():
        raise ValueError(f"There is no mask at {text!r}. A region is a picture or LEFT:TOP:RIGHT:BOTTOM in fractions.")
    return text


@dataclass
class Lent:
    """One reference of the flags: what the pipeline gets, the files it is read from, and what the recipe says."""

    given: Any
    files: list[str]
    recipe: dict[str, Any]


def parse_reference(name: str, text: str) -> Lent:
    """What follows --color, --texture or --shape: a file, or, for color, hex colors between commas.

    Behind it ",mask=FILE", ",weight=X" and ",region=FILE" or ",region=LEFT:TOP:RIGHT:BOTTOM" may stand.
    """
    written = {}
    while found := REFERENCE_OPTION.search(text):
        written[found["key"]] = found["value"]
        text = text[: found.start()]
    if text.startswith("#"):
        if name != "color":
            raise ValueError(f"Hex colors describe a palette: they serve as --color, not as --{name}. Got {text!r}.")
        image = [entry.strip() for entry in text.split(",")]
    elif Path(text).is_file():
        image = text
    else:
        hint = ' A palette begins with "#", in quotes: --color "#ff8800:3,#224466".' if name == "color" else ""
        raise ValueError(f"There is no reference picture at {text!r} (--{name}).{hint}")
    read = {"mask": lambda path: read_mask(path, "read"), "weight": number, "region": region_of}
    try:
        fields = {key: read[key](value) for key, value in written.items()}
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"A reference's weight and box are numbers, got {written}: {error}.") from error
    kept = {
        key: describe_file(value) if key == "mask" or isinstance(fields[key], str) else fields[key]
        for key, value in written.items()
    }
    files = [entry for entry in (image, written.get("mask"), fields.get("region")) if isinstance(entry, str)]
    return Lent({"image": image, **fields} if fields else image, files, {**describe_reference(image), **kept})


@dataclass
class Asked:
    """What the flags say of references, by granularity; several of one granularity are averaged."""

    references: dict[str, list[Lent]]
    negative: dict[str, list[Lent]]

    @property
    def files(self) -> list[str]:
        rows = [*self.references.values(), *self.negative.values()]
        return [file for row in rows for entry in row for file in entry.files]

    @property
    def recipe(self) -> dict[str, Any]:
        kinds = {"references": self.references} | ({"negative_references": self.negative} if self.negative else {})
        return {
            kind: {name: [entry.recipe for entry in row] for name, row in rows.items()} for kind, rows in kinds.items()
        }


def given_to(rows: dict[str, list[Lent]]) -> dict[str, list[Any]] | None:
    """References as the pipeline takes them."""
    return {name: [entry.given for entry in row] for name, row in rows.items()} or None


def parse_references(options: argparse.Namespace) -> Asked:
    """The references of the flags, read as far as they are palettes.

    Raises:
        ValueError: for a reference that is none, and for the strength of one that is not given.
    """
    given = {name: getattr(options, name) for name in GRANULARITIES if getattr(options, name)}
    negative = {name: getattr(options, f"negative_{name}") for name in GRANULARITIES}
    is_lent = (
        options.command in ("edit", *NAMED_EDITS) and getattr(options, "context_scale", None) != 0
    )  # by the picture
    for flag, entries in (("scale", options.scale), ("schedule", options.schedule)):
        for name, _ in entries:
            if name not in given and not is_lent:
                raise ValueError(
                    f"--{flag} {name}=... is about the strength of a {name} reference, and none is given. Add "
                    f"--{name}, or leave this --{flag} out."
                )
    references, avoided = (
        {name: [parse_reference(name, text) for text in texts] for name, texts in entries.items() if texts}
        for entries in (given, negative)
    )
    return Asked(references, avoided)


# ---------------------------------------------------------------------------------------------------------------------
# Pictures in and out
# ---------------------------------------------------------------------------------------------------------------------
def read_picture(path: str) -> PIL.Image.Image:
    """The decoded picture of a file, upright."""
    try:
        with PIL.Image.open(path) as opened:
            return PIL.ImageOps.exif_transpose(opened)
    except FileNotFoundError as error:
        raise ValueError(f"There is no picture at {path!r}.") from error
    except Exception as error:  # decoders of damaged files raise errors of any type
        raise ValueError(f"{path!r} cannot be read as a picture: {error}.") from error


def read_mask(path: str, use: str = "repainted") -> PIL.Image.Image:
    """A mask of black and white: drawn with soft edges or saved as JPEG, it is split at middle gray, which is told."""
    mask = read_picture(path)
    if "A" in mask.getbands() and mask.getchannel("A").getextrema()[0] < 255:
        raise ValueError(f"The mask {path!r} has transparent pixels. Save it in black and white; white is {use}.")
    gray = mask.convert("RGB").convert("L")
    if not {value for _, value in gray.getcolors()} <= {0, 255}:
        print(f"{path} is not only black and white: what is lighter than middle gray is {use}", file=sys.stderr)
    return gray.point(lambda value: 255 * (value > 127))


def output_paths(output: str, count: int) -> list[Path]:
    """`output` itself, or name-0.png, name-1.png, ... for several pictures."""
    path = Path(output)
    return [path] if count == 1 else [path.with_name(f"{path.stem}-{index}{path.suffix}") for index in range(count)]


def pipeline_settings(pipe: Any, options: argparse.Namespace) -> dict[str, Any]:
    """The flags that `pipe` knows, with its own defaults where they were not given."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(pipe.__call__).parameters.items()}
    given = {name: getattr(options, name, None) for name in PIPELINE_FLAGS}
    return {
        name: defaults[name] if given[name] is None else given[name] for name in PIPELINE_FLAGS if name in defaults
    }


def run_pipeline(
    pipe: Any,
    options: argparse.Namespace,
    asked: Asked,
    recipe: dict[str, Any],
    paths: Sequence[Path],
    make: Callable[..., list[PIL.Image.Image]],
    icc_profile: bytes | None = None,
) -> list[PIL.Image.Image]:
    """Make the pictures in one call, save them under `paths`, each with its recipe, and print the names.

    Args:
        make: called with what the flags say beside pictures and references.
    """
    settings = pipeline_settings(pipe, options)
    scales = {**dict.fromkeys(asked.references, 1.0), **dict(options.scale)}
    steering = {
        "granularity_schedule": dict(options.schedule),
        "granularity_guidance": dict(options.guidance),
        "feature_guidance_scale": dict(options.feature_guidance),
    }
    steering = {name: value for name, value in steering.items() if value}
    # One generator for each picture: what a seed gives must not depend on how many pictures are made with it.
    seeds = [options.seed + index for index in range(len(paths))]
    images = make(
        **settings,
        **steering,
        negative_reference_image=given_to(asked.negative),
        granularity_scale=scales,
        num_images_per_prompt=len(paths),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    )
    recorded = {name: {key: as_flag(value) for key, value in entries.items()} for name, entries in steering.items()}
    recipe = {
        **recipe,
        **asked.recipe,
        **settings,
        **recorded,
        "granularity_scale": scales,
        "model": model_name(options.model),
    }
    for image, path, seed in zip(images, paths, seeds, strict=True):
        size = {"height": image.height, "width": image.width}
        save_png(image, path, {**recipe, **size, "seed": seed}, icc_profile)
        print(path)
    return images


# ---------------------------------------------------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------------------------------------------------
def load(name: str, options: argparse.Namespace) -> Any:
    """The pipeline of the class `name`, from the model of the flags."""
    from . import pipelines  # brings most of diffusers with it, which a mistyped flag need not wait for

    try:
        return load_pipeline(
            getattr(pipelines, name),
            options.model,
            trust_remote_code=options.trust_remote_code,
            device=options.device,
        )
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(f"{error}\nHere: --trust-remote-code, if you know whose code it is.") from error


def attribution_of(path: Path) -> Path:
    """Where the attribution of a picture is drawn: name.attribution.png."""
    return path.with_suffix(f".attribution{path.suffix}")


def call_and_report(
    pipe: Any, options: argparse.Namespace, paths: Sequence[Path], **arguments: Any
) -> list[PIL.Image.Image]:
    """Call the pipeline, warn of leaks and draw attributions, if the flags ask for it; returns the pictures."""
    made = pipe(return_attribution=options.attribution, leak_guard=options.leak_guard, **arguments)
    if made.attribution == {}:
        print("nothing steered this call, so there is no attribution to draw", file=sys.stderr)
    for index, path in enumerate(map(attribution_of, paths if made.attribution else ())):
        drawn = draw_attribution(made.images[index], made.attribution, index)
        save_png(drawn, path, {"command": "attribution", "model": model_name(options.model)})
        print(path)
    return made.images


def generate(options: argparse.Namespace) -> None:
    """`mg-diffusion generate`."""
    asked = parse_references(options)
    paths = [prepare_output(path, ".png", asked.files) for path in output_paths(options.output, options.num_images)]
    pipe = load("MGPipeline", options)

    make = functools.partial(call_and_report, pipe, options, paths, reference_image=given_to(asked.references))
    run_pipeline(pipe, options, asked, {"command": "generate"}, paths, make)


def edit(options: argparse.Namespace) -> None:
    """`mg-diffusion edit`, and the edits that have a name."""
    asked = parse_references(options)
    inputs = [options.image, *([options.mask] if options.mask else []), *asked.files]
    paths = [prepare_output(path, ".png", inputs) for path in output_paths(options.output, options.num_images)]
    image = read_picture(options.image)
    mask = read_mask(options.mask) if options.mask else None
    recipe = {
        "command": options.command,
        "image": describe_file(options.image),
        **({"mask": describe_file(options.mask)} if options.mask else {}),
        **{side: getattr(options, side) for side in SIDES if getattr(options, side, None)},
    }
    pipe = load("MGInpaintPipeline", options)
    profile = image.info.get("icc_profile") if image.mode == "RGB" else None  # of other modes it would not fit RGB
    made = run_pipeline(pipe, options, asked, recipe, paths, editor(pipe, options, asked, paths, image, mask), profile)
    if mask is not None:
        outside = np.asarray(mask) == 0
        changed = [(np.asarray(one) != np.asarray(image.convert("RGB"))).any(2) for one in made]
        print(f"pixels outside the mask that differ: {sum(int((one & outside).sum()) for one in changed)}")


def editor(
    pipe: Any,
    options: argparse.Namespace,
    asked: Asked,
    paths: Sequence[Path],
    image: PIL.Image.Image,
    mask: PIL.Image.Image | None,
) -> Callable[..., list[PIL.Image.Image]]:
    """The edit that the command names, with what it needs of pictures and references."""
    lent = given_to(asked.references) or {}
    if options.command == "edit":
        pictures = {"image": image, "mask_image": mask, "reference_image": lent or None}
        return functools.partial(call_and_report, pipe, options, paths, **pictures)
    if options.command in ("recolor", "retexture"):
        (name,) = NAMED_EDITS[options.command][1]
        return functools.partial(getattr(edits, options.command), pipe, image, lent[name], mask)
    if options.command == "reshape":
        return functools.partial(edits.reshape, pipe, image, mask, **lent)
    if options.command == "remove":
        return functools.partial(edits.remove, pipe, image, mask)
    sides = {side: getattr(options, side) for side in SIDES} if options.command == "outpaint" else {}
    return functools.partial(getattr(edits, options.command), pipe, image, **sides)


def masked_reference(options: argparse.Namespace) -> dict[str, Any]:
    """The picture of the flags, with the mask of the flags if there is one."""
    if not Path(options.picture).is_file():
        raise ValueError(f"There is no picture at {options.picture!r}.")
    return {"image": options.picture} | ({} if options.mask is None else {"mask": read_mask(options.mask, "read")})


def load_encoder(options: argparse.Namespace) -> Any:
    encoder = load("MGPipeline", options).mg_encoder
    if encoder is None:
        raise ValueError(f"The model {model_name(options.model)} has no encoder that reads references.")
    return encoder


def palette(options: argparse.Namespace) -> None:
    """`mg-diffusion palette`: prints what --color takes."""
    reference = masked_reference(options)
    print(",".join(extract_palette(load_encoder(options), reference, options.colors)))


def encode(options: argparse.Namespace) -> None:
    """`mg-diffusion encode`: writes a granularity card."""
    inputs = [options.picture, *([] if options.mask is None else [options.mask])]
    path = prepare_output(options.output, ".safetensors", inputs)
    reference = masked_reference(options)
    load_encoder(options).save_card(path, options.granularity, reference)
    print(path)


def export(options: argparse.Namespace) -> None:
    """`mg-diffusion export`: writes a repository that loads without this package."""
    is_pair = options.base is not None and options.adapter is not None
    if (options.weights is None) != is_pair or (options.base is None) != (options.adapter is None):
        raise ValueError("Give either WEIGHTS, the folder of a saved pipeline, or both --base and --adapter.")
    from .export import export as write

    dtype = getattr(torch, options.dtype)
    size = write(options.weights or options.adapter, options.output, dtype, dict(options.strength), options.base)
    print(f"{options.output}: {size:.1f} MB of weights")


def bench(options: argparse.Namespace) -> None:
    """`mg-diffusion bench`."""
    from .pipelines import MGInpaintPipeline

    output = prepare_output(options.output, ".json")
    try:
        from .mg_bench.command import run
        from .mg_bench.methods import PipelineMethod
    except ImportError as error:
        raise ValueError(f"bench needs more packages ({error}): pip install 'mg-diffusion[eval]'.") from error
    generator = load("MGPipeline", options)
    inpainter = MGInpaintPipeline(**generator.components)
    options.height = options.width = options.size
    settings = pipeline_settings(generator, options)  # of those, what a bench has flags for
    settings = {name: value for name, value in settings.items() if value is not None and hasattr(options, name)}
    scales = {**dict.fromkeys(GRANULARITIES, 1.0), **dict(options.scale)}
    method = PipelineMethod(generator, inpainter, settings, scales)
    run(options, method, generator.vae, model=model_name(options.model), output=output)


def data_check(options: argparse.Namespace) -> int:
    """`mg-diffusion data check`: the status is 1 if something would stop or spoil a run."""
    from .data.check import check_folder
    from .data.report import report_text

    output = None if options.json is None else prepare_output(options.json, ".json")
    report = check_folder(options.folder, options.caption_column, not options.no_faces)
    print(report_text(report))
    if output is not None:
        output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if report["problems"] else 0


def data_bazaar(options: argparse.Namespace) -> None:
    """`mg-diffusion data bazaar128`."""
    from .data.bazaar import build

    counts = build(options.output, resolution=options.resolution, cache_dir=options.cache_dir, given=options.source)
    print(f"{options.output}: {counts['train']} training and {counts['val']} validation pictures")


# ---------------------------------------------------------------------------------------------------------------------
# Flags
# ---------------------------------------------------------------------------------------------------------------------
class CollectStrengths(argparse.Action):
    """A list of (granularity, value), each granularity once."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None):
        given = getattr(namespace, self.dest)
        if values[0] in dict(given):
            raise argparse.ArgumentError(self, f"{values[0]} is given twice. It has one strength; leave one out.")
        setattr(namespace, self.dest, [*given, values])


class Parser(argparse.ArgumentParser):
    """As the original, but errors look the same whether a flag or a file is wrong."""

    def error(self, message: str) -> Any:
        self.exit(2, f"error: {message}\n(see `{self.prog} --help`)\n")


def add_loading_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="FOLDER_OR_HUB_ID", help="default: the model that comes with the package")
    group.add_argument("--trust-remote-code", action="store_true", help="let code that --model brings along run")
    group.add_argument("--device", default="auto", help="auto (CUDA where there is some), cpu, cuda, mps")


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    add_loading_flags(parser)
    group = parser.add_argument_group("sampling")
    group.add_argument("--steps", dest="num_inference_steps", type=whole(1), metavar="N", help="denoising steps")
    group.add_argument("--guidance-scale", type=number, metavar="X", help="1 is off")
    group.add_argument("--seed", type=whole(0), default=0, help="default: 0")
    group.add_argument(
        "--scale",
        type=strength_of_one,
        action=CollectStrengths,
        default=[],
        metavar="NAME=X",
        help="strength of color, texture or shape: 0 is off, 1 (default) as trained, above 1 extrapolates; one for each",
    )


def add_report_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what references did")
    group.add_argument(
        "--attribution",
        action="store_true",
        help="draw where and when each reference moved the picture, beside the output as NAME.attribution.png (it takes no "
        "name of its own); costs time",
    )
    group.add_argument(
        "--leak-guard",
        action="store_true",
        help="warn where the output follows the shape of its color or texture reference more than that of its shape reference",
    )


def add_masked_picture_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("picture", metavar="PICTURE")
    parser.add_argument("--mask", metavar="PICTURE", help="of the same size; only what is white is read")


def add_picture_flags(
    parser: argparse.ArgumentParser, needed: Sequence[str] = (), allowed: Sequence[str] = GRANULARITIES
) -> None:
    """Flags of references, of how they count, and of what is written.

    Args:
        needed, allowed: which of color, texture, shape, mask and the four sides there are.
    """
    add_reference_flags(parser, needed, allowed)
    add_steering_flags(parser)
    group = parser.add_argument_group("text and output")
    group.add_argument("--prompt", help="what is to be seen")
    group.add_argument("--negative-prompt", help="what to steer away from")
    group.add_argument("--num-images", type=whole(1), default=1, metavar="N", help="seeds count up from --seed")
    group.add_argument("-o", "--output", required=True, metavar="FILE.png", help="holds its recipe as metadata")


def add_reference_flags(parser: argparse.ArgumentParser, needed: Sequence[str], allowed: Sequence[str]) -> None:
    """Of `add_picture_flags`, what is lent and where it goes."""
    group = parser.add_argument_group(
        "references",
        "Each may be repeated; those of one kind are averaged. Behind each may stand ,weight=X, ,mask=PICTURE (only what "
        "is white is read) and ,region=PICTURE or ,region=LEFT:TOP:RIGHT:BOTTOM in fractions (where it counts in the "
        "output).",
    )
    wanted = {
        "color": 'picture or card that lends its palette, or hex colors with weights in quotes: "#ff8800:3,#224466"',
        "texture": "picture or card that lends its texture",
        "shape": "picture or card that lends its shape",
    }
    for name, purpose in wanted.items():
        if name in (*needed, *allowed):
            metavar = "PICTURE_OR_PALETTE" if name == "color" else "PICTURE"
            group.add_argument(f"--{name}", action="append", metavar=metavar, help=purpose, required=name in needed)
        else:
            parser.set_defaults(**{name: None})
    if "mask" in (*needed, *allowed):
        parser.add_argument(
            "--mask", metavar="PICTURE", required="mask" in needed, help="of the same size; white is repainted"
        )
    for side in SIDES:
        if side in allowed:
            parser.add_argument(f"--{side}", type=whole(0), default=0, metavar="PIXELS", help="to add on that side")
    for name in GRANULARITIES:
        group.add_argument(
            f"--negative-{name}",
            action="append",
            metavar="PICTURE_OR_PALETTE" if name == "color" else "PICTURE",
            help=f"whose {name} to steer away from",
        )


def add_steering_flags(parser: argparse.ArgumentParser) -> None:
    """Of `add_picture_flags`, how references count."""
    group = parser.add_argument_group("how references count")
    group.add_argument(
        "--guidance",
        type=strength_of_one,
        action=CollectStrengths,
        default=[],
        metavar="NAME=X",
        help="how far to go beyond the picture without that reference, or with its negative one; 0 is off; costs time",
    )
    group.add_argument(
        "--schedule",
        type=schedule_of_one,
        action=CollectStrengths,
        default=[],
        metavar="NAME=START:END|X,Y,...",
        help="when a strength holds, in fractions of the run, or factors from the first step to the last; one for each",
    )
    group = parser.add_argument_group("feature guidance (training-free; works without an adapter and along with one)")
    group.add_argument(
        "--feature-guidance",
        type=strength_of_one,
        action=CollectStrengths,
        default=[],
        metavar="NAME=X",
        help="how far each step goes toward the features of that reference; 0 is off, 1 a good start",
    )
    group.add_argument(
        "--feature-window",
        dest="feature_guidance_window",
        type=window,
        metavar="START:END",
        help="when, in fractions of the run; default: 0:1",
    )
    group.add_argument(
        "--feature-decoder",
        dest="feature_guidance_decoder",
        choices=("linear", "vae"),
        help="what looks at the picture in each step: a linear map fitted once (default), or the whole VAE",
    )
    group.add_argument(
        "--feature-full",
        dest="feature_guidance_full",
        action="store_true",
        default=None,
        help="let the gradient go on through the UNet: two to three times as slow",
    )


def add_export_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", nargs="?", metavar="WEIGHTS", help="folder of a pipeline: the `weights` of a run")
    place = "FOLDER_OR_HUB_ID"
    parser.add_argument("--base", metavar=place, help="in place of WEIGHTS: a Stable Diffusion checkpoint, and")
    parser.add_argument(
        "--adapter", metavar=place, help="the encoder and adapter for it, in mg_encoder and mg_adapter"
    )
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="what else is in it stays")
    parser.add_argument(
        "--dtype", choices=("float16", "bfloat16", "float32"), default="float16", help="of the weights"
    )
    parser.add_argument(
        "--strength",
        type=strength_of_one,
        action=CollectStrengths,
        default=[],
        metavar="NAME=X",
        help="the strength that the export calls 1; one for each",
    )


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="mg-diffusion", description="Steer image generation by the color, texture and shape of reference images."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    names = ("generate", "edit", *NAMED_EDITS, "palette", "encode", "export", "bench", "data")
    commands = parser.add_subparsers(dest="command", required=True, metavar=" | ".join(names))

    one = commands.add_parser("generate", help="make a picture", allow_abbrev=False)
    one.set_defaults(run=generate)
    add_picture_flags(one)
    one.add_argument("--width", type=whole(1), metavar="PIXELS", help="default: the model's own size")
    one.add_argument("--height", type=whole(1), metavar="PIXELS", help="default: the model's own size")
    add_report_flags(one)
    add_model_flags(one)

    one = commands.add_parser("edit", help="repaint part of a picture", allow_abbrev=False)
    one.set_defaults(run=edit)
    one.add_argument("image", metavar="PICTURE", help="the picture to edit; outside the mask no pixel changes")
    add_picture_flags(one, ("mask",))
    one.add_argument("--strength", type=number, metavar="X", help="1 (default) forgets what was under the mask")
    one.add_argument(
        "--padding-mask-crop", type=whole(0), metavar="PIXELS", help="compute only the mask and so much around it"
    )
    one.add_argument(
        "--feather", dest="mask_feather", type=whole(0), metavar="PIXELS", help="soft edge, inside the mask"
    )
    one.add_argument(
        "--context-scale",
        type=number,
        metavar="X",
        help="how much the surroundings lend what no reference gives: 1 (default), 0 is off",
    )
    add_report_flags(one)
    add_model_flags(one)

    for name, (purpose, needed, allowed) in NAMED_EDITS.items():
        one = commands.add_parser(name, help=purpose, allow_abbrev=False)
        one.set_defaults(run=edit, mask=None)
        one.add_argument("image", metavar="PICTURE", help="outside the mask no pixel changes")
        add_picture_flags(one, needed, allowed)
        add_model_flags(one)

    one = commands.add_parser(
        "palette", help="print the palette of a picture, to edit and use as --color", allow_abbrev=False
    )
    one.set_defaults(run=palette)
    add_masked_picture_flags(one)
    one.add_argument("--colors", type=whole(1), default=5, metavar="N", help="how many at most; default: 5")
    add_loading_flags(one)

    one = commands.add_parser(
        "encode", help="keep one granularity of a picture as a card, to use in its place", allow_abbrev=False
    )
    one.set_defaults(run=encode)
    add_masked_picture_flags(one)
    one.add_argument("-g", "--granularity", required=True, choices=GRANULARITIES)
    one.add_argument("-o", "--output", required=True, metavar="FILE.safetensors", help="holds no picture")
    add_loading_flags(one)

    one = commands.add_parser(
        "export", help="write a repository that loads from disk or Hub without this package", allow_abbrev=False
    )
    one.set_defaults(run=export)
    add_export_flags(one)

    one = commands.add_parser("bench", help="measure separate control of color, texture and shape", allow_abbrev=False)
    one.set_defaults(run=bench)
    add_bench_flags(one)
    add_model_flags(one)

    one = commands.add_parser("data", help="check pictures before training; rebuild our training set")
    jobs = one.add_subparsers(dest="job", required=True, metavar="check | bazaar128")
    one = jobs.add_parser(
        "check",
        help="report what would stop or spoil a run; status 1 if something would",
        allow_abbrev=False,
    )
    one.set_defaults(run=data_check)
    add_check_flags(one)
    one = jobs.add_parser(
        "bazaar128", help="download and cut the pictures that the embedded model was trained on", allow_abbrev=False
    )
    one.set_defaults(run=data_bazaar)
    add_bazaar_flags(one)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 if `data check` found problems, or 2 after an error in what was asked for."""
    options = build_parser().parse_args(arguments)
    quiet()
    try:
        return options.run(options) or 0
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
