"""The benchmark of training beside diffusers' scripts: what it starts, what it reads, what it says. Times are taken by hand."""

import sys

import pytest
from torch.utils.tensorboard import SummaryWriter

from benchmarks import training_speed
from benchmarks.training_speed import (
    BATCH,
    SCRIPTS,
    WARM,
    command,
    main,
    parse_arguments,
    read_speed,
    summary,
    text,
    watch,
    write_base,
    write_pictures,
)
from mg_diffusion.training.arguments import parse_args


RUNS = {
    "controlnet": [{"samples_per_second": 2.0, "peak_mib": 2000.0}, {"samples_per_second": 4.0, "peak_mib": 1000.0}],
    "adapter": [{"samples_per_second": 6.0, "peak_mib": 1200.0}],
    "t2i_adapter": [{"samples_per_second": 4.0, "peak_mib": 1000.0}],
}


@pytest.fixture
def examples(tmp_path, monkeypatch):
    monkeypatch.setattr(training_speed, "PICTURES", 2)
    for script in SCRIPTS.values():
        place = tmp_path / "examples" / script
        place.parent.mkdir(parents=True)
        place.write_text("")
    return str(tmp_path / "examples")


def test_ratios_are_those_to_the_script_on_the_same_base():
    found = summary(RUNS)
    assert found["adapter"]["samples_per_second_ratio"] == 2.0 and found["adapter"]["peak_mib_ratio"] == 0.8
    assert "samples_per_second_ratio" not in found["t2i_adapter"]
    settings = {"device": "x86_64 CPU", "threads": 2, "resolution": 256, "batch": 16, "mixed_precision": "no"}
    said = text({"methods": found, "settings": {**settings, "steps": 80, "repeats": 3, "idle_mib": 600.0}})
    assert "256 px, batch 16, float32, 80 steps" in said and "takes 600 MiB" in said
    assert "| stage `adapter`, Stable Diffusion | 6.0 | 2.00 | 1200 | 0.80 |" in said


def test_speed_is_that_of_the_steps_behind_the_first(tmp_path):
    writer = SummaryWriter(tmp_path / "logs")
    for step, time in ((1, 0.0), (WARM, 100.0), (WARM + 10, 105.0), (WARM + 20, 110.0)):
        writer.add_scalar("loss", 1.0, step, walltime=time)
    writer.close()
    assert read_speed(tmp_path) == pytest.approx(20 * BATCH / 10)


def test_memory_is_that_of_the_process_itself():
    code = "import time; x = bytearray(200 << 20); time.sleep(0.5); raise SystemExit(3)"
    peak, status = watch([sys.executable, "-c", code])
    assert status == 3 and 200 < peak < 300


def test_our_flags_are_flags_and_the_bases_are_read_by_our_stage(examples, tmp_path):
    options = parse_arguments(["--diffusers_examples", examples])
    for name in ("adapter", "adapter_xl"):
        started = command(name, tmp_path, options, tmp_path / "out")
        assert parse_args(started[3:]).cache_latents
    captions = write_pictures(tmp_path / "pictures")
    assert len(captions) == len(list((tmp_path / "pictures" / "train").glob("*.png")))
    write_base(tmp_path / "sd", captions, is_xl=False)
    assert (tmp_path / "sd" / "unet" / "config.json").is_file()


def test_a_script_that_fails_is_shown(examples, tmp_path, capsys):
    (tmp_path / "examples" / SCRIPTS["controlnet"]).write_text("raise SystemExit('no torchvision')")
    flags = ["--diffusers_examples", examples, "--methods", "controlnet", "--repeats", "1"]
    assert main([*flags, "-o", str(tmp_path / "out.json")]) == 2
    assert "train_controlnet.py failed:\nno torchvision" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--steps", "30"], "--steps must be a multiple of 20 and at least 40, got 30"),
        (["--diffusers_examples", "nowhere"], "--diffusers_examples 'nowhere' has no controlnet/train_controlnet.py"),
    ],
)
def test_what_cannot_be_measured_is_refused(examples, flags, message, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--diffusers_examples", examples, *flags])
    assert message in capsys.readouterr().err
