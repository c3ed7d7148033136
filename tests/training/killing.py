"""Kill a training run by SIGKILL at random moments, resume it until it is done, compare it with the run left alone.

    python -m tests.training.killing FOLDER --kills 50 --log docs/kill-log.txt

Half of the moments are any moment from the start of a process on, the others lie while a checkpoint or weights are written.
Each run is a fork of this process, which has imported everything and run nothing, so that a start takes no seconds.
"""

import argparse
import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from mg_diffusion.training import __main__ as command
from mg_diffusion.training import adapter, base, text, vae  # noqa: F401 (before any fork, to save time)
from mg_diffusion.training.checkpoints import checkpoints, step_of
from mg_diffusion.training.stopping import EXIT_CODE
from mg_diffusion.training.tiny import draw_pictures


STEPS = 12
COMMON = {
    "resolution": 32,
    "train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "max_train_steps": STEPS,
    "checkpointing_steps": 2,
    "validation_steps": 7,
    "num_validation_images": 1,
    "lr_warmup_steps": 2,
    "ema_decay": 0.9,
}
SMALL = {"block_out_channels": "16 16", "text_width": 16}
POOL = {"num_crossings": 4, "num_rendered": 4}


@dataclass
class Lab:
    """A folder, the moments that are drawn, and what is said about them."""

    folder: Path
    kills: int
    rng: random.Random
    is_validated: bool
    processes: int
    lines: list[str] = field(default_factory=list)
    done: int = 0
    has_stopped: bool = False  # whether a run of this stage was told to stop

    def say(self, line: str) -> None:
        self.lines.append(line)
        print(line, flush=True)


def begin(flags: list[str], output: Path, processes: int = 1) -> list[int]:
    """Fork processes that train together; what they say goes to a file beside their folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        if (child := os.fork()) == 0:
            if processes > 1:
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
                os.environ.update({name: str(value) for name, value in place.items()})
                os.environ.update({"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"})
            train([*flags, "--output_dir", str(output)], output.with_suffix(".txt"))
        children.append(child)
    return children


def train(flags: list[str], said: Path) -> NoReturn:
    code = 1
    try:
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        command.main(flags)
        code = 0
    except SystemExit as ended:
        print(ended, file=sys.stderr)
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(children: list[int]) -> set[int]:
    return {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}


def has_ended(children: list[int]) -> bool:
    """Whether all have; an error ends this process as well."""
    for child in [*children]:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            children.remove(child)
        if ended and status:
            sys.exit(f"error: a run that was not killed ended with status {status}")
    return not children


def finish(children: list[int]) -> None:
    while not has_ended(children):
        time.sleep(0.01)


def is_writing(output: Path, pattern: str, since: float) -> bool:
    """Whether something is written there, which is not what an earlier kill left."""
    with contextlib.suppress(FileNotFoundError):
        return any(path.stat().st_mtime > since for path in output.glob(pattern))
    return False


def wait_for_moment(lab: Lab, children: list[int], output: Path, duration: float) -> str | None:
    """Wait until a random moment; what moment it was in words, or `None` if the run was done before."""
    start, delay = time.time(), lab.rng.uniform(0, 0.5 * duration)
    saved = lab.rng.choice([None, None, "unfinished-[0-9]*", "unfinished-weights"])
    if saved:
        delay = lab.rng.uniform(0, 0.03 * duration)  # a write and a bit more
        while not is_writing(output, saved, start):
            if has_ended(children):
                return None
            time.sleep(0.0005)
    until = time.time() + delay
    while time.time() < until:
        if has_ended(children):
            return None
        time.sleep(0.0005)
    seconds = f"{time.time() - start:5.2f} s after the start"
    if not saved:
        return seconds
    return f"{seconds}, {1000 * delay:3.0f} ms into {'weights' if 'weights' in saved else 'a checkpoint'}"


def newest(output: Path) -> int:
    return max(map(step_of, checkpoints(output)), default=0)


def kill_until_done(lab: Lab, name: str, flags: list[str], duration: float, kills: int) -> Path:
    """A run killed and resumed until it is done, or, when there are enough kills, told to stop and left to its end."""
    output, flags = lab.folder / name, [*flags, "--resume_from_checkpoint", "latest"]
    while lab.done < kills:
        before = newest(output)
        children = begin(flags, output, lab.processes)
        moment = wait_for_moment(lab, children, output, duration)
        if moment is None:
            return output
        for child in children:
            os.kill(child, signal.SIGKILL)
        wait(children)
        lab.done += 1
        left = sorted(path.name for path in output.glob("*") if path.name.startswith(("unfinished-", "previous-")))
        lab.say(
            f"kill {lab.done:2}  {name:10}  {moment:52}  went on from step {before:2}, had saved step {newest(output):2}"
            + (f", left {', '.join(left)}" if left else "")
        )
    stop(lab, name, flags)
    finish(begin(flags, output, lab.processes))
    return output


def stop(lab: Lab, name: str, flags: list[str]) -> None:
    """Tell one process of a run to stop, as soon as it has got on."""
    output = lab.folder / name
    before, children = newest(output), begin(flags, output, lab.processes)
    while newest(output) == before:
        if has_ended(children):  # there was nothing left to do
            return
        time.sleep(0.005)
    os.kill(children[-1], signal.SIGTERM)
    codes = wait(children)
    if codes not in ({EXIT_CODE}, {0}):
        sys.exit(f"error: a run that was told to stop ended with {codes}")
    lab.has_stopped = True
    who = f"the last of {lab.processes} processes" if lab.processes > 1 else "the process"
    lab.say(f"stop     {name:10}  told {who} to stop: all saved step {newest(output)} and ended with {codes}")


def differences(one: Path, other: Path) -> list[str]:
    """Names of files of the last checkpoint and of the weights that are not the same, byte for byte."""
    found = []
    for part in (f"checkpoint-{STEPS}", "weights"):
        names = {path.relative_to(run) for run in (one, other) for path in (run / part).rglob("*") if path.is_file()}
        # The manifest names the folder of the run, card and curves tell how long it took.
        names -= {Path(part, name) for name in ("manifest.json", "README.md", "curves.png")}
        if not names:
            found.append(f"{part}: empty")
        for name in sorted(names):
            if not ((one / name).is_file() and (other / name).is_file()):
                found.append(f"{name}: only in one")
            elif (one / name).read_bytes() != (other / name).read_bytes():
                found.append(str(name))
    return found


def prepare(folder: Path, is_validated: bool) -> dict[str, list[str]]:
    """Pictures, a base to adapt, and the flags of the runs by name."""
    draw_pictures(folder / "data", count=2, size=32)
    if not is_validated:
        shutil.rmtree(folder / "data" / "val")
    shared = {"train_data_dir": folder / "data", **COMMON}
    stages = {
        "base": {**shared, **SMALL, **POOL},
        "vae": {**shared, "block_out_channels": "16 16"},
        "adapter": {**shared, **POOL, "pretrained_model_name_or_path": folder / "text" / "weights"},
    }
    runs = {
        name: [name, *(part for key, value in one.items() for part in (f"--{key}", *str(value).split()))]
        for name, one in stages.items()
    }
    alone = {**shared, **SMALL, "max_train_steps": 1, "lr_warmup_steps": 0}
    flags = [part for key, value in alone.items() for part in (f"--{key}", *str(value).split())]
    finish(begin(["base", "--text_only", *flags], folder / "text"))
    return runs


def verdict_of(lab: Lab, stages: list[str]) -> bool:
    """Give each stage its share of the kills; whether all runs ended like those left alone."""
    runs = prepare(lab.folder, lab.is_validated)
    durations, is_same = {}, True
    for stage in stages:
        start = time.time()
        finish(begin(runs[stage], lab.folder / stage, lab.processes))
        durations[stage] = time.time() - start
        lab.say(f"run {stage}, left alone: {STEPS} steps in {durations[stage]:.1f} s")
    for share, stage in enumerate(stages, 1):
        kills, lab.has_stopped = lab.kills * share // len(stages), False
        for number in itertools.count(1):
            name = f"{stage}-{number}"
            output = kill_until_done(lab, name, runs[stage], durations[stage], kills)
            other = differences(lab.folder / stage, output)
            lab.say(f"run {name}, done: " + (f"DIFFERS in {', '.join(other)}" if other else "the same bytes"))
            is_same &= not other
            if (
                lab.done == kills and lab.has_stopped
            ):  # the last kill may leave nothing to stop: then in a run of its own
                break
    return is_same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for the runs; made, and left as it is in the end")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stages", nargs="+", default=["base", "vae", "adapter"])
    parser.add_argument(
        "--validate", action=argparse.BooleanOptionalAction, default=True, help="kill in validation, too"
    )
    parser.add_argument("--processes", type=int, default=1, help="that train together, on this machine")
    parser.add_argument("--seed", type=int, help="of the moments; fresh ones if not given")
    parser.add_argument("--log", type=Path, help="text file for what was said")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    lab = Lab(options.folder, options.kills, random.Random(seed), options.validate, options.processes)
    lab.say(f"python -m tests.training.killing FOLDER --kills {options.kills} --seed {seed}")
    is_same = verdict_of(lab, options.stages)
    lab.say(
        f"{lab.done} kills. Weights, average, optimizer, schedule, random states of the last checkpoints and exported "
        f"weights are {'those of the runs left alone, byte for byte' if is_same else 'NOT THE SAME'}."
    )
    if options.log:
        options.log.write_text("\n".join(lab.lines) + "\n", encoding="utf-8")
    sys.exit(not is_same)


if __name__ == "__main__":
    main()
