"""What a run says of itself while it goes on, on terminals, in files and to trackers."""

import fcntl
import io
import json
import math
import os
import pty
import re
import shutil
import struct
import sys
import termios
import time

import numpy as np
import PIL.Image
import pytest
import torch
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mg_diffusion.training import base, journal, loop, trackers
from mg_diffusion.training.arguments import parse_args
from mg_diffusion.training.checkpoints import write_manifest
from mg_diffusion.training.journal import Journal, Meter, Progress, health_line, stop_at_non_finite
from mg_diffusion.training.settings import RunSettings


RECORD = {"step": 40, "grad_norm": 0.5, "clipped": 0.25, "ema_distance": 0.012, "lr": 1e-3}


def settings(folder, stage="base", **changed):
    own = {"train_data_dir": "unused", "output_dir": folder, "max_train_steps": 100, "lr_warmup_steps": 9, **changed}
    if stage == "adapter":
        own["pretrained_model_name_or_path"] = "unused"
    flags = [part for name, value in own.items() for part in (f"--{name}", str(value))]
    return RunSettings.of(parse_args([stage, *flags]))


def test_a_meter_reads_means_and_shares_since_it_was_last_read():
    meter = Meter(4, max_grad_norm=1.0)
    present = torch.tensor([[True, False, True], [True, False, False]])
    for loss, norm in ((1.0, None), (2.0, 0.5), (3.0, None), (4.0, 2.5)):
        meter.add(loss, norm, (~present).float().mean(0).tolist())
    read = meter.read()
    assert (read["loss"], read["grad_norm"], read["clipped"]) == (2.5, 1.5, 0.5) and "skipped" not in read
    assert [read[f"dropped_{name}"] for name in ("color", "texture", "shape")] == [0.0, 1.0, 0.5]
    meter.add(7.0, math.inf)
    read = meter.read()
    assert read.keys() == {"loss", "samples_per_second", "elapsed", "skipped"}
    assert (read["loss"], read["skipped"]) == (7.0, 1.0)


def test_validation_does_not_count_in_the_speed():
    meter = Meter(10, 1.0)
    with meter.paused():
        time.sleep(0.5)
    time.sleep(0.02)
    meter.add(1.0, 0.5)
    assert meter.samples_per_second > 10 / 0.4
    read = meter.read()
    assert read["samples_per_second"] > 10 / 0.4 and read["elapsed"] >= 0.5


def test_health_is_one_line():
    dropped = {"dropped_color": 0.351, "dropped_texture": 0.4, "dropped_shape": 0.0}
    assert health_line({**RECORD, **dropped, "skipped": 0.1}) == (
        "step 40; gradient 0.5 (clipped 25%); steps skipped 10%; dropped color 35%, texture 40%, shape 0%; "
        "EMA distance 1.20%; lr 1.00e-03"
    )
    assert health_line({"step": 3, "ema_distance": 0.5, "lr": 0.1}) == "step 3; EMA distance 50.00%; lr 1.00e-01"


def progress_in_a_file(monkeypatch, step=0, is_shown=True, seconds=0.0):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(journal, "LINE_SECONDS", seconds)
    return Progress("base", 100, step, is_shown), sys.stderr


def test_a_file_gets_whole_lines(monkeypatch):
    progress, file = progress_in_a_file(monkeypatch)
    progress.update(0.5, 12.34)
    progress.show_health(RECORD)
    progress.say("validation at step 1")
    progress.update(0.5, 12.34)
    progress.close()
    text = file.getvalue()
    assert "\r" not in text and "\x1b" not in text
    lines = text.splitlines()
    assert re.fullmatch(r"base 0/100, 00:00 gone, \? left", lines[0])
    assert re.fullmatch(r"base 1/100, \S+ gone, \S+ left, loss 0.5000, 12.3 samples/s", lines[1])
    assert lines[2] == "validation at step 1"
    assert lines[3].startswith("base 2/100, ") and lines[3].endswith("12.3 samples/s; " + health_line(RECORD))


def test_a_file_gets_a_line_now_and_then(monkeypatch):
    progress, file = progress_in_a_file(monkeypatch, seconds=30.0)
    for _ in range(50):
        progress.update(0.5, 12.34)
    assert len(file.getvalue().splitlines()) == 1
    progress.close()
    assert file.getvalue().splitlines()[1].startswith("base 50/100, ")


def test_the_loss_shown_is_smoothed(monkeypatch):
    progress, file = progress_in_a_file(monkeypatch)
    for loss in [1.0] * 50 + [2.0]:
        progress.update(loss, 1.0)
    shown = float(re.findall(r"loss ([\d.]+)", file.getvalue())[-1])
    assert 1.0 < shown < 1.2


def test_other_ranks_say_nothing(monkeypatch):
    progress, file = progress_in_a_file(monkeypatch, is_shown=False)
    progress.start_clock()
    progress.update(0.5, 1.0)
    progress.show_health(RECORD)
    progress.say("validation")
    progress.close()
    assert file.getvalue() == ""


def seconds_left(bar):
    figures = bar.format_dict
    assert figures["rate"] is None  # so that tqdm takes the mean since the start
    return (figures["total"] - figures["n"]) / ((figures["n"] - figures["initial"]) / figures["elapsed"])


def test_the_time_left_counts_steps_of_this_process_and_their_pauses(monkeypatch):
    """Resumed at step 60 after a slow beginning: 10 steps and a pause take 0.4 s, so the last 30 take thrice that."""
    progress, _ = progress_in_a_file(monkeypatch, step=60)
    time.sleep(1)
    progress.start_clock()
    begin = time.time()
    for _ in range(10):
        time.sleep(0.01)
        progress.update(0.5, 1.0)
    time.sleep(0.3)
    expected = 3 * (time.time() - begin)
    assert seconds_left(progress.bar) == pytest.approx(
        expected, rel=0.5
    )  # the slow second alone would make it thrice as long


def test_a_terminal_gets_a_bar_and_health_below(monkeypatch):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, 160, 0, 0))  # rows and columns
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        progress = Progress("base", 100, 0, True)
        assert progress.is_terminal
        progress.bar.mininterval = 0
        progress.update(0.5, 12.34)
        progress.show_health(RECORD)
        progress.say("validation at step 1")
        progress.update(0.5, 12.34)
        progress.close()
        text = os.read(ours, 10**6).decode()
    os.close(ours)
    assert re.search(r"base:   2%\|.*\| 2/100 \[\S+<\S+, loss 0.5000, 12.3 samples/s\]", text)
    assert health_line(RECORD) in text and "validation at step 1\r\n" in text
    assert not re.search(r"samples/s; step", text)  # health has its own line


@pytest.mark.parametrize(
    "changed, saved, loss, norm, message",
    [
        (
            {},
            [],
            math.nan,
            1.0,
            r"The loss is nan at step 7\..*not reach the weights\. No checkpoint .*--learning_rate",
        ),
        (
            {},
            [2, 5],
            1.0,
            math.inf,
            r"The gradient is inf at step 7\..*checkpoint-5'.*a smaller --max_grad_norm \(now 1\); from",
        ),
        (
            {},
            [2],
            math.inf,
            math.nan,
            r"loss is inf and the gradient is nan.*from its weights, in another folder: --init_from .*/weights",
        ),
        ({"stage": "adapter"}, [2], math.nan, None, r"--mg_model_name_or_path .*/weights\.$"),
        ({"stage": "vae"}, [2], math.nan, None, r"a longer --lr_warmup_steps \(now 9\), .* \(now 1\)\.$"),
        ({"mixed_precision": "bf16"}, [2], math.nan, None, r"or --mixed_precision no \(now bf16\)"),
        ({"mixed_precision": "bf16"}, [], math.nan, None, r"or --mixed_precision no \(now bf16\)"),
    ],
)
def test_what_is_no_number_stops_the_run_and_names_ways_out(tmp_path, changed, saved, loss, norm, message):
    for step in saved:
        (tmp_path / f"checkpoint-{step}").mkdir()
        write_manifest(tmp_path / f"checkpoint-{step}", step, 1, {})
    with pytest.raises(ValueError, match=message) as raised:
        stop_at_non_finite(settings(tmp_path, **changed), 7, loss, norm)
    assert "--resume_from_checkpoint" not in str(raised.value)  # which refuses other settings


def test_numbers_go_on(tmp_path):
    stop_at_non_finite(settings(tmp_path), 7, 1e30, None)
    stop_at_non_finite(settings(tmp_path), 7, 1.0, 1e9)


def test_a_loss_that_explodes_never_reaches_the_weights(tmp_path):
    """A real loop whose loss is no number in its third step."""
    own = settings(
        tmp_path,
        **{"train_batch_size": 1, "max_train_steps": 9, "adam_weight_decay": 0.0, "ema_decay": 0.9},
        **{"lr_scheduler": "constant", "lr_warmup_steps": 0, "validation_steps": 9},
        **{"checkpointing_steps": 2, "checkpoints_total_limit": 1},
    )
    model, weights, validated = torch.nn.Linear(1, 1), [], []
    data = [{"x": torch.tensor([value])} for value in (1.0, 2.0, math.nan, 1.0)]

    def loss_of(prepared, batch):
        weights.append(model.weight.item())
        return prepared(batch["x"]).square().mean()

    def validate(step):
        validated.append(step)
        return {"val_loss": 1.0}

    with pytest.raises(ValueError, match=r"loss is nan and the gradient is nan at step 3\..*checkpoint-2'"):
        loop.train(
            Accelerator(cpu=True),
            own,
            model,
            data,
            lambda s: {"x": torch.stack([one["x"] for one in s])},
            loss_of,
            validate,
            lambda folder: None,
        )
    assert len(weights) == 3 and model.weight.item() == weights[-1] and math.isfinite(weights[-1])
    assert validated == [0]
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 0, "val_loss": 1.0}


def test_the_environment_of_a_run_is_told(tmp_path):
    Journal(Accelerator(cpu=True), {"output_dir": str(tmp_path), "init_from": "someone/base"})
    told = json.loads((tmp_path / "environment.json").read_text())
    assert told["processes"] == 1 and told["base_model"] == "someone/base" and "CPU cores" in told["device"]
    assert told["versions"]["torch"] == torch.__version__
    Journal(Accelerator(cpu=True), {"output_dir": str(tmp_path), "init_from": "mg-bazaar"})  # no model of the Hub
    assert json.loads((tmp_path / "environment.json").read_text())["base_model"] is None


@pytest.fixture(scope="module")
def reported(flags, tmp_path_factory):
    """A run that reports to every tracker that is installed, and its records."""
    output = tmp_path_factory.mktemp("reported") / "watched"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        options = {"report_to": "all", "tracker_project_name": "mine", "max_train_steps": 1}
        return output, base.run(parse_args(flags("base", output, **options)))


def test_tensorboard_gets_figures_and_grids(reported):
    output, records = reported
    events = EventAccumulator(str(output / "logs" / "mine"))
    events.Reload()
    tags = events.Tags()
    assert {"loss", "ema_distance", "dropped_color", "val_loss_t0-199"} <= set(tags["scalars"])
    assert [(e.step, e.value) for e in events.Scalars("val_loss")] == [(1, pytest.approx(records[-1]["val_loss"]))]
    (shown,) = events.Images("grid")
    pixels = np.asarray(PIL.Image.open(io.BytesIO(shown.encoded_image_string)).convert("RGB"))
    np.testing.assert_array_equal(pixels, np.asarray(PIL.Image.open(output / "grid-000001.png")))


def test_wandb_works_offline(reported):
    pytest.importorskip("wandb")
    (kept,) = reported[0].glob("wandb/offline-run-*")
    assert list(kept.glob("run-*.wandb"))
    (picture,) = kept.glob("files/media/images/grid_1_*.png")
    assert PIL.Image.open(picture).size == PIL.Image.open(reported[0] / "grid-000001.png").size


def test_trackio_works_offline_and_a_resumed_run_goes_on_in_its_run(reported, flags, folder, tmp_path):
    trackio = pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    assert len(list(trackio.utils.MEDIA_DIR.glob("mine/watched/1/*.png"))) == 1
    shutil.copytree(folder / "train", tmp_path / "data" / "train")  # without held-out pictures, to be quick
    options = {"report_to": "trackio", "tracker_project_name": "mine", "train_data_dir": tmp_path / "data"}
    base.run(parse_args(flags("base", reported[0], **options, resume_from_checkpoint="latest", max_train_steps=2)))
    (run,) = trackio.Api().runs("mine")
    steps = {entry["step"] for entry in SQLiteStorage.get_logs("mine", run.name) if "loss" in entry}
    assert run.name == "watched" and steps == {1, 2}


@pytest.mark.parametrize("tracker", ["wandb", "all"])
def test_a_tracker_that_is_not_installed_is_refused(tracker, flags, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    with pytest.raises(SystemExit):
        parse_args(flags("base", tmp_path, report_to=tracker))
    needed = (
        r"`pip install wandb`" if tracker == "wandb" else r"`pip install tensorboard` or .* or `pip install trackio`"
    )
    assert re.search(f"--report_to {tracker}: it is not installed. Install it: {needed}", capsys.readouterr().err)


def test_all_are_those_that_are_installed(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda package: package in ("tensorboardX", "trackio") or None)
    assert trackers.chosen_trackers("all") == ["tensorboard", "trackio"]
    assert trackers.chosen_trackers(None) == []
