"""Flags of the training stages, named as in diffusers' examples."""

import argparse
import importlib.util
import os
from collections.abc import Sequence

from mg_diffusion.decoding import MAX_PIXELS, MAX_SKIPPED_SHARE, READABLE_PIXELS

from .detail_flags import add_detail, check_detail
from .trackers import PACKAGES, chosen_trackers


STAGES = ("vae", "base", "adapter", "detail")
SCHEDULES = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
# The smallest value that means something; `None` stands for "not given".
AT_LEAST = {
    1: "max_train_samples train_batch_size max_train_steps gradient_accumulation_steps checkpointing_steps "
    "validation_steps num_validation_images latent_channels min_image_size max_image_pixels streaming_window "
    "samples_per_picture lora_rank layers_per_block".split(),
    0: "dataloader_num_workers checkpoints_total_limit lr_warmup_steps seed adam_weight_decay kl_weight detail_weight "
    "num_crossings num_rendered".split(),
}
ABOVE_ZERO = ("learning_rate", "adam_epsilon", "max_grad_norm", "snr_gamma")
STREAMING = {"streaming_window": 2000, "samples_per_picture": 16}
# What is built anew in stage base unless --init_from brings it along; such flags then contradict it.
NEW_NETWORKS = {"vae": None, "block_out_channels": [48, 96, 160], "text_width": 128}
# What supervises references, which --text_only has none of.
OF_REFERENCES = ("cache_dir", "composite_share", "rendered_share", "num_crossings", "num_rendered")

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
        "adapter: train MGEncoder and MGAdapter for a Stable Diffusion, which stays as it is.",
    )
    stages = parser.add_subparsers(dest="stage", required=True)
    for stage in STAGES:
        one = stages.add_parser(stage, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        _add_stage(one, stage)
        if stage == "base" and is_fine_tuning:
            one.set_defaults(**FINE_TUNING)
    return parser


def _add_stage(parser: argparse.ArgumentParser, stage: str) -> None:
    _add_common(parser)
    {"vae": _add_vae, "base": _add_base, "adapter": _add_adapter, "detail": add_detail}[stage](parser)


def defaults_of(stage: str, is_fine_tuning: bool = False) -> dict[str, object]:
    """What each flag of a stage is where it is not given; `None` for those that must be."""
    parser = argparse.ArgumentParser(add_help=False)
    _add_stage(parser, stage)
    found = {action.dest: parser.get_default(action.dest) for action in parser._actions}
    if stage != "base":
        return found
    return {**found, **(FINE_TUNING if is_fine_tuning else NEW_NETWORKS)}


def _add_common(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    source = data.add_mutually_exclusive_group(required=True)
    folder = "imagefolder or folder of webdataset shards (*.tar), with train/ and, optional, val/ below it"
    source.add_argument("--train_data_dir", help=folder)
    source.add_argument("--dataset_name", help="Hub id or folder of a data set that `datasets` reads")
    data.add_argument("--dataset_config_name", help="of the data set, where it has several")
    data.add_argument("--image_column", help='"image", or the only column of pictures, if not given')
    captions = '"text", "txt", "caption" or of "json" one of these or "prompt" if not given, "json.KEY" for others'
    data.add_argument("--caption_column", help=captions)
    data.add_argument("--max_train_samples", type=int, help="train on a random part of so many pictures")
    side = (
        "side of the pictures in pixels, a multiple of 8 of at least 32; of stage adapter, the base's own by default"
    )
    data.add_argument("--resolution", type=int, default=64, help=side)
    data.add_argument(
        "--dataloader_num_workers", type=int, default=0, help="processes that make samples; 0: none apart"
    )
    smaller = "skip pictures whose shorter side has fewer pixels; half of --resolution if not given"
    data.add_argument("--min_image_size", type=int, help=smaller)
    larger = f"skip pictures of more pixels, at most {READABLE_PIXELS}"
    data.add_argument("--max_image_pixels", type=int, default=MAX_PIXELS, help=larger)
    share = "stop where a larger share of the files is skipped, 0 to 1; which ones is in skipped.jsonl"
    data.add_argument("--max_skipped_share", type=float, default=MAX_SKIPPED_SHARE, help=share)
    streaming = "read the pictures as a stream, one window after another: for more than fit into memory or on disk"
    data.add_argument("--streaming", action="store_true", help=streaming)
    data.add_argument("--streaming_window", type=int, help="rows of a window, for each process; 2000 if not given")
    data.add_argument("--samples_per_picture", type=int, help="samples drawn from a window, by row; 16 if not given")

    run = parser.add_argument_group("run")
    run.add_argument("--output_dir", required=True, help="folder of the run: configuration, log, checkpoints, weights")
    run.add_argument("--seed", type=int, default=0, help="of new weights and all samples; at least 0")
    run.add_argument("--train_batch_size", type=int, default=32, help="samples that a process reads at once")
    shared = "share batches of --train_batch_size among all processes, instead of one batch for each"
    run.add_argument("--split_batches", action="store_true", help=shared)
    run.add_argument("--max_train_steps", type=int, default=3000, help="steps of the optimizer")
    run.add_argument("--gradient_accumulation_steps", type=int, default=1, help="batches in a step of the optimizer")
    precision = "type of the computation by autocast, and of a frozen base; fp16 needs a GPU"
    run.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), default="no", help=precision)
    run.add_argument("--checkpointing_steps", type=int, default=500, help="steps between two checkpoints")
    run.add_argument("--checkpoints_total_limit", type=int, default=2, help="how many to keep; 0 keeps all")
    run.add_argument("--resume_from_checkpoint", help='"latest" or the path of a checkpoint')
    run.add_argument("--overwrite_output_dir", action="store_true", help="lose the run that is in --output_dir")
    trackers = "tracker of accelerate to send losses, health and grids to; all: those that are installed"
    run.add_argument("--report_to", choices=(*PACKAGES, "all"), help=trackers)
    run.add_argument("--tracker_project_name", default="mg-diffusion", help="the project of the tracker's run")
    push = "upload weights/, with card, curves and grid, to the Hub at the end; log in first"
    run.add_argument("--push_to_hub", action="store_true", help=push)
    run.add_argument("--hub_model_id", help="NAME or OWNER/NAME to push to; the name of the output folder by default")
    run.add_argument("--hub_private_repo", action="store_true", help="a repository that is created is private")

    optimizer = parser.add_argument_group("optimizer")
    optimizer.add_argument("--learning_rate", type=float, default=1e-3, help="the highest of the schedule; above 0")
    optimizer.add_argument("--lr_scheduler", choices=SCHEDULES, default="cosine", help="how the rate falls")
    warmup = "steps until the learning rate is reached; if not given, at most a tenth of the run"
    optimizer.add_argument("--lr_warmup_steps", type=int, default=200, help=warmup)
    optimizer.add_argument("--adam_beta1", type=float, default=0.9, help="of AdamW, from 0 to below 1")
    optimizer.add_argument("--adam_beta2", type=float, default=0.99, help="of AdamW, from 0 to below 1")
    optimizer.add_argument("--adam_weight_decay", type=float, default=0.01, help="of AdamW, at least 0")
    optimizer.add_argument("--adam_epsilon", type=float, default=1e-8, help="of AdamW, above 0")
    optimizer.add_argument("--max_grad_norm", type=float, default=1.0, help="longer gradients are cut to it; above 0")
    optimizer.add_argument("--ema_decay", type=float, default=0.9995, help="of the averaged weights, in [0, 1]")

    validation = parser.add_argument_group("validation")
    validation.add_argument("--validation_steps", type=int, default=500, help="steps between two validations")
    validation.add_argument("--num_validation_images", type=int, default=64, help="for the loss; the grid shows 8")
    start = "validate before the first step too: what comes after compares with it, and what fails there fails at once"
    validation.add_argument("--validation_at_start", action=argparse.BooleanOptionalAction, default=True, help=start)


def _add_vae(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("vae")
    group.add_argument("--latent_channels", type=int, default=8, help="of the latents, at least 1")
    widths = "widths of the levels, multiples of 16; each level after the first halves the side"
    group.add_argument("--block_out_channels", type=int, nargs="+", default=[32, 64], help=widths)
    group.add_argument("--kl_weight", type=float, default=1e-6, help="weight of the KL divergence, at least 0")
    group.add_argument(
        "--detail_weight", type=float, default=2.0, help="weight of the L1 loss of the Haar details, at least 0"
    )


def _add_base(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("base")
    group.add_argument("--vae", help="folder of a trained vae; without it the lossless Haar codec is used")
    start = (
        'folder of an MGPipeline to start from (fine-tuning, with defaults of its own: docs/fine-tuning.md); "mg-bazaar" '
        "is the embedded default"
    )
    group.add_argument("--init_from", help=start)
    lora = "train low-rank updates of the UNet (LoRA), of this rank, instead of UNet and text encoder; needs peft"
    group.add_argument("--lora_rank", type=int, help=lora)
    alone = "train UNet and text encoder alone on pictures and captions: a base without our parts"
    group.add_argument("--text_only", action="store_true", help=alone)
    group.add_argument("--block_out_channels", type=int, nargs="+", help="of a new UNet; 48 96 160 if not given")
    group.add_argument("--text_width", type=int, help="of a new text encoder; 128 if not given")
    _add_supervision(group)
    group.add_argument("--snr_gamma", type=float, default=16.0, help="limit of the v-space weight 1 / sigma^2")


def _add_adapter(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("adapter")
    base = "folder or Hub id of a Stable Diffusion, in the format of diffusers"
    group.add_argument("--pretrained_model_name_or_path", required=True, help=base)
    group.add_argument("--variant", help="of the base's weight files, such as fp16")
    start = "folder or Hub id with mg_encoder/ and mg_adapter/ to start from; new ones if not given"
    group.add_argument("--mg_model_name_or_path", help=start)
    parser.set_defaults(resolution=None)  # the base's own
    kept = "keep latents and captions' embeddings; a crossed picture then always has the same texture"
    group.add_argument("--cache_latents", action="store_true", help=kept)
    group.add_argument("--gradient_checkpointing", action="store_true", help="of the UNet: less memory, more time")
    _add_supervision(group)
    group.add_argument("--snr_gamma", type=float, default=5.0, help="of Min-SNR weighting")


def _add_supervision(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--cache_dir", help="keep computed views here between runs")
    group.add_argument("--composite_share", type=float, default=0.45, help="exact triples of photographs")
    group.add_argument("--rendered_share", type=float, default=0.15, help="exact triples of rendered pictures")
    group.add_argument("--num_crossings", type=int, default=12000, help="pool of crossed photographs")
    group.add_argument("--num_rendered", type=int, default=4000, help="pool of rendered pictures")
    augment = "crop, flip, leave out references and captions at random"
    group.add_argument("--augment", action=argparse.BooleanOptionalAction, default=True, help=augment)


def _given(arguments: Sequence[str] | None) -> set[str]:
    """Names of the flags that were given, whatever their defaults are."""
    parser = build_parser()
    stages = next(action for action in parser._actions if action.dest == "stage")
    for stage in stages.choices.values():
        stage._defaults.clear()
        for action in stage._actions:
            action.default = argparse.SUPPRESS
    return set(vars(parser.parse_args(arguments)))


def _check_optimizer(parser: argparse.ArgumentParser, args: argparse.Namespace, given: set[str]) -> None:
    for name in ABOVE_ZERO:
        value = getattr(args, name, None)
        if value is not None and not 0 < value < float("inf"):
            parser.error(f"--{name} must be above 0, got {value}")
    for name in ("adam_beta1", "adam_beta2"):
        if not 0 <= getattr(args, name) < 1:
            parser.error(f"--{name} must lie in [0, 1), got {getattr(args, name)}")
    if not 0 <= args.ema_decay <= 1:
        parser.error(f"--ema_decay must lie in [0, 1], got {args.ema_decay}")
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
    for name, default in NEW_NETWORKS.items() if args.stage == "base" else ():
        if args.init_from and getattr(args, name) is not None:
            parser.error(f"--{name} contradicts --init_from: the pipeline to start from has its own")
        if not args.init_from and getattr(args, name) is None:
            setattr(args, name, default)
    for name, least in ((name, least) for least, names in AT_LEAST.items() for name in names):
        value = getattr(args, name, None)
        if value is not None and not value >= least:
            parser.error(f"--{name} must be at least {least}, got {value}")
    if getattr(args, "lora_rank", None) is not None:
        _check_lora(parser, args)
    _check_optimizer(parser, args, given)
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
    if not args.tracker_project_name.strip():
        parser.error("--tracker_project_name must not be empty")
    for name in ("hub_model_id", "hub_private_repo"):
        if getattr(args, name) and not args.push_to_hub:
            parser.error(f"--{name} needs --push_to_hub")
    if args.stage == "adapter" and args.cache_latents and not args.cache_dir:
        parser.error("--cache_latents needs --cache_dir, the folder to keep them in")
    for name in OF_REFERENCES if args.stage == "base" and args.text_only else ():
        if name in given:
            parser.error(f"--{name} contradicts --text_only, which trains without references")
    if hasattr(args, "composite_share") and not getattr(args, "text_only", False):
        shares = args.composite_share, args.rendered_share
        if min(shares) < 0 or sum(shares) > 1:
            parser.error(f"--composite_share and --rendered_share must be shares of at most 1 in all, got {shares}")
        for share, pool in (("composite_share", "num_crossings"), ("rendered_share", "num_rendered")):
            if getattr(args, share) > 0 and getattr(args, pool) == 0:
                parser.error(f"--{share} {getattr(args, share)} needs --{pool} of at least 1")
    _check_data(parser, args)
    if args.stage == "detail":
        check_detail(parser, args, given)
    text_width = getattr(args, "text_width", None)
    if text_width is not None and (text_width < 4 or text_width % 4):
        parser.error(f"--text_width must be a multiple of 4, got {text_width}")
    return args


def _check_data(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.dataset_config_name and not args.dataset_name:
        parser.error("--dataset_config_name is one of a data set: it needs --dataset_name")
    if not 0 <= args.max_skipped_share <= 1:
        parser.error(f"--max_skipped_share must lie in [0, 1], got {args.max_skipped_share}")
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


def _check_lora(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.init_from:
        parser.error("--lora_rank needs --init_from, a pipeline whose UNet is worth updating")
    if args.text_only:
        parser.error("--lora_rank contradicts --text_only, which trains the UNet itself")
    if importlib.util.find_spec("peft") is None:
        parser.error("--lora_rank needs peft, which is not installed: pip install peft")
