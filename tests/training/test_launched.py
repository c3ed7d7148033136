"""What `accelerate launch` and `accelerate config` were told holds where our flags say nothing else."""

import json
import os
import re
import subprocess
import sys

import pytest

from mg_diffusion.training.arguments import parse_args


NEEDED = ["vae", "--train_data_dir", "pictures", "--output_dir", "run"]
PRECISION, ACCUMULATED = "ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
CLIPPED = "ACCELERATE_GRADIENT_CLIPPING"


@pytest.fixture(autouse=True)
def nothing_was_launched(monkeypatch):
    for variable in (PRECISION, ACCUMULATED, CLIPPED):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("told", "flags", "name", "expected"),
    [
        ({}, [], "mixed_precision", "no"),
        ({PRECISION: "bf16"}, [], "mixed_precision", "bf16"),
        ({PRECISION: "BF16"}, [], "mixed_precision", "bf16"),
        ({PRECISION: "bf16"}, ["--mixed_precision", "no"], "mixed_precision", "no"),
        ({PRECISION: "fp8"}, ["--mixed_precision", "bf16"], "mixed_precision", "bf16"),
        ({ACCUMULATED: "4"}, [], "gradient_accumulation_steps", 4),
        ({ACCUMULATED: "4"}, ["--gradient_accumulation_steps", "4"], "gradient_accumulation_steps", 4),
        ({CLIPPED: "0.5"}, [], "max_grad_norm", 0.5),
        ({CLIPPED: "auto"}, ["--max_grad_norm", "2"], "max_grad_norm", 2.0),
        ({CLIPPED: "none"}, [], "max_grad_norm", 1.0),
    ],
)
def test_a_flag_that_is_not_given_is_what_the_launcher_was_told(monkeypatch, told, flags, name, expected):
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    assert getattr(parse_args([*NEEDED, *flags]), name) == expected


@pytest.mark.parametrize(
    ("told", "flags", "message"),
    [
        ({PRECISION: "fp8"}, [], f"({PRECISION}) says fp8, but --mixed_precision is one of no, fp16, bf16"),
        ({ACCUMULATED: "auto"}, [], f"({ACCUMULATED}) says 'auto' where --gradient_accumulation_steps is a number"),
        ({ACCUMULATED: "0"}, [], "--gradient_accumulation_steps must be at least 1, got 0"),
        ({CLIPPED: "nan"}, [], "--max_grad_norm must be above 0, got nan"),
        (
            {ACCUMULATED: "1"},
            ["--gradient_accumulation_steps", "2"],
            "--gradient_accumulation_steps 2 contradicts `accelerate launch`",
        ),
        ({CLIPPED: "1.0"}, ["--max_grad_norm", "0.5"], "--max_grad_norm 0.5 contradicts `accelerate launch`"),
    ],
)
def test_what_cannot_hold_is_refused(monkeypatch, capsys, told, flags, message):
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit):
        parse_args([*NEEDED, *flags])
    assert re.search(re.escape(message), " ".join(capsys.readouterr().err.split()))


def test_a_launched_run_trains_in_the_precision_of_the_launcher(tmp_path):
    """Through the configuration that `accelerate config` writes; the run ends where it starts, at the lack of pictures."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nmixed_precision: bf16\nuse_cpu: true\n"
    )
    (tmp_path / "data" / "train").mkdir(parents=True)
    script = (
        "import sys; from mg_diffusion.training.arguments import parse_args\n"
        "from mg_diffusion.training.starting import start\n"
        "print('TRAINS IN', start(parse_args(sys.argv[1:])).mixed_precision)\n"
    )
    (tmp_path / "run.py").write_text(script)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, tmp_path / "run.py"]
    flags = ["vae", "--train_data_dir", tmp_path / "data", "--output_dir", tmp_path / "run"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*launch, *flags], capture_output=True, text=True, env=environment, timeout=120)
    assert "TRAINS IN bf16" in done.stdout, done.stderr
    assert json.loads((tmp_path / "run" / "training_config.json").read_text())["mixed_precision"] == "bf16"
