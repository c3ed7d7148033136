"""`mg-diffusion adapt`: from a folder of pictures to an exported adapter, rehearsed on a miniature."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest

from mg_diffusion.cli import main
from mg_diffusion.cli.adapting import launch
from mg_diffusion.cli.parser import build_parser

from .test_adapter_stage import save_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """The training pictures alone: those of the validation repeat them, which is refused."""
    data = tmp_path_factory.mktemp("data")
    shutil.copytree(folder / "train", data / "train")
    return data


def flags(base, folder, output, *more):
    small = ["--resolution", "32", "--train_batch_size", "2", "--max_train_steps", "2", "--checkpointing_steps", "1"]
    small += [
        "--num_validation_images",
        "2",
        "--num_crossings",
        "4",
        "--num_rendered",
        "4",
        "--no-validation_at_start",
    ]
    return ["adapt", "--base", str(base), "--data", str(folder), "-o", str(output), *more, "--", *small]


def test_one_command_goes_from_pictures_to_a_model_that_generates(base, alone, tmp_path, capfd):
    output = tmp_path / "mine"
    assert main(flags(base, alone, output)) == 0
    assert "Try it: mg-diffusion generate" in capfd.readouterr().out
    model = output / "model"
    assert {"README.md", "curves.png", "model_index.json", "mg_adapter", "unet"} <= {
        path.name for path in model.iterdir()
    }
    assert (
        main(["generate", "--model", str(model), "--color", "#c1121f", "--steps", "1", "-o", str(tmp_path / "a.png")])
        == 0
    )
    assert np.asarray(PIL.Image.open(tmp_path / "a.png")).ndim == 3
    assert main(flags(base, alone, output)) == 2
    assert "is there already" in capfd.readouterr().err
    # Trained on: as after an interruption, from the last checkpoint.
    longer = [*flags(base, alone, output, "--force"), "--max_train_steps", "3"]
    assert main(longer) == 0
    steps = [json.loads(line).get("step") for line in (output / "run" / "log.jsonl").read_text().splitlines()]
    assert steps[-1] == 3 and (output / "run" / "checkpoint-3").is_dir()


def test_what_stops_the_training_stops_the_command(base, alone, tmp_path, capfd):
    output = tmp_path / "mine"
    assert main([*flags(base, alone, output), "--learning_rate", "never"]) == 2
    assert "The training ended with status 2" in capfd.readouterr().err
    assert not (output / "model").exists()


def test_pictures_that_would_stop_it_are_told_before(base, tmp_path, capsys):
    (tmp_path / "pictures" / "train").mkdir(parents=True)
    (tmp_path / "pictures" / "train" / "a.png").write_bytes(b"no picture")
    assert main(flags(base, tmp_path / "pictures", tmp_path / "mine")) == 2
    assert "would stop or spoil the training" in capsys.readouterr().err and not (tmp_path / "mine").exists()


def test_pictures_that_repeat_themselves_are_told_and_trained_on_if_asked_to(base, folder, tmp_path, capfd):
    assert main(flags(base, folder, tmp_path / "mine")) == 2
    assert "--unchecked trains nevertheless" in capfd.readouterr().err
    assert main(flags(base, folder, tmp_path / "mine", "--unchecked")) == 0
    assert (tmp_path / "mine" / "model" / "grid.png").is_file()


def test_several_processes_are_launched_by_accelerate():
    command = launch(["--max_train_steps", "2"], 2)
    assert command[1:7] == ["-m", "accelerate.commands.launch", "--num_processes", "2", "--multi_gpu", "-m"]
    assert launch([], None)[1:] == ["-m", "mg_diffusion.training", "adapter"]


def test_flags_of_the_training_come_behind_two_dashes():
    options = build_parser().parse_args(
        ["adapt", "--base", "b", "--data", "d", "-o", "o", "--", "--max_train_steps", "5"]
    )
    assert options.training == ["--max_train_steps", "5"]
