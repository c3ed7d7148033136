"""Speed and memory of stage `adapter` beside diffusers' example scripts: `python -m benchmarks.training_speed`.

On Stable Diffusion 1.5 with an eighth of its widths `train_controlnet.py`, on Stable Diffusion XL likewise
`train_t2i_adapter_sdxl.py`, each in a process of its own, taking turns with ours on the same base, pictures, resolution
and batch. The scripts run as they are; ours with `--cache_latents`, which they have not. Speed is read from the trackers'
files, behind the first steps; memory is the peak of the process. So many crossings are made that as many of those drawn
have been kept before as in a run of the default length and pools (about three quarters).
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFilter
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    T2IAdapter,
    UNet2DConditionModel,
)
from transformers import CLIPTextModelWithProjection

from mg_diffusion.recipe import prepare_output, save_json, versions
from mg_diffusion.training.models import build_text_encoder, build_tokenizer
from mg_diffusion.training.renderer import render

from .bases import CONFIGURATIONS


DEFAULT_OUTPUT = "benchmarks/results/training_speed.json"
RESOLUTION, BATCH = 256, 16
TEXT_WIDTH = 96
PICTURES = 64
WARM = 20  # steps before the clock starts: caches fill, the allocator settles
LABELS = {
    "controlnet": "diffusers' train_controlnet.py",
    "adapter": "stage `adapter`, Stable Diffusion",
    "t2i_adapter": "diffusers' train_t2i_adapter_sdxl.py",
    "adapter_xl": "stage `adapter`, Stable Diffusion XL",
}
PEER_OF = {"adapter": "controlnet", "adapter_xl": "t2i_adapter"}
SCRIPTS = {"controlnet": "controlnet/train_controlnet.py", "t2i_adapter": "t2i_adapter/train_t2i_adapter_sdxl.py"}


def write_pictures(folder: Path) -> list[str]:
    """Rendered pictures with captions and, for the peers, their edges as control images; returns the captions."""
    train = folder / "train"
    (train / "edges").mkdir(parents=True)
    rows = []
    for index in range(PICTURES):
        picture = PIL.Image.fromarray((render(index, index, index, size=RESOLUTION) * 255).round().astype(np.uint8))
        picture.save(train / f"{index}.png")
        picture.filter(PIL.ImageFilter.FIND_EDGES).save(train / "edges" / f"{index}.png")
        rows.append(
            {
                "file_name": f"{index}.png",
                "text": f"rendered picture number {index}",
                "conditioning_image_file_name": f"edges/{index}.png",
            }
        )
    (train / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [row["text"] for row in rows]


def write_base(folder: Path, captions: list[str], is_xl: bool) -> None:
    """A miniature in the format of diffusers: the blocks of Stable Diffusion 1.5 or XL, an eighth of their widths."""
    torch.manual_seed(0)
    released = CONFIGURATIONS["sdxl" if is_xl else "sd15"]
    unet = UNet2DConditionModel(
        **{
            **released,
            "sample_size": RESOLUTION // 8,
            "block_out_channels": [40, 80, 160] if is_xl else [40, 80, 160, 160],
            "cross_attention_dim": 2 * TEXT_WIDTH if is_xl else TEXT_WIDTH,
            "attention_head_dim": [1, 2, 4] if is_xl else 2,  # heads
            "norm_num_groups": 8,
            **(
                {"addition_time_embed_dim": 32, "projection_class_embeddings_input_dim": TEXT_WIDTH + 6 * 32}
                if is_xl
                else {}
            ),
        }
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=2,
        norm_num_groups=8,
        sample_size=RESOLUTION,
    )
    tokenizer = build_tokenizer(captions)
    parts: dict[str, Any] = {"vae": vae, "unet": unet, "tokenizer": tokenizer}
    parts["text_encoder"] = build_text_encoder(tokenizer, TEXT_WIDTH)
    if is_xl:
        config = parts["text_encoder"].config
        config.projection_dim = TEXT_WIDTH
        parts |= {"tokenizer_2": tokenizer, "text_encoder_2": CLIPTextModelWithProjection(config)}
        StableDiffusionXLPipeline(**parts, scheduler=EulerDiscreteScheduler()).save_pretrained(folder)
        T2IAdapter(
            in_channels=3,
            channels=(40, 80, 160, 160),
            num_res_blocks=2,
            downscale_factor=16,
            adapter_type="full_adapter_xl",
        ).save_pretrained(folder.with_name("t2i_adapter"))
        return
    nothing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    scheduler = DDPMScheduler(clip_sample=False, steps_offset=1)
    StableDiffusionPipeline(**parts, **nothing, scheduler=scheduler).save_pretrained(folder)


def command(name: str, folder: Path, options: argparse.Namespace, output: Path) -> list[str]:
    """What runs one of the four."""
    flags = {
        "pretrained_model_name_or_path": folder / ("sdxl" if name in ("t2i_adapter", "adapter_xl") else "sd"),
        "train_data_dir": folder / "pictures",
        "output_dir": output,
        "resolution": RESOLUTION,
        "train_batch_size": BATCH,
        "max_train_steps": options.steps,
        "mixed_precision": options.mixed_precision,
        "checkpointing_steps": 10 * options.steps,
        "report_to": "tensorboard",
        "lr_warmup_steps": 0,
    }
    if name in SCRIPTS:
        start = [str(Path(options.diffusers_examples, SCRIPTS[name]))]
        flags |= {"conditioning_image_column": "conditioning_image", "caption_column": "text", "seed": 0}
        flags |= {"adapter_model_name_or_path": folder / "t2i_adapter"} if name == "t2i_adapter" else {}
        more = []
    else:
        start = ["-m", "mg_diffusion.training", "adapter"]
        flags |= {"cache_dir": folder / "cache", "num_crossings": 240, "num_rendered": 80}
        more = ["--cache_latents"]
    return [
        sys.executable,
        *start,
        *(part for key, value in flags.items() for part in (f"--{key}", str(value))),
        *more,
    ]


def read_speed(output: Path) -> float:
    """Samples a second behind the first `WARM` steps, by the times of the records of the loss."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = []
    for place in output.rglob("events.out.tfevents*"):
        events = EventAccumulator(str(place)).Reload()
        tags = [tag for tag in events.Tags()["scalars"] if tag.split("/")[-1] in ("loss", "train_loss")]
        found += [(event.step, event.wall_time) for tag in tags for event in events.Scalars(tag)]
    timed = sorted(one for one in found if one[0] >= WARM)
    (first, start), (last, end) = timed[0], timed[-1]
    return (last - first) * BATCH / (end - start)


def run_one(name: str, folder: Path, options: argparse.Namespace, output: Path) -> dict[str, float]:
    """Speed and peak memory of one run.

    Raises:
        ValueError: if it fails; with the end of what it said.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "datasets")}
    environment |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    if name in SCRIPTS and options.peers_pythonpath:
        environment["PYTHONPATH"] = options.peers_pythonpath
    said = output.with_suffix(".log")
    with open(said, "w", encoding="utf-8") as log:
        peak, status = watch(command(name, folder, options, output), stdout=log, stderr=log, env=environment)
    if status:
        raise ValueError(f"The run of {LABELS[name]} failed:\n{said.read_text(encoding='utf-8')[-3000:]}")
    return {"samples_per_second": read_speed(output), "peak_mib": peak}


def watch(arguments: list[str], **options: Any) -> tuple[float, int]:
    """Run a command; its peak memory in MiB and its exit status.

    The peak is read while it runs: what the system reports afterwards (`ru_maxrss`) counts the process it was forked from.
    """
    process, peak = subprocess.Popen(arguments, **options), 0.0
    while process.poll() is None:
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8"))
        except ProcessLookupError:
            break
        peak = max(peak, int(found[1]) / 1024) if found else peak
        time.sleep(0.1)
    return peak, process.wait()


def idle_memory() -> float:
    """MiB at the peak of a process that only imports what all of them import."""
    code = "import accelerate, datasets, diffusers, transformers; from diffusers import UNet2DConditionModel"
    return watch([sys.executable, "-c", code], stderr=subprocess.DEVNULL)[0]


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians, and beside the peer on the same base ratios."""
    found = {
        name: {key: statistics.median(run[key] for run in some) for key in some[0]} for name, some in runs.items()
    }
    for name, peer in PEER_OF.items():
        if name in found and peer in found:
            for key in ("samples_per_second", "peak_mib"):
                found[name][f"{key}_ratio"] = found[name][key] / found[peer][key]
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    lines = ["| | samples/s | beside the script | peak memory, MiB | beside the script |", "|-|-:|-:|-:|-:|"]
    for name, label in LABELS.items():
        if name in found:
            one = found[name]
            ratios = [
                f"{one[key]:.2f}" if key in one else "" for key in ("samples_per_second_ratio", "peak_mib_ratio")
            ]
            lines.append(
                f"| {label} | {one['samples_per_second']:.1f} | {ratios[0]} | {one['peak_mib']:.0f} | {ratios[1]} |"
            )
    return "\n".join(lines)


def text(found: dict[str, Any]) -> str:
    """The table under what it was taken on."""
    one = found["settings"]
    precision = {"no": "float32"}.get(one["mixed_precision"], one["mixed_precision"])
    where = (
        f"{one['device']}, {one['threads']} thread(s), {one['resolution']} px, batch {one['batch']}, {precision}, {one['steps']} "
        f"steps of which {WARM} do not count, medians of {one['repeats']} run(s). A process that only imports what all of them "
        f"need takes {one['idle_mib']:.0f} MiB."
    )
    return f"{where}\n\n{table(found['methods'])}"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    examples = "folder `examples` of a checkout of diffusers; its scripts need torchvision"
    parser.add_argument("--diffusers_examples", required=True, metavar="FOLDER", help=examples)
    parser.add_argument("--peers_pythonpath", help="PYTHONPATH of the scripts, where torchvision lies elsewhere")
    parser.add_argument("-o", "--output", default=DEFAULT_OUTPUT, metavar="FILE.json")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mixed_precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--methods", nargs="+", choices=LABELS, default=list(LABELS))
    options = parser.parse_args(arguments)
    if options.steps < WARM + 20 or options.steps % 20:
        parser.error(f"--steps must be a multiple of 20 and at least {WARM + 20}, got {options.steps}")
    for script in SCRIPTS.values():
        if not Path(options.diffusers_examples, script).is_file():
            parser.error(f"--diffusers_examples {options.diffusers_examples!r} has no {script}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns the exit status: 0, or 2 after an error."""
    options = parse_arguments(arguments)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in options.methods}
    try:
        place = prepare_output(options.output, ".json")
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            captions = write_pictures(folder / "pictures")
            for base in ("sd", "sdxl"):
                write_base(folder / base, captions, base == "sdxl")
            for turn in range(options.repeats):
                for name, some in runs.items():
                    some.append(run_one(name, folder, options, folder / f"{name}-{turn}"))
                    print(f"{LABELS[name]}: {some[-1]}", flush=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    settings = {"resolution": RESOLUTION, "batch": BATCH, "idle_mib": idle_memory()}
    settings |= {name: getattr(options, name) for name in ("steps", "repeats", "mixed_precision")}
    settings |= {"device": f"{platform.machine()} CPU", "threads": torch.get_num_threads(), "versions": versions()}
    found = summary(runs)
    save_json({"methods": found, "settings": settings}, place)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
