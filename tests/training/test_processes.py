"""Two processes on a CPU are one process with twice the batch: the same samples, noise, losses and gradients."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from mg_diffusion.training import __main__ as command
from mg_diffusion.training.arguments import parse_args
from mg_diffusion.training.loop import build_loader
from mg_diffusion.training.seeding import SeededSamples, generators_of, per_sample
from mg_diffusion.training.settings import RunSettings
from mg_diffusion.training.starting import start

from .test_adapter_stage import save_base


# Sums of float32 in another order; of bfloat16 the same with fewer digits.
TOLERANCE, TOLERANCE_BF16 = 1e-5, 1e-3
BESIDE = ("samples_per_second", "elapsed")  # what records say of the machine


REPLICATED = "--multi_gpu --num_machines 1 --mixed_precision no --dynamo_backend no".split()


def launch(*arguments: object) -> None:
    """`accelerate launch` of two processes that talk by gloo."""
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    options = ["--num_processes", "2", "--main_process_port", "0"]
    asked = [sys.executable, "-m", "accelerate.commands.launch", *options, *map(str, arguments)]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]


def launch_all(root: Path, made: dict[tuple[str, str], list[str]], names: list[str], *options: str) -> None:
    """Runs of two processes, one after another."""
    (root / "runs.json").write_text(json.dumps([(free_port(), made[name, "two"]) for name in names]))
    launch(*options, Path(__file__).with_name("two_processes.py"), root / "runs.json")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def records_of(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in BESIDE} for line in lines]


def assert_equal(one: list[dict[str, float]], other: list[dict[str, float]], tolerance: float) -> None:
    assert [list(record) for record in one] == [list(record) for record in other]
    for record, expected in zip(one, other, strict=True):
        assert record == pytest.approx(expected, rel=tolerance, abs=1e-7), expected


@pytest.fixture(scope="module")
def places(folder, flags, tmp_path_factory):
    """By name: the flags of a run of two processes, and those of one process with the same batch."""
    data, base = tmp_path_factory.mktemp("data"), save_base(tmp_path_factory.mktemp("bases") / "base")
    shutil.copytree(folder / "train", data / "train")
    root, made = tmp_path_factory.mktemp("runs"), {}

    def add(name, stage, *switches, batches=(2, 4), **options):
        options = {"train_data_dir": data, "max_train_steps": 2, "checkpointing_steps": 9, **options}
        for count, batch in zip(("two", "one"), batches, strict=True):
            own = [one for one in switches if count == "two" or one != "--split_batches"]
            made[name, count] = [*flags(stage, root / f"{name}-{count}", train_batch_size=batch, **options), *own]

    whole = {"train_data_dir": folder, "max_train_steps": 4, "checkpointing_steps": 2, "validation_steps": 4}
    whole["num_validation_images"] = 1
    add("base", "base", **whole)
    resumed = {**whole, "train_data_dir": data, "resume_from_checkpoint": root / "base-two" / "checkpoint-2"}
    add("resumed", "base", **resumed)
    text = {"num_crossings": None, "num_rendered": None}
    add("split", "base", "--text_only", "--split_batches", batches=(4, 4), gradient_accumulation_steps=2, **text)
    add("bf16", "base", "--text_only", mixed_precision="bf16", **text)
    add("vae", "vae", block_out_channels="16 16", latent_channels=4)
    add("detail", "detail", crop_size=16, num_rendered=None)
    options = {"pretrained_model_name_or_path": base}
    validated = {**options, "train_data_dir": folder, "num_validation_images": 1}
    add("adapter", "adapter", "--gradient_checkpointing", **options)
    made["adapter", "one"] = flags("adapter", root / "adapter-one", **validated, train_batch_size=4, max_train_steps=2)
    add("sharded", "adapter", **{**validated, "checkpointing_steps": 1})
    add("again", "adapter", **options, resume_from_checkpoint=root / "sharded-two" / "checkpoint-1")
    return root, made


@pytest.fixture(scope="module")
def launched(places):
    """All runs of two processes, the first of them as users start it."""
    root, made = places
    launch(*REPLICATED, "-m", "mg_diffusion.training", *made["base", "two"])
    launch_all(root, made, ["resumed", "split", "bf16", "vae", "detail", "adapter"], *REPLICATED)
    return root


@pytest.mark.parametrize("name", ["base", "split", "bf16", "vae", "detail", "adapter"])
def test_two_processes_have_the_losses_of_one_with_the_same_batch(name, places, launched):
    root, made = places
    AcceleratorState._reset_state(reset_partial_state=True)  # of another precision
    command.main(made[name, "one"])
    two, one = (records_of(root / f"{name}-{count}") for count in ("two", "one"))
    assert "loss" in two[0] and "grad_norm" in two[0] and (name != "base" or "val_loss" in two[1])
    assert_equal(two, one[: len(two)], TOLERANCE_BF16 if name == "bf16" else TOLERANCE)


def test_the_averages_of_two_processes_are_those_of_one(launched):
    """Of the run that the test above compares."""
    name = "weights/unet/diffusion_pytorch_model.safetensors"
    two, one = (load_file(launched / f"base-{count}" / name) for count in ("two", "one"))
    assert two.keys() == one.keys()
    # Where a gradient is all but zero, Adam takes a whole step with the sign of the rounding error.
    far = torch.cat([(two[key] - one[key]).abs().flatten() for key in one]) > 1e-5
    assert far.float().mean() < 1e-3


def test_every_process_saves_its_random_numbers(launched):
    names = {path.name for path in (launched / "base-two" / "checkpoint-2").iterdir()}
    assert names >= {"random_states_0.pkl", "random_states_1.pkl", "model.safetensors", "optimizer.bin"}


def test_a_resumed_run_of_two_processes_ends_with_the_same_weights_bit_for_bit(launched):
    for name in ("checkpoint-4/model.safetensors", "weights/unet/diffusion_pytorch_model.safetensors"):
        one, other = (load_file(launched / run / name) for run in ("base-two", "resumed-two"))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name


@pytest.fixture(scope="module")
def sharded(places, repository):
    """The configuration of the documentation."""
    root, made = places
    options = ["--config_file", str(repository / "docs" / "examples" / "fsdp.yaml")]
    launch_all(root, made, ["sharded", "again"], *options)
    return root


def test_sharded_weights_have_the_losses_of_whole_ones(launched, sharded):
    """After the test above that runs the stage in one process."""
    assert (sharded / "sharded-two" / "checkpoint-2" / "pytorch_model_fsdp_0").is_dir()
    assert_equal(records_of(sharded / "sharded-two"), records_of(launched / "adapter-one"), TOLERANCE)
    assert (sharded / "sharded-two" / "grid-000002.png").is_file()
    for part in ("mg_encoder", "mg_adapter"):
        name = f"weights/{part}/diffusion_pytorch_model.safetensors"
        one, other = (load_file(sharded / run / name) for run in ("sharded-two", "adapter-one"))
        assert {key: value.shape for key, value in one.items()} == {key: value.shape for key, value in other.items()}
        for key in one:
            torch.testing.assert_close(one[key], other[key], atol=1e-4, rtol=1e-4)


def test_a_resumed_run_of_sharded_weights_is_the_same_bit_for_bit(sharded):
    for part in ("mg_encoder", "mg_adapter"):
        name = f"weights/{part}/diffusion_pytorch_model.safetensors"
        one, other = (load_file(sharded / run / name) for run in ("sharded-two", "again-two"))
        assert all(torch.equal(one[key], other[key]) for key in one), part


class Numbers:
    """Sample `i` is `i`."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        assert 0 <= index < self.length
        return {"number": index}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_sample_of_a_run_is_read_by_one_process_once(processes, is_split, workers):
    """In every step the processes share the same samples, in order, that one process would read."""
    options = {"split_batches": True} if is_split else {}
    batch, accumulated = (6, 2) if is_split else (2, 3)
    flags = {
        "train_batch_size": batch,
        "gradient_accumulation_steps": accumulated,
        "max_train_steps": 5,
        "lr_warmup_steps": 0,
    }
    pairs = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    pairs += ["--split_batches"] * is_split + ["--dataloader_num_workers", str(workers)]
    settings = RunSettings.of(parse_args(["vae", "--train_data_dir", "d", "--output_dir", "o", *pairs]))
    together = batch if is_split else batch * processes

    length = settings.num_samples(processes)
    assert length == 5 * accumulated * together
    collate = lambda samples: torch.tensor([sample["number"] for sample in samples])  # noqa: E731
    read = [
        list(
            prepare_data_loader(
                build_loader(settings.batches, Numbers(length), collate),
                num_processes=processes,
                process_index=index,
                put_on_device=False,
                **options,
            )
        )
        for index in range(processes)
    ]
    for number, parts in enumerate(zip(*read, strict=True)):
        assert torch.cat(parts).tolist() == list(range(number * together, (number + 1) * together))
    assert sum(len(part) for process in read for part in process) == length


def test_what_is_drawn_for_a_sample_does_not_depend_on_its_batch():
    samples, cpu = SeededSamples(Numbers(6), 0), torch.device("cpu")
    seeds = torch.tensor([samples[index]["seed"] for index in range(6)])

    def draw(rows):
        return per_sample(lambda g: torch.randn(3, generator=g), generators_of({"seed": seeds[rows]}), cpu)

    assert torch.equal(draw([4, 1]), draw(list(range(6)))[[4, 1]])
    assert len({tuple(row.tolist()) for row in draw(list(range(6)))}) == 6
    assert SeededSamples(Numbers(6), 1)[0]["seed"] != samples[0]["seed"]


def test_a_batch_that_cannot_be_shared_is_refused(flags, tmp_path):
    args = parse_args([*flags("vae", tmp_path, train_batch_size=3), "--split_batches"])

    with pytest.raises(ValueError, match="--train_batch_size 3 is no multiple of 2 processes; give one that is"):
        RunSettings.of(args).num_samples(2)


def test_processes_that_do_not_know_of_each_other_are_refused(flags, tmp_path, monkeypatch):
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were started, but accelerate joins 1.*ACCELERATE_USE_CPU=true"):
        start(parse_args(flags("vae", tmp_path / "run")))
    assert not (tmp_path / "run").exists()
