"""A run that is interrupted, in whatever way, ends like the run that was not; what is damaged or foreign is refused.

Most tests train three layers by the very loop of the stages, so that a run takes milliseconds.
"""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset, default_collate

from mg_diffusion.training.arguments import parse_args
from mg_diffusion.training.caching import picture_fingerprint
from mg_diffusion.training.checkpoints import (
    checkpoints,
    damage,
    find,
    read_manifest,
    remove_old,
    step_of,
    write_manifest,
    writing,
)
from mg_diffusion.training.disk import WriteError, is_full, lock, replacing, tidy
from mg_diffusion.training.journal import Journal, Meter
from mg_diffusion.training.loop import train
from mg_diffusion.training.resuming import FREE, compare, compare_data, continue_log
from mg_diffusion.training.settings import RunSettings
from mg_diffusion.training.starting import start
from mg_diffusion.training.stopping import EXIT_CODE, Stop


STEPS = 6
LATEST = {"resume_from_checkpoint": "latest"}


class Numbers(Dataset):
    """Item i of a run, a function of i alone."""

    fingerprint = "numbers"

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        return {"x": torch.rand(4, generator=torch.Generator().manual_seed(index))}


def arguments(output, *switches, **changed):
    chosen = {
        "train_data_dir": "unused",
        "output_dir": output,
        "train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_train_steps": STEPS,
        "checkpointing_steps": 2,
        "validation_steps": 3,
        "checkpoints_total_limit": 0,
        "lr_warmup_steps": 1,
        "ema_decay": 0.5,
        **changed,
    }
    return parse_args(
        [
            "vae",
            "--no-validation_at_start",
            *(part for name, value in chosen.items() for part in (f"--{name}", str(value))),
            *switches,
        ]
    )


TIMES = ("samples_per_second", "elapsed")


def little(output, *switches, at=lambda number: None, weigh=lambda folder: None, judge=lambda step: None, **changed):
    """Train three layers; `at(number)` is called before each batch of this process, the others by export and validation."""
    args = arguments(output, *switches, **changed)
    accelerator = start(args)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    batches = iter(range(10**6))

    def loss_of(prepared, batch):
        at(next(batches))
        return (prepared(batch["x"]) - batch["x"].sum(1, keepdim=True)).square().mean()

    def validate(step):
        judge(step)
        with torch.no_grad():
            return {"val_loss": float(model[0].weight.sum() + torch.rand(()))}

    def export(folder):
        weigh(folder)
        save_file(model.state_dict(), folder / "model.safetensors")

    return train(accelerator, RunSettings.of(args), model, Numbers(), default_collate, loss_of, validate, export)


def outcome(output, step=STEPS):
    """The bytes of the last checkpoint and the exported weights; the log, but for the speed."""
    parts = [output / f"checkpoint-{step}", output / "weights"]
    files = {path.relative_to(output): path.read_bytes() for part in parts for path in part.rglob("*")}
    del files[(parts[0] / "manifest.json").relative_to(output)]
    return files, records_of(output)


def records_of(output):
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in one.items() if name not in TIMES} for one in records]


def listing(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run that was left alone."""
    output = tmp_path_factory.mktemp("alone") / "run"
    little(output)
    return output


@pytest.fixture
def run(alone, tmp_path):
    """A copy of it."""
    return shutil.copytree(alone, tmp_path / "run")


@pytest.fixture(autouse=True)
def _interruptible():
    """Ctrl-C ends this process, also where a shell started it in the background and had it ignore that."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


class Crash(BaseException):
    pass


# ---------------------------------------------------------------------------------------------------- exact resume


@pytest.mark.parametrize("number", range(2 * STEPS))
def test_a_run_that_ends_at_any_batch_goes_on_as_if_nothing_had_been(alone, tmp_path, number):
    def crash(batch):
        if batch == number:
            raise Crash

    with pytest.raises(Crash):
        little(tmp_path / "run", at=crash)
    records = little(tmp_path / "run", **LATEST)
    assert outcome(tmp_path / "run") == outcome(alone)
    assert [record["step"] for record in records] == [3, 6, 6]


@pytest.mark.parametrize("place, number", [("weigh", 0), ("weigh", 2), ("judge", 0), ("judge", 1)])
def test_a_run_that_ends_after_its_checkpoint_makes_up_for_what_was_to_come(alone, tmp_path, place, number):
    calls = iter(range(10))

    def crash(_):
        if next(calls) == number:
            raise Crash

    with pytest.raises(Crash):
        little(tmp_path / "run", **{place: crash})
    little(tmp_path / "run", **LATEST)
    assert outcome(tmp_path / "run") == outcome(alone)


def test_a_run_that_is_done_makes_nothing_twice(alone, run):
    calls = []
    records = little(run, judge=calls.append, **LATEST)
    assert outcome(run) == outcome(alone) and len(records) == 3 and not calls


def test_a_longer_run_with_a_level_rate_is_the_same_run(tmp_path, recwarn):
    little(tmp_path / "whole", lr_scheduler="constant_with_warmup")
    little(tmp_path / "parts", lr_scheduler="constant_with_warmup", max_train_steps=4)
    little(tmp_path / "parts", lr_scheduler="constant_with_warmup", **LATEST)
    assert outcome(tmp_path / "whole")[0] == outcome(tmp_path / "parts")[0]
    assert not [warning for warning in recwarn if "max_train_steps" in str(warning.message)]


def test_an_older_checkpoint_goes_on_in_another_folder(alone, tmp_path):
    little(tmp_path / "other", resume_from_checkpoint=alone / "checkpoint-2")
    assert outcome(tmp_path / "other")[0] == outcome(alone)[0]


def test_the_mean_loss_of_a_record_has_all_batches_but_the_speed_those_of_this_process():
    meter, resumed = Meter(2, 1.0), Meter(2, 1.0)
    for loss in (1.0, 2.0, 6.0):
        meter.add(loss, None)
    resumed.load_state_dict(meter.state_dict())
    resumed.since -= 1
    resumed.add(7.0, None)
    read = resumed.read()
    assert read["loss"] == 4.0 and 1.5 < read["samples_per_second"] <= 2.0


def test_the_log_is_cut_at_the_step_and_an_unfinished_line_is_dropped(tmp_path):
    lines = [
        '{"step": 2, "loss": 1.5}',
        '{"step": 4, "loss": NaN}',
        "[3]",
        '{"step": 6, "loss": 1.0}',
        '{"step": 2, "lo',
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    records = continue_log(Accelerator(cpu=True), str(tmp_path), 4)
    assert [record["step"] for record in records] == [2, 4]
    assert (tmp_path / "log.jsonl").read_text() == "\n".join(lines[:2]) + "\n"


def test_a_run_that_begins_again_without_a_checkpoint_validates_again(tmp_path):
    """What it was started with before may have been other settings."""
    (tmp_path / "log.jsonl").write_text('{"step": 0, "val_loss": 9.0}\n')
    steps = []
    little(tmp_path, "--validation_at_start", judge=steps.append, **LATEST)
    assert steps == [0, 3, 6] and [record["step"] for record in records_of(tmp_path)] == [0, 3, 6, 6]
    assert records_of(tmp_path)[0]["val_loss"] < 9


# ------------------------------------------------------------------------------------------------ damaged checkpoints


def remove(checkpoint):
    (checkpoint / "optimizer.bin").unlink()


def cut(checkpoint):
    os.truncate(checkpoint / "model.safetensors", 100)


def zero(checkpoint):
    file = checkpoint / "optimizer.bin"
    file.write_bytes(file.read_bytes()[:-64] + bytes(64))


def unsign(checkpoint):
    (checkpoint / "manifest.json").unlink()


def tear(checkpoint):
    os.truncate(checkpoint / "manifest.json", 40)


def empty(checkpoint):
    (checkpoint / "manifest.json").write_text("[]")


def exchange(checkpoint):
    shutil.copy(checkpoint.with_name("checkpoint-2") / "manifest.json", checkpoint)


DAMAGES = [
    (remove, "optimizer.bin is missing"),
    (cut, r"model.safetensors has 100 bytes in place of \d+"),
    (zero, "optimizer.bin holds something else than what was written"),
    (unsign, "manifest.json, which is written last, is missing"),
    (tear, "manifest.json cannot be read"),
    (empty, "manifest.json cannot be read"),
    (exchange, "it was saved at step 2, which is not that of its name"),
]


@pytest.mark.parametrize("harm, reason", DAMAGES, ids=[harm.__name__ for harm, _ in DAMAGES])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(alone, run, harm, reason):
    assert damage(run / "checkpoint-6") is None
    harm(run / "checkpoint-6")
    with pytest.raises(ValueError, match=f"checkpoint-6' is damaged: {reason}. Give another.*found: .*checkpoint-4"):
        find(str(run), str(run / "checkpoint-6"))
    with pytest.warns(UserWarning, match=f"checkpoint-6' is damaged: {reason}. The checkpoint before it is used"):
        little(run, **LATEST)
    assert outcome(run) == outcome(alone) and damage(run / "checkpoint-6") is None


@pytest.mark.filterwarnings("ignore:.*is damaged")
def test_without_any_whole_checkpoint_nothing_starts_from_the_beginning(run):
    for checkpoint in checkpoints(run):
        remove(checkpoint)
    with pytest.raises(ValueError, match=r"(?s)No checkpoint in .* is whole\..*checkpoint-2.*--overwrite_output_dir"):
        little(run, **LATEST)


@pytest.mark.parametrize(
    "place, message",
    [
        ("checkpoint-3", "no finished checkpoint-<step> at .*checkpoint-3.*found: .*checkpoint-2, .*checkpoint-4"),
        ("weights", "no finished checkpoint-<step> at .*weights"),
        ("unfinished-4", "no finished checkpoint-<step> at .*unfinished-4"),
        ("checkpoint-6", "checkpoint-6' is beyond --max_train_steps 5; give a larger number"),
        ("checkpoint-4", "checkpoint-4' is older than .*checkpoint-6'. To go on from it give another --output_dir"),
    ],
)
def test_what_is_no_checkpoint_to_go_on_from_is_refused(run, place, message):
    shutil.copytree(run / "checkpoint-4", run / "unfinished-4")
    before = listing(run)
    with pytest.raises(ValueError, match=message):
        little(run, max_train_steps=5, resume_from_checkpoint=run / place)
    assert listing(run) == before


def test_latest_of_a_new_run_is_its_beginning(alone, tmp_path):
    little(tmp_path / "run", **LATEST)
    assert outcome(tmp_path / "run") == outcome(alone)


def test_only_finished_checkpoints_are_found_in_the_order_of_their_steps(tmp_path):
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-x", "checkpoint-8-copy", "unfinished-11", "12"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-12").write_text("no folder")
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]


def test_random_states_that_do_not_fit_the_machine_are_an_error(run):
    """accelerate passes over them in silence."""
    file = run / "checkpoint-6" / "random_states_0.pkl"
    states = torch.load(file, weights_only=False)
    torch.save({**states, "torch_manual_seed": states["torch_manual_seed"][:100]}, file)
    write_manifest(run / "checkpoint-6", 6, 1, read_manifest(run / "checkpoint-6")["settings"])
    with pytest.raises(ValueError, match="random states of .*checkpoint-6' cannot be restored on this machine"):
        little(run, **LATEST)


# ---------------------------------------------------------------------------------------------------- what is kept


def stored(folder, *steps, damaged=()):
    for step in steps:
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "weights").write_text("w")
        write_manifest(checkpoint, step, 1, {})
        if step in damaged:
            (checkpoint / "weights").unlink()
    return folder


@pytest.mark.parametrize(
    "limit, damaged, kept",
    [
        (1, (), [4]),
        (2, (), [3, 4]),
        (9, (), [1, 2, 3, 4]),
        (0, (), [1, 2, 3, 4]),
        (None, (), [1, 2, 3, 4]),
        (2, (3,), [2, 3, 4]),
        (2, (1, 3), [2, 3, 4]),
        (2, (1, 2, 3), [1, 2, 3, 4]),
        (1, (3,), [4]),
    ],
)
def test_the_limit_counts_good_checkpoints_only(tmp_path, limit, damaged, kept):
    remove_old(stored(tmp_path, 1, 2, 3, 4, damaged=damaged), 4, limit)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{step}" for step in kept]


def test_the_limit_never_removes_the_newest_of_this_run(tmp_path):
    """Those of later steps are of another."""
    remove_old(stored(tmp_path, 1, 2, 30, 40), 2, 1)
    assert [step_of(path) for path in checkpoints(tmp_path)] == [2, 30, 40]


def test_a_run_keeps_as_many_as_it_was_told(tmp_path):
    little(tmp_path / "run", checkpoints_total_limit=2)
    assert [step_of(path) for path in checkpoints(tmp_path / "run")] == [4, 6]


def test_what_was_left_half_written_is_removed_and_what_was_about_to_be_replaced_comes_back(alone, run):
    (run / "weights").rename(run / "previous-weights")
    (run / "unfinished-weights").mkdir()
    (run / "unfinished-8").mkdir()
    (run / "unfinished-log.jsonl").write_text("{")
    tidy(run)
    assert {path.name for path in run.iterdir()} == {path.name for path in alone.iterdir()}
    (run / "previous-weights").mkdir()
    tidy(run)
    assert outcome(run) == outcome(alone) and not (run / "previous-weights").exists()


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "weights"
    for text in ("first", "second"):
        with replacing(folder) as aside:
            assert not [*aside.iterdir()]
            (aside / "file").write_text(text)
    with pytest.raises(Crash), replacing(folder) as aside:
        (aside / "file").write_text("third")
        raise Crash
    assert [path.name for path in tmp_path.iterdir()] == ["weights"] and (folder / "file").read_text() == "second"


# ---------------------------------------------------------------------------------------------------- full disks


@pytest.fixture
def limit(request):
    """limit(bytes): no file of this process may be larger; a write beyond fails as on a full disk, from inside the kernel."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        mode = os.fstat(1).st_mode
    if stat.S_ISREG(mode):
        pytest.skip(
            "the output of pytest goes to a file, which the limit would end as well: pipe it, as by `| tee FILE`"
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def size_of(alone, name):
    return (alone / "checkpoint-2" / name).stat().st_size


ADVICE = (
    r".*run', which has .* MB free; a checkpoint takes .* MB .*The last good checkpoint is .*{}'. Make room, raise the "
    r"quota, or keep fewer by --checkpoints_total_limit; then go on with the same command and --resume_from_checkpoint"
)
NOTHING_YET = r".*, which has .* MB free \(.*There is no checkpoint yet. Make room, "


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.bin", "random_states_0.pkl"])
def test_a_checkpoint_for_which_there_is_no_room_leaves_the_last_good_one(alone, run, limit, name):
    remove(run / "checkpoint-6")
    shutil.rmtree(run / "weights")

    def narrow(number):
        limit(size_of(alone, name) - 1)

    message = rf"The checkpoint of step 6 could not be written to {ADVICE.format('checkpoint-4')}"
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(WriteError, match=message):
        little(run, at=narrow, **LATEST)
    limit(resource.RLIM_INFINITY)
    assert not [*run.glob("unfinished-*")] and damage(run / "checkpoint-4") is None
    with pytest.warns(UserWarning, match="is damaged"):
        little(run, **LATEST)
    assert outcome(run) == outcome(alone)


def test_the_first_checkpoint_for_which_there_is_no_room(tmp_path, limit):
    message = f"The checkpoint of step 2 could not be written to {NOTHING_YET}"
    with pytest.raises(WriteError, match=message):
        little(tmp_path / "run", at=lambda number: limit(10))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"training_config.json", "environment.json"}


def test_weights_for_which_there_is_no_room_leave_the_old_ones(alone, run, limit):
    def write(folder):
        (folder / "large").write_bytes(bytes(10**6))

    limit(10**5)
    with pytest.raises(WriteError, match=f"weights/ could not be written to {ADVICE.format('checkpoint-6')}"):
        little(run, weigh=write, **LATEST)
    assert outcome(run) == outcome(alone) and not [*run.glob("unfinished-*")]


def test_results_of_a_validation_and_a_configuration_for_which_there_is_no_room(alone, tmp_path, limit):
    def write(step):
        (tmp_path / "large").write_bytes(bytes(10**6))

    limit(10**5)
    with pytest.raises(
        WriteError, match=f"The results of the validation could not be written to {ADVICE.format('checkpoint-2')}"
    ):
        little(tmp_path / "run", judge=write)
    limit(10)
    with pytest.raises(WriteError, match=f"The configuration could not be written to {NOTHING_YET}"):
        little(tmp_path / "other")


def test_a_record_for_which_there_is_no_room(tmp_path, limit):
    journal = Journal(Accelerator(cpu=True), {"output_dir": str(tmp_path)})
    limit(30)
    journal.write({"step": 1, "loss": 1.0})
    with pytest.raises(WriteError, match=f"A record of the log could not be written to {NOTHING_YET}"):
        journal.write({"step": 2, "loss": 1.0})
    assert [record["step"] for record in continue_log(journal.accelerator, str(tmp_path), 9)] == [1]


def test_a_disk_that_is_full(alone, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(
            f"no small disk to fill, for mount says: {done.stderr.strip()}; limits of sizes are tested all the same"
        )
    try:
        message = f"The checkpoint of step [46] could not be written to {ADVICE.format('checkpoint-[24]')}"
        with pytest.raises(WriteError, match=message):
            little(disk / "run")
        assert not [*disk.rglob("unfinished-*")] and damage(checkpoints(disk / "run")[-1]) is None
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        little(disk / "run", **LATEST)
        assert outcome(disk / "run") == outcome(alone)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)  # what failed may still hold a file


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), OSError(5, "I/O error"), KeyError("x")])
def test_other_errors_are_not_taken_for_a_full_disk(tmp_path, error):
    assert not is_full(error)
    with pytest.raises(type(error), match=str(error.args[-1])) as raised, writing("x", tmp_path):
        raise error
    assert raised.value is error


def test_a_missing_file_is_no_full_disk_to_safetensors(tmp_path):
    with pytest.raises(Exception, match="os error 2") as raised:
        save_file({"x": torch.zeros(1)}, tmp_path / "nowhere" / "x")
    assert not is_full(raised.value)


def test_a_save_that_fails_otherwise_leaves_nothing_half_written(run):
    def block(number):
        (run / "unfinished-6").write_text("a file where a folder should be")

    remove(run / "checkpoint-6")
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(FileExistsError):
        little(run, at=block, **LATEST)
    assert damage(run / "checkpoint-4") is None


# ---------------------------------------------------------------------------------------------------- signals


def send(number, at):
    def hook(batch):
        if batch in at:
            os.kill(os.getpid(), number)

    return hook


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("batch, step", [(0, 1), (4, 3), (7, 4)])
def test_a_run_that_is_told_to_stop_saves_and_says_how_to_go_on(alone, tmp_path, capfd, number, batch, step):
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(SystemExit) as ended:
        little(tmp_path / "run", at=send(number, {batch}))
    assert ended.value.code == EXIT_CODE == 75
    said = capfd.readouterr().err
    assert f"{number.name}: the run saves after this step" in said
    assert f"saved after step {step}. To go on, give the same command --resume_from_checkpoint latest" in said
    assert step_of(checkpoints(tmp_path / "run")[-1]) == step
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == handlers
    little(tmp_path / "run", **LATEST)
    assert outcome(tmp_path / "run") == outcome(alone)


def test_a_second_signal_ends_it_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        little(tmp_path / "run", at=send(signal.SIGINT, {4, 5}))
    assert [step_of(path) for path in checkpoints(tmp_path / "run")] == [2]


def test_a_signal_in_the_last_step_changes_nothing(alone, tmp_path):
    little(tmp_path / "run", at=send(signal.SIGTERM, {2 * STEPS - 1}))
    assert outcome(tmp_path / "run") == outcome(alone)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_that_load_data_go_on_until_the_run_has_saved(alone, tmp_path, capfd, number):
    """A terminal and many schedulers signal all processes of a group."""

    def hook(batch):
        if batch == 4:
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid, number)
            time.sleep(0.2)  # if it ends by it, PyTorch says so now
            os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as ended:
        little(tmp_path / "run", at=hook, dataloader_num_workers=1)
    assert ended.value.code == EXIT_CODE and capfd.readouterr().err.count("the run saves") == 1
    little(tmp_path / "run", **LATEST)
    assert outcome(tmp_path / "run") == outcome(alone)


def test_what_is_ignored_stays_ignored():
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)


def test_a_run_in_another_thread_has_no_handlers_and_trains(alone, tmp_path):
    thread = threading.Thread(target=little, args=(tmp_path / "run",))
    thread.start()
    thread.join()
    assert outcome(tmp_path / "run") == outcome(alone)


# ---------------------------------------------------------------------------------------------------- occupied folders


@pytest.mark.parametrize("name", ["log.jsonl", "weights", "checkpoint-2"])
def test_a_folder_that_holds_a_run_is_not_written_to(run, tmp_path, name):
    place = tmp_path / "one"
    place.mkdir()
    (run / name).rename(place / name)
    before = listing(place)
    message = (
        f"holds a run already \\({name}\\).*--resume_from_checkpoint latest.*--output_dir.*--overwrite_output_dir"
    )
    with pytest.raises(ValueError, match=message):
        little(place)
    assert listing(place) == before


def test_a_checkpoint_from_elsewhere_does_not_go_on_in_a_folder_that_holds_a_run(run, alone):
    before = listing(run)
    with pytest.raises(ValueError, match="holds a run already .*--resume_from_checkpoint latest"):
        little(run, resume_from_checkpoint=alone / "checkpoint-2")
    assert listing(run) == before


def test_a_run_is_overwritten_when_asked_for_and_not_before_the_new_one_is_ready(alone, run):
    (run / "grid-000003.png").write_text("of the old run")
    (run / "notes.txt").write_text("not of a run")
    (run / "skipped.jsonl").write_text("of the old run")
    start(arguments(run, "--overwrite_output_dir"))
    assert damage(run / "checkpoint-6") is None
    assert not (run / "skipped.jsonl").exists()
    little(run, "--overwrite_output_dir", max_train_steps=2)
    assert {path.name for path in run.iterdir()} == {
        "checkpoint-2",
        "log.jsonl",
        "weights",
        "training_config.json",
        "environment.json",
        "notes.txt",
    }
    assert [record["step"] for record in records_of(run)] == [2, 2]


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    """As the run that `accelerate launch` leaves behind and the one that was started to go on with it."""
    script = "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], 0), 2); print(flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE)
    other.stdout.readline()
    with pytest.raises(ValueError, match="Another process trains in .*End it first, or give another --output_dir"):
        lock(tmp_path, patience=0)
    threading.Timer(0.3, other.kill).start()
    lock(tmp_path)
    lock(tmp_path, patience=0)  # this process may begin again
    other.communicate()


# ---------------------------------------------------------------------------------------------------- the same run


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"train_batch_size": 4}, "--train_batch_size 2 then, 4 now"),
        ({"seed": 1, "ema_decay": 0.9}, "--ema_decay 0.5 then, 0.9 now, --seed 0 then, 1 now"),
        ({"gradient_accumulation_steps": 1}, "--gradient_accumulation_steps 2 then, 1 now"),
        ({"learning_rate": 0.1}, "--learning_rate 0.001 then, 0.1 now"),
        ({"resolution": 32}, "--resolution 64 then, 32 now"),
    ],
)
def test_other_settings_are_another_run(run, changed, message):
    before = listing(run)
    with pytest.raises(ValueError, match=f"other settings: {message}. A resumed run is the same run"):
        little(run, **changed, **LATEST)
    assert listing(run) == before


def test_another_number_of_processes_is_another_run(run):
    manifest = read_manifest(run / "checkpoint-6")
    with pytest.raises(ValueError, match="other settings: number of processes 1 then, 2 now"):
        compare(manifest, vars(arguments(run)), num_processes=2)


def test_what_no_weight_depends_on_may_change(alone, run):
    assert FREE <= vars(arguments(run)).keys() | {"cache_dir"}
    shutil.rmtree(run / "checkpoint-6")
    little(run, validation_steps=6, checkpointing_steps=5, dataloader_num_workers=1, train_data_dir="moved", **LATEST)
    assert outcome(run)[0] == outcome(alone)[0]


def test_the_resolution_of_a_base_is_compared_when_it_is_known(run):
    manifest, args = read_manifest(run / "checkpoint-6"), arguments(run)
    args.resolution = None
    compare(manifest, vars(args), 1)
    args.resolution = 512
    with pytest.raises(ValueError, match="--resolution 64 then, 512 now"):
        compare(manifest, vars(args), 1)


def test_a_longer_run_is_warned_that_its_learning_rate_is_another(run):
    with pytest.warns(UserWarning, match="--max_train_steps was 6 and is 8: --lr_scheduler cosine goes on as if"):
        little(run, max_train_steps=8, **LATEST)
    assert step_of(checkpoints(run)[-1]) == 8


def test_a_longer_run_may_warm_up_for_longer(run):
    message = "--max_train_steps was 6 and is 8, --lr_warmup_steps was 1 and is 2: "
    with pytest.warns(UserWarning, match=message):
        little(run, max_train_steps=8, **{**LATEST, "lr_warmup_steps": 2})


def test_other_data_are_warned_of(monkeypatch, run, recwarn):
    manifest = read_manifest(run / "checkpoint-6")
    for same in (None, "numbers"):
        compare_data(manifest, same)
    assert not recwarn.list
    monkeypatch.setattr(Numbers, "fingerprint", "others")
    with pytest.warns(UserWarning, match="training data are not those of the checkpoint"):
        little(run, **LATEST)


def test_the_fingerprint_is_of_pictures_and_captions():
    pictures = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    one = picture_fingerprint(pictures, ["a"])
    assert (
        one == picture_fingerprint(pictures.clone(), ("a",)) == picture_fingerprint(pictures.mT.contiguous().mT, ["a"])
    )
    assert (
        len(
            {
                one,
                picture_fingerprint(pictures, ["b"]),
                picture_fingerprint(pictures + 1, ["a"]),
                picture_fingerprint(pictures[:, :2], ["a"]),
            }
        )
        == 4
    )


# ---------------------------------------------------------------------------------------------------- the real thing


def killed(repository, tmp_path, *options):
    """The folder of a run left alone, those of its copies that were killed, and what the script said."""
    command = [sys.executable, "-m", "tests.training.killing", tmp_path / "runs", "--no-validate", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    one, *others = sorted(path for path in (tmp_path / "runs").iterdir() if (path / "checkpoint-12").is_dir())
    assert others and "byte for byte" in done.stdout
    return one, others, done.stdout


def test_ten_kills_at_random_moments_leave_no_trace(repository, tmp_path):
    one, others, said = killed(
        repository, tmp_path, "--kills", "10", "--stages", "base", "--log", tmp_path / "log.txt"
    )
    assert said.count("\nkill ") == 10 and (tmp_path / "log.txt").read_text() == said
    for other in others:
        for name in ("checkpoint-12/model.safetensors", "weights/unet/diffusion_pytorch_model.safetensors"):
            left, gone_on = load_file(one / name), load_file(other / name)
            assert left.keys() == gone_on.keys() and all(torch.equal(left[key], gone_on[key]) for key in left), name
        states = [torch.load(path / "checkpoint-12" / "custom_checkpoint_0.pkl") for path in (one, other)]
        assert all(map(torch.equal, *(state["shadow_params"] for state in states)))
        assert records_of(one) == records_of(other)


def test_two_processes_are_killed_and_agree_on_the_step_at_which_one_is_told_to_stop(repository, tmp_path):
    one, others, said = killed(repository, tmp_path, "--kills", "2", "--stages", "vae", "--processes", "2")
    assert "told the last of 2 processes to stop: all saved step" in said
    assert (others[-1] / "checkpoint-12" / "random_states_1.pkl").is_file()
    assert records_of(one) == records_of(others[-1])
