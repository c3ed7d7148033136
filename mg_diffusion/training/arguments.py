"""Flags of the training stages, named as in diffusers' examples."""

import argparse
import importlib.util
from collections.abc import Sequence


STAGES = ("vae", "base", "adapter")
SCHEDULES = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
# The smallest value that means something; `None` stands for "not given".
AT_LEAST = {
    "max_train_samples": 1,
    "dataloader_num_workers": 0,
    "train_batch_size": 1,
    "max_train_steps": 1,
    "gradient_accumulation_steps": 1,
    "checkpointing_steps": 1,
    "checkpoints_total_limit": 0,
    "lr_warmup_steps": 0,
    "validation_steps": 1,
    "num_validation_images": 1,
    "latent_channels": 1,
    "num_crossings": 0,
    "num_rendered": 0,
    "lora_rank": 1,
}
# What is built anew in stage base unless --init_from brings it along; such flags then contradict it.
NEW_NETWORKS = {"vae": None, "block_out_channels": [48, 96, 160], "text_width": 128}

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
        _add_common(one)
        {"vae": _add_vae, "base": _add_base, "adapter": _add_adapter}[stage](one)
        if stage == "base" and is_fine_tuning:
            one.set_defaults(**FINE_TUNING)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--train_data_dir", required=True, help="imagefolder with train/ and, optional, val/ below it")
    data.add_argument("--image_column", default="image")
    data.add_argument("--caption_column", default="text")
    data.add_argument("--max_train_samples", type=int, help="train on a random part of so many pictures")
    data.add_argument("--resolution", type=int, default=64, help="of stage adapter, the base's own by default")
    data.add_argument("--dataloader_num_workers", type=int, default=0)

    run = parser.add_argument_group("run")
    run.add_argument("--output_dir", required=True)
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--train_batch_size", type=int, default=32)
    run.add_argument("--max_train_steps", type=int, default=3000)
    run.add_argument("--gradient_accumulation_steps", type=int, default=1)
    run.add_argument("--mixed_precision", choices=("no", "fp16", "bf16"), default="no")
    run.add_argument("--checkpointing_steps", type=int, default=500)
    run.add_argument("--checkpoints_total_limit", type=int, default=2, help="0 keeps all")
    run.add_argument("--resume_from_checkpoint", help='"latest" or the path of a checkpoint')
    run.add_argument("--report_to", help="trackers of accelerate: tensorboard, wandb, trackio, or all")

    optimizer = parser.add_argument_group("optimizer")
    optimizer.add_argument("--learning_rate", type=float, default=1e-3)
    optimizer.add_argument("--lr_scheduler", choices=SCHEDULES, default="cosine")
    optimizer.add_argument("--lr_warmup_steps", type=int, default=200)
    optimizer.add_argument("--adam_beta1", type=float, default=0.9)
    optimizer.add_argument("--adam_beta2", type=float, default=0.99)
    optimizer.add_argument("--adam_weight_decay", type=float, default=0.01)
    optimizer.add_argument("--adam_epsilon", type=float, default=1e-8)
    optimizer.add_argument("--max_grad_norm", type=float, default=1.0)
    optimizer.add_argument("--ema_decay", type=float, default=0.9995)

    validation = parser.add_argument_group("validation")
    validation.add_argument("--validation_steps", type=int, default=500)
    validation.add_argument("--num_validation_images", type=int, default=64, help="for the loss; the grid shows 8")


def _add_vae(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("vae")
    group.add_argument("--latent_channels", type=int, default=8)
    group.add_argument("--block_out_channels", type=int, nargs="+", default=[32, 64])
    group.add_argument("--kl_weight", type=float, default=1e-6)
    group.add_argument("--detail_weight", type=float, default=2.0, help="weight of the L1 loss of the Haar details")


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
    kept = "keep the photographs' latents and the captions' embeddings in --cache_dir, too"
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


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check; contradictions are refused before anything is loaded.

    Raises:
        SystemExit: for unknown flags or values out of range (argparse's own behavior), with the reason.
    """
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.stage == "base" and args.init_from:
        args = build_parser(is_fine_tuning=True).parse_args(arguments)
    for name, default in NEW_NETWORKS.items() if args.stage == "base" else ():
        if args.init_from and getattr(args, name) is not None:
            parser.error(f"--{name} contradicts --init_from: the pipeline to start from has its own")
        if not args.init_from and getattr(args, name) is None:
            setattr(args, name, default)
    for name, least in AT_LEAST.items():
        value = getattr(args, name, None)
        if value is not None and value < least:
            parser.error(f"--{name} must be at least {least}, got {value}")
    if getattr(args, "lora_rank", None) is not None:
        _check_lora(parser, args)
    if not 0 <= args.ema_decay <= 1:
        parser.error(f"--ema_decay must lie in [0, 1], got {args.ema_decay}")
    if any(width < 16 or width % 16 for width in getattr(args, "block_out_channels", None) or ()):
        parser.error(f"--block_out_channels must be multiples of 16, got {args.block_out_channels}")
    if args.resolution is not None and (args.resolution < 32 or args.resolution % 8):
        parser.error(f"--resolution must be a multiple of 8 and at least 32, got {args.resolution}")
    if args.stage == "adapter" and args.cache_latents and not args.cache_dir:
        parser.error("--cache_latents needs --cache_dir, the folder to keep them in")
    if args.stage != "vae":
        shares = args.composite_share, args.rendered_share
        if min(shares) < 0 or sum(shares) > 1:
            parser.error(f"--composite_share and --rendered_share must be shares of at most 1 in all, got {shares}")
        for share, pool in (("composite_share", "num_crossings"), ("rendered_share", "num_rendered")):
            if getattr(args, share) > 0 and getattr(args, pool) == 0:
                parser.error(f"--{share} {getattr(args, share)} needs --{pool} of at least 1")
    text_width = getattr(args, "text_width", None)
    if text_width is not None and (text_width < 4 or text_width % 4):
        parser.error(f"--text_width must be a multiple of 4, got {text_width}")
    return args


def _check_lora(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.init_from:
        parser.error("--lora_rank needs --init_from, a pipeline whose UNet is worth updating")
    if args.text_only:
        parser.error("--lora_rank contradicts --text_only, which trains the UNet itself")
    if importlib.util.find_spec("peft") is None:
        parser.error("--lora_rank needs peft, which is not installed: pip install peft")
