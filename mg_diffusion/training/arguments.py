"""Flags of the training stages, named as in diffusers' examples."""

import argparse
import importlib.util
import math
import os
from ast import literal_eval
from collections.abc import Sequence
from typing import Any

from mg_diffusion.decoding import MAX_PIXELS, MAX_SKIPPED_SHARE, READABLE_PIXELS

from .places import check_places
from .trackers import PACKAGES, chosen_trackers


STAGES = ("vae", "base", "adapter", "detail", "distill")
SCHEDULES = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
# What one of these is in place of a default.
KINDS: dict[str, dict[str, Any]] = {
    "source": {},  # one of them must be given
    "required": {"required": True},
    "str": {},
    "int": {"type": int},
    "ints": {"type": int, "nargs": "+"},
    "off": {"action": "store_true"},
    "on": {"action": argparse.BooleanOptionalAction, "default": True},
}
CHOICES = {"mixed_precision": ("no", "fp16", "bf16"), "lr_scheduler": SCHEDULES, "report_to": (*PACKAGES, "all")}
SUPERVISION = """
cache_dir | str | keep computed views here between runs
composite_share | 0.45 | exact triples of photographs
rendered_share | 0.15 | exact triples of rendered pictures
num_crossings | 12000 | pool of crossed photographs
num_rendered | 4000 | pool of rendered pictures
augment | on | crop, flip, leave out references and captions at random
"""
LAYOUTS = """layout_size | int | lay canvas and sketch at this size, as pictures with octaves do, and read them shrunk; above \
--resolution and a multiple of 8
materials_dir | str | folder like --train_data_dir with pictures that are nothing but texture; needs --layout_size
num_laid_crossings | 500 | pool of photographs crossed by light at --layout_size"""
# Flags by group and stage: name, default or one of `KINDS`, help.
FLAGS = {
    "data": f"""
train_data_dir | source | imagefolder or folder of webdataset shards (*.tar), with train/ and, optional, val/ below it
dataset_name | source | Hub id or folder of a data set that `datasets` reads
dataset_config_name | str | of the data set, where it has several
image_column | str | "image", or the only column of pictures, if not given
caption_column | str | "text", "txt", "caption" or of "json" one of these or "prompt" if not given, "json.KEY" for others
max_train_samples | int | train on a random part of so many pictures
resolution | 64 | side of the pictures in pixels, a multiple of 8 of at least 32; of stage adapter, the base's own by default
dataloader_num_workers | 0 | processes that make samples; 0: none apart
min_image_size | int | skip pictures whose shorter side has fewer pixels; half of --resolution if not given
max_image_pixels | {MAX_PIXELS} | skip pictures of more pixels, at most {READABLE_PIXELS}
max_skipped_share | {MAX_SKIPPED_SHARE} | stop where a larger share of the files is skipped, 0 to 1; which ones is in skipped.jsonl
streaming | off | read the pictures as a stream, one window after another: for more than fit into memory or on disk
streaming_window | int | rows of a window, for each process; 2000 if not given
samples_per_picture | int | samples drawn from a window, by row; 16 if not given
""",
    "run": """
output_dir | required | folder of the run: configuration, log, checkpoints, weights
seed | 0 | of new weights and all samples; from 0 to 2**32 - 1
train_batch_size | 32 | samples that a process reads at once
split_batches | off | share batches of --train_batch_size among all processes, instead of one batch for each
max_train_steps | 3000 | steps of the optimizer
gradient_accumulation_steps | 1 | batches in a step of the optimizer; by default what `accelerate launch` was told
mixed_precision | "no" | type of the computation by autocast, and of a frozen base; by default what `accelerate launch` was \
told; fp16 needs a GPU
checkpointing_steps | 500 | steps between two checkpoints
checkpoints_total_limit | 2 | how many to keep; 0 keeps all
resume_from_checkpoint | str | "latest" or the path of a checkpoint
overwrite_output_dir | off | lose the run that is in --output_dir
report_to | str | tracker of accelerate to send losses, health and grids to; all: those that are installed
tracker_project_name | "mg-diffusion" | the project of the tracker's run
push_to_hub | off | upload weights/, with card, curves and grid, to the Hub at the end; log in first
hub_model_id | str | NAME or OWNER/NAME to push to; the name of the output folder by default
hub_private_repo | off | a repository that is created is private
""",
    "optimizer": """
learning_rate | 1e-3 | the highest of the schedule; above 0
lr_scheduler | "cosine" | how the rate falls
lr_warmup_steps | 200 | steps until the learning rate is reached; if not given, at most a tenth of the run
adam_beta1 | 0.9 | of AdamW, from 0 to below 1
adam_beta2 | 0.99 | of AdamW, from 0 to below 1
adam_weight_decay | 0.01 | of AdamW, at least 0
adam_epsilon | 1e-8 | of AdamW, above 0
max_grad_norm | 1.0 | longer gradients are cut to it; above 0; with DeepSpeed by default its gradient_clipping
ema_decay | 0.9995 | of the averaged weights, in [0, 1]
""",
    "validation": """
validation_steps | 500 | steps between two validations
num_validation_images | 64 | for the loss; the grid shows 8
validation_at_start | on | validate before the first step too: what comes after compares with it, and what fails there \
fails at once
""",
    "vae": """
latent_channels | 8 | of the latents, at least 1
block_out_channels | [32, 64] | widths of the levels, multiples of 16; each level after the first halves the side
kl_weight | 1e-6 | weight of the KL divergence, at least 0
detail_weight | 2.0 | weight of the L1 loss of the Haar details, at least 0
""",
    "base": f"""
vae | str | folder of a trained vae; without it the lossless Haar codec is used
init_from | str | folder of an MGPipeline to start from (fine-tuning, with defaults of its own: docs/fine-tuning.md); \
"mg-bazaar" is the embedded default
lora_rank | int | train low-rank updates of the UNet (LoRA), of this rank, instead of UNet and text encoder; needs peft
text_only | off | train UNet and text encoder alone on pictures and captions: a base without our parts
block_out_channels | ints | of a new UNet; 48 96 160 if not given
text_width | int | of a new text encoder; 128 if not given
{LAYOUTS}{SUPERVISION}\
snr_gamma | 16.0 | limit of the v-space weight 1 / sigma^2
""",
    "adapter": f"""
pretrained_model_name_or_path | required | folder or Hub id of a Stable Diffusion, in the format of diffusers
variant | str | of the base's weight files, such as fp16
mg_model_name_or_path | str | folder or Hub id with mg_encoder/ and mg_adapter/ to start from; new ones if not given
cache_latents | off | keep latents and captions' embeddings; a crossed picture then always has the same texture
gradient_checkpointing | off | of the UNet: less memory, more time{SUPERVISION}\
snr_gamma | 5.0 | of Min-SNR weighting
""",
    "distill": f"""
pretrained_model_name_or_path | required | the teacher: folder or Hub id of a Stable Diffusion, in the format of diffusers; \
"mg-bazaar" is the embedded default
variant | str | of the teacher's weight files, such as fp16
mg_model_name_or_path | str | folder or Hub id with mg_encoder/ and mg_adapter/ of the teacher; new ones, which do nothing, if \
not given
init_from | str | folder with the unet/ of a student to go on from; a copy of the teacher if not given
num_steps | 4 | of the student
teacher_steps | 8 | of the teacher, a multiple of --num_steps
max_guidance | 3.0 | scales of guidance are drawn from 1 to it; at least 1
gradient_checkpointing | off | of the UNet: less memory, more time
{LAYOUTS}{SUPERVISION}\
snr_gamma | 16.0 | of the weight of timesteps, as in the stage that trained the teacher
""",
    "detail": """
materials_dir | str | folder like --train_data_dir with pictures that are nothing but texture, read at half of --resolution
init_from | str | folder of a detail network to start from; a new one if not given
crop_size | 64 | side of what is learned at once, in pixels, a multiple of 16; half of --resolution or less
block_out_channels | [48, 64, 96] | widths of a new network, multiples of 16; each level after the first halves the side
layers_per_block | 1 | of a new network
cache_dir | str | keep sketches and canvases here between runs
num_crossings | 1000 | pool of crossed photographs
snr_gamma | 8.0 | limit of the v-space weight 1 / sigma^2
""",
}
# Defaults of a stage in place of those of all.
STAGE_DEFAULTS = {
    "adapter": {"resolution": None},  # the base's own
    "distill": {"resolution": None, "learning_rate": 2e-4, "train_batch_size": 16, "ema_decay": 0.995},
    "detail": {
        "resolution": 256,
        "train_batch_size": 16,
        "learning_rate": 2e-3,
        "adam_weight_decay": 1e-4,
        "ema_decay": 0.998,
    },
}
# What values mean something, and of which flags; `None` stands for "not given".
RANGES = {
    "be at least 1": "max_train_samples train_batch_size max_train_steps gradient_accumulation_steps "
    "checkpointing_steps validation_steps num_validation_images latent_channels min_image_size max_image_pixels "
    "streaming_window samples_per_picture lora_rank layers_per_block num_laid_crossings num_steps teacher_steps",
    "be at least 0": "dataloader_num_workers checkpoints_total_limit lr_warmup_steps adam_weight_decay kl_weight "
    "detail_weight num_crossings num_rendered",
    "be from 0 to 2**32 - 1": "seed",
    "be above 0": "learning_rate adam_epsilon max_grad_norm snr_gamma",
    "lie in [0, 1)": "adam_beta1 adam_beta2",
    "lie in [0, 1]": "ema_decay max_skipped_share",
}
IS_IN = {
    "be at least 1": lambda value: value >= 1,
    "be at least 0": lambda value: value >= 0,
    "be from 0 to 2**32 - 1": lambda value: 0 <= value < 2**32,
    "be above 0": lambda value: 0 < value < math.inf,
    "lie in [0, 1)": lambda value: 0 <= value < 1,
    "lie in [0, 1]": lambda value: 0 <= value <= 1,
}
STREAMING = {"streaming_window": 2000, "samples_per_picture": 16}
# Flags that `accelerate launch` and the file of `accelerate config` have too, and the variables that tell what these say.
LAUNCHED = {
    "mixed_precision": "ACCELERATE_MIXED_PRECISION",
    "gradient_accumulation_steps": "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    "max_grad_norm": "ACCELERATE_GRADIENT_CLIPPING",
}
# What is built anew in stage base unless --init_from brings it along; such flags then contradict it.
NEW_NETWORKS = {"vae": None, "block_out_channels": [48, 96, 160], "text_width": 128}
# What supervises references, which --text_only has none of.
OF_REFERENCES = (
    "cache_dir",
    "composite_share",
    "rendered_share",
    "num_crossings",
    "num_rendered",
    "layout_size",
    "materials_dir",
    "num_laid_crossings",
)

# Defaults of stage base with --init_from: half an hour on two CPU cores for the embedded model. docs/fine-tuning.md shows
# what they reach.
FINE_TUNING = {
    "train_batch_size": 16,
    "max_train_steps": 800,
    "learning_rate": 5e-4,
    "lr_warmup_steps": 50,
    "ema_decay": 0.998,
    "composite_share": 0.4,
    "rendered_share": 0.2,
    "num_crossings": 2000,
    "num_rendered": 1000,
    "snr_gamma": 2.0,
    "checkpointing_steps": 200,
    "validation_steps": 200,
}


def build_parser(is_fine_tuning: bool = False) -> argparse.ArgumentParser:
    """The flags of all stages; `is_fine_tuning` gives stage base other defaults."""
    parser = argparse.ArgumentParser(
        prog="accelerate launch -m mg_diffusion.training",
        description="vae: train a small AutoencoderKL. base: train UNet, text encoder, MGEncoder and MGAdapter together. "
        "adapter: train MGEncoder and MGAdapter for a Stable Diffusion, which stays as it is. detail: train the network of "
        "the octaves. distill: a UNet of few steps from one of many.",
    )
    stages = parser.add_subparsers(dest="stage", required=True)
    for stage in STAGES:
        one = stages.add_parser(stage, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        _add_stage(one, stage)
        if stage == "base" and is_fine_tuning:
            one.set_defaults(**FINE_TUNING)
    return parser


def _add_stage(parser: argparse.ArgumentParser, stage: str) -> None:
    for title in ("data", "run", "optimizer", "validation", stage):
        group = parser.add_argument_group(title)
        source = group.add_mutually_exclusive_group(required=True) if title == "data" else group
        for line in FLAGS[title].strip().splitlines():
            name, default, text = line.split(" | ")
            options = KINDS[default] if default in KINDS else _options_of(literal_eval(default))
            owner = source if default == "source" else group
            owner.add_argument(
                f"--{name}", **options, help=text, **({"choices": CHOICES[name]} if name in CHOICES else {})
            )
    parser.set_defaults(**STAGE_DEFAULTS.get(stage, {}))


def _options_of(default: Any) -> dict[str, Any]:
    is_list = isinstance(default, list)
    kind = type(default[0] if is_list else default)
    return {"default": default, **({} if kind is str else {"type": kind}), **({"nargs": "+"} if is_list else {})}


def defaults_of(stage: str, is_fine_tuning: bool = False) -> dict[str, object]:
    """What each flag of a stage is where it is not given; `None` for those that must be."""
    parser = argparse.ArgumentParser(add_help=False)
    _add_stage(parser, stage)
    found = {action.dest: parser.get_default(action.dest) for action in parser._actions}
    if stage != "base":
        return found
    return {**found, **(FINE_TUNING if is_fine_tuning else NEW_NETWORKS)}


def _given(arguments: Sequence[str] | None) -> set[str]:
    """Names of the flags that were given, whatever their defaults are."""
    parser = build_parser()
    stages = next(action for action in parser._actions if action.dest == "stage")
    for stage in stages.choices.values():
        stage._defaults.clear()
        for action in stage._actions:
            action.default = argparse.SUPPRESS
    return set(vars(parser.parse_args(arguments)))


def _take_from_launch(parser: argparse.ArgumentParser, args: argparse.Namespace, given: set[str]) -> None:
    """What `accelerate launch` was told, in place of our defaults: a flag of both is one setting."""
    for name, variable in LAUNCHED.items():
        told = os.environ.get(variable, "").lower()
        # Gradients are clipped as ours are where a DeepSpeed configuration leaves that open.
        if not told or name == "max_grad_norm" and told in ("auto", "none"):
            continue
        own, launch = getattr(args, name), f"`accelerate launch` or `accelerate config` ({variable})"
        try:
            value = type(own)(told)
        except ValueError:
            parser.error(f"{launch} says {told!r} where --{name} is a number; give it as one")
        if value not in CHOICES.get(name, (value,)) and name not in given:
            parser.error(f"{launch} says {told}, but --{name} is one of {', '.join(CHOICES[name])}; give one of them")
        # accelerate lets its script decide on the precision, and overrules it on the others.
        if name in given and value != own and name != "mixed_precision":
            parser.error(
                f"--{name} {own} contradicts {launch}, which says {told} and would win; give it there, or alike"
            )
        if name not in given:
            setattr(args, name, value)


def _check_warmup(parser: argparse.ArgumentParser, args: argparse.Namespace, given: set[str]) -> None:
    if args.lr_scheduler == "constant":
        if "lr_warmup_steps" in given and args.lr_warmup_steps:
            parser.error("--lr_warmup_steps contradicts --lr_scheduler constant; choose constant_with_warmup")
    elif "lr_warmup_steps" not in given:
        args.lr_warmup_steps = min(args.lr_warmup_steps, args.max_train_steps // 10)
    elif args.lr_warmup_steps > args.max_train_steps:
        parser.error(
            f"--lr_warmup_steps {args.lr_warmup_steps} is longer than --max_train_steps {args.max_train_steps}: the run "
            f"would end before the learning rate is reached; give fewer"
        )


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check; contradictions are refused before anything is loaded.

    Raises:
        SystemExit: for unknown flags or values out of range (argparse's own behavior), with the reason.
    """
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.stage == "base" and args.init_from:
        args = build_parser(is_fine_tuning=True).parse_args(arguments)
    given = _given(arguments)
    _take_from_launch(parser, args, given)
    for name, default in NEW_NETWORKS.items() if args.stage == "base" else ():
        if args.init_from and getattr(args, name) is not None:
            parser.error(f"--{name} contradicts --init_from: the pipeline to start from has its own")
        if not args.init_from and getattr(args, name) is None:
            setattr(args, name, default)
    for rule, name in ((rule, name) for rule, names in RANGES.items() for name in names.split()):
        value = getattr(args, name, None)
        if value is not None and not IS_IN[rule](value):
            parser.error(f"--{name} must {rule}, got {value}")
    for name, value in vars(args).items():
        if isinstance(value, float) and not math.isfinite(value):
            parser.error(f"--{name} must be a finite number, got {value}")
        if isinstance(value, str) and not value.strip():
            parser.error(f"--{name} must not be empty; is it a variable of the shell without a value?")
    check_places(parser, args)
    if getattr(args, "lora_rank", None) is not None:
        _check_lora(parser, args)
    _check_warmup(parser, args, given)
    if args.overwrite_output_dir and args.resume_from_checkpoint:
        parser.error(
            "--overwrite_output_dir contradicts --resume_from_checkpoint: there is nothing left to go on from"
        )
    if any(width < 16 or width % 16 for width in getattr(args, "block_out_channels", None) or ()):
        parser.error(f"--block_out_channels must be multiples of 16, got {args.block_out_channels}")
    if args.resolution is not None and (args.resolution < 32 or args.resolution % 8):
        parser.error(f"--resolution must be a multiple of 8 and at least 32, got {args.resolution}")
    try:
        chosen_trackers(args.report_to)
    except ValueError as error:
        parser.error(str(error))
    for name in ("hub_model_id", "hub_private_repo"):
        if getattr(args, name) and not args.push_to_hub:
            parser.error(f"--{name} needs --push_to_hub")
    if args.stage == "adapter" and args.cache_latents and not args.cache_dir:
        parser.error("--cache_latents needs --cache_dir, the folder to keep them in")
    for name in OF_REFERENCES if args.stage == "base" and args.text_only else ():
        if name in given:
            parser.error(f"--{name} contradicts --text_only, which trains without references")
    if args.stage in ("base", "adapter", "distill") and not getattr(args, "text_only", False):
        shares = args.composite_share, args.rendered_share
        if min(shares) < 0 or sum(shares) > 1:
            parser.error(f"--composite_share and --rendered_share must be shares of at most 1 in all, got {shares}")
        for share, pool in (("composite_share", "num_crossings"), ("rendered_share", "num_rendered")):
            if getattr(args, share) > 0 and getattr(args, pool) == 0:
                parser.error(f"--{share} {getattr(args, share)} needs --{pool} of at least 1")
    _check_data(parser, args)
    if args.stage in ("base", "distill"):
        _check_layout(parser, args, given)
    if args.stage == "distill":
        _check_distill(parser, args)
    if args.stage == "detail":
        _check_detail(parser, args, given)
    text_width = getattr(args, "text_width", None)
    if text_width is not None and (text_width < 4 or text_width % 4):
        parser.error(f"--text_width must be a multiple of 4, got {text_width}")
    return args


def _check_data(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.dataset_config_name and not args.dataset_name:
        parser.error("--dataset_config_name is one of a data set: it needs --dataset_name")
    if args.max_image_pixels > READABLE_PIXELS:
        parser.error(f"--max_image_pixels must be at most {READABLE_PIXELS}, got {args.max_image_pixels}")
    for name, default in STREAMING.items():
        if getattr(args, name) is not None and not args.streaming:
            parser.error(f"--{name} needs --streaming")
        if getattr(args, name) is None and args.streaming:
            setattr(args, name, default)
    if not args.streaming:
        return
    for name, reason in {
        "cache_latents": "its windows pass by",
        "max_train_samples": "a stream has no part at random",
        "dataloader_num_workers": "each worker would make windows of its own",
        "split_batches": "a process reads batches of its own windows",
    }.items():
        if getattr(args, name, None):
            parser.error(f"--{name} contradicts --streaming: {reason}")
    if args.stage != "vae" and args.cache_dir is None:
        args.cache_dir = os.path.join(args.output_dir, "cache")  # of rendered pictures, which every window shares


def _check_layout(parser: argparse.ArgumentParser, args: argparse.Namespace, given: set[str]) -> None:
    if args.layout_size is None:
        for name in ("materials_dir", "num_laid_crossings"):
            if name in given:
                parser.error(f"--{name} needs --layout_size, the size at which canvases are laid")
        return
    if args.resolution is not None and args.layout_size <= args.resolution or args.layout_size % 8:
        parser.error(
            f"--layout_size must be a multiple of 8 above --resolution {args.resolution}, got {args.layout_size}"
        )
    if args.streaming:
        parser.error("--streaming contradicts --layout_size, which lays out all pictures before training begins")


def _check_distill(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.teacher_steps % args.num_steps or args.teacher_steps == args.num_steps:
        parser.error(
            f"--teacher_steps must be two, three, ... times --num_steps {args.num_steps}, got {args.teacher_steps}"
        )
    if args.max_guidance < 1:
        parser.error(f"--max_guidance must be a number of at least 1, got {args.max_guidance}")
    if args.layout_size and args.resolution is None:
        parser.error("--layout_size needs --resolution, the size that it is shrunk to")


def _check_detail(parser: argparse.ArgumentParser, args: argparse.Namespace, given: set[str]) -> None:
    for name in ("block_out_channels", "layers_per_block"):
        if args.init_from and name in given:
            parser.error(f"--{name} contradicts --init_from: the network to start from has its own")
    if args.crop_size < 16 or args.crop_size % 16 or 2 * args.crop_size > args.resolution:
        parser.error(
            f"--crop_size must be a multiple of 16 and at most half of --resolution {args.resolution}, got {args.crop_size}"
        )
    if args.materials_dir and args.resolution < 64:
        parser.error(f"--materials_dir needs --resolution of at least 64, got {args.resolution}")
    if args.streaming:
        parser.error("--streaming contradicts stage detail, which lays out all its pictures before it begins")


def _check_lora(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.init_from:
        parser.error("--lora_rank needs --init_from, a pipeline whose UNet is worth updating")
    if args.text_only:
        parser.error("--lora_rank contradicts --text_only, which trains the UNet itself")
    if importlib.util.find_spec("peft") is None:
        parser.error("--lora_rank needs peft, which is not installed: pip install peft")
