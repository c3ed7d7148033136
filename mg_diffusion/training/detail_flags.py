"""Flags of stage `detail`."""

import argparse


def add_detail(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("detail")
    materials = "folder like --train_data_dir with pictures that are nothing but texture, read at half of --resolution"
    group.add_argument("--materials_dir", help=materials)
    group.add_argument("--init_from", help="folder of a detail network to start from; a new one if not given")
    crop = "side of what is learned at once, in pixels, a multiple of 16; half of --resolution or less"
    group.add_argument("--crop_size", type=int, default=64, help=crop)
    widths = "of a new network, multiples of 16; each level after the first halves the side"
    group.add_argument("--block_out_channels", type=int, nargs="+", default=[48, 64, 96], help=widths)
    group.add_argument("--layers_per_block", type=int, default=1, help="of a new network")
    group.add_argument("--cache_dir", help="keep sketches and canvases here between runs")
    group.add_argument("--num_crossings", type=int, default=1000, help="pool of crossed photographs")
    group.add_argument("--snr_gamma", type=float, default=8.0, help="limit of the v-space weight 1 / sigma^2")
    parser.set_defaults(
        resolution=256, train_batch_size=16, learning_rate=2e-3, adam_weight_decay=1e-4, ema_decay=0.998
    )


def check_detail(parser: argparse.ArgumentParser, args: argparse.Namespace, given: set[str]) -> None:
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
