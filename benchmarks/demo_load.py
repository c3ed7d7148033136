"""Many visitors of the demo's page at once: `python -m benchmarks.demo_load`; figures for docs/demo.md.

A server is started. Clients upload references, ask for pictures, edits, sweeps, explanations and granularity cards, wait for them
and take them home, one after the other. A request ends well, is refused with a message, or has failed.
"""

import argparse
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import PIL.Image
import torch

from mg_diffusion.recipe import save_json


OUTPUT = Path(__file__).parent / "results" / "demo_load.json"
MEMORY, GROWTH = 1536, 1.1  # MiB that the server may take; how much more in the second half than in the first
START = 120  # seconds that a server may take to start
# What a client asks for, as often as visitors might: mostly pictures.
ASKED = ("generate", "generate", "generate", "edit", "explain", "sweep", "make_card")
MORE = {"sweep": {"columns": 3, "across": "shape"}, "make_card": {"granularity": "texture"}}
Record = dict[str, Any]


def draw_files(folder: Path) -> dict[str, str]:
    """The pictures that visitors bring along."""
    from demo.references import reference, scene

    photo = scene()
    mask = PIL.Image.new("L", photo.size)
    mask.paste(255, (60, 60, 140, 140))
    given = {"texture_picture": reference("weave"), "shape_picture": reference("leaf")}
    pictures = {**given, "photo": photo, "mask": mask}
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    return {name: str(folder / f"{name}.png") for name in pictures}


class Visitor:
    """One client.

    Args:
        url: of the server; folder: where it takes results home to; files: by the names of inputs.
        seed: of what it asks for; steps, size: of every picture.
    """

    def __init__(self, url: str, folder: Path, files: dict[str, str], seed: int, steps: int, size: int = 256):
        from gradio_client import Client

        self.client = Client(url, verbose=False, download_files=str(folder), httpx_kwargs={"timeout": 120})
        self.files, self.settings, self.chance = files, {"steps": steps, "size": str(size)}, random.Random(seed)

    def ask(self, kind: str) -> None:
        """One thing, as someone at the page asks for it; results are downloaded."""
        from gradio_client import handle_file

        wanted = ("texture_picture", "shape_picture", *(("photo", "mask") if kind == "edit" else ()))
        given = {name: handle_file(self.files[name]) for name in wanted}
        given |= {"color_palette": "#023047, #219ebc:2, #8ecae6", "seed": self.chance.randrange(1000)}
        self.client.predict(**given, **self.settings, **MORE.get(kind, {}), api_name=f"/{kind}")

    def record(self, kind: str) -> Record:
        """How it went: `kind`, `seconds`, `outcome` ("done", "refused" or "failed") and `message`."""
        from gradio_client.utils import QueueError

        start, outcome, message = time.monotonic(), "done", ""
        try:
            self.ask(kind)
        except QueueError as refused:
            outcome, message = "refused", str(refused)
        except Exception as error:  # whatever it is, the visitor did not get what was asked for
            outcome, message = "failed", f"{type(error).__name__}: {error}"[:300]
        return {"kind": kind, "seconds": time.monotonic() - start, "outcome": outcome, "message": message}


def visit(
    url: str,
    clients: int,
    seconds: float,
    steps: int,
    size: int = 256,
    records: list[Record] | None = None,
    pause: float = 1.0,
    asked: Sequence[str] = ASKED,
) -> list[Record]:
    """What clients ask for until the time is up; what was begun before then is waited for.

    Args:
        records: where to put how each request went, to be looked at in the meantime.
        asked: what for, as often as it stands there.
    """
    records = [] if records is None else records
    with tempfile.TemporaryDirectory() as folder:
        files = draw_files(Path(folder))
        visitors = [Visitor(url, Path(folder), files, number, steps, size) for number in range(clients)]
        until = time.monotonic() + seconds

        def stay(visitor: Visitor) -> None:
            while True:
                records.append(visitor.record(visitor.chance.choice(asked)))
                if time.monotonic() >= until:
                    return
                time.sleep(pause)

        threads = [threading.Thread(target=stay, args=(visitor,)) for visitor in visitors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return records


class Watch(threading.Thread):
    """Asks for the page itself, once a second, and for the server's memory at the half of the time."""

    def __init__(self, url: str, process: int, seconds: float):
        super().__init__()
        self.url, self.process, self.seconds = url, process, seconds
        self.answers: list[float] = []
        self.failed, self.memory_at_half = 0, peak_memory(process)

    def run(self) -> None:
        start = time.monotonic()
        with httpx.Client(trust_env=False, timeout=60) as http:
            while (now := time.monotonic()) < start + self.seconds:
                if now < start + self.seconds / 2:
                    self.memory_at_half = peak_memory(self.process)
                if is_up(self.url, http):
                    self.answers.append(time.monotonic() - now)
                else:
                    self.failed += 1
                time.sleep(1)


@contextmanager
def serving(log: Path, **options: Any) -> Iterator[tuple[str, subprocess.Popen]]:
    """The page in a process of its own, when it answers: its address and the process.

    Args:
        log: file for what it says; options: of `subprocess.Popen`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "demo.app", "--port", str(port)]
    with open(log, "wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, **options)
    try:
        deadline = time.monotonic() + START
        with httpx.Client(trust_env=False, timeout=60) as http:
            while not is_up(url := f"http://127.0.0.1:{port}", http):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"The page did not come up:\n{log.read_text(errors='replace')}")
                time.sleep(0.1)
        yield url, process
    finally:
        process.kill()
        process.wait()


def is_up(url: str, http: httpx.Client) -> bool:
    try:
        return http.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def peak_memory(process: int) -> float:
    """The most memory that a process ever had, in MiB, as Linux counts it."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**10


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        with serving(Path(folder, "log"), env={**os.environ, "TMPDIR": folder}) as (url, process):
            page = time.monotonic() - start
            alone = Visitor(url, Path(folder), draw_files(Path(folder)), 0, options.steps)
            alone.ask("generate")
            first = time.monotonic() - start
            later = statistics.median(alone.record("generate")["seconds"] for _ in range(3))
            memory, watch = peak_memory(process.pid), Watch(url, process.pid, options.seconds)
            watch.start()
            records = visit(url, options.clients, options.seconds, options.steps, asked=options.asked)
            watch.join()
            memories = {"start": memory, "first_half": watch.memory_at_half, "all": peak_memory(process.pid)}
    done = summary(records, watch.answers, watch.failed)
    if waited := done["seconds_until_done"]:
        waited["max_in_pictures"] = waited["max"] / later
    return {
        "times": {"page": page, "first_picture": first, "later_picture": later},
        "peak_memory_mib": memories,
        **done,
        "settings": {
            **{name: getattr(options, name) for name in ("clients", "seconds", "steps", "asked")},
            "cores": len(os.sched_getaffinity(0)),
            "torch": torch.__version__,
            "gradio": version("gradio"),
        },
    }


def summary(records: list[Record], answers: list[float], unanswered: int) -> dict[str, Any]:
    """Outcomes and waiting times in one figure each.

    Args:
        answers: seconds in which the page itself answered; unanswered: how often it did not.
    """
    done = [record["seconds"] for record in records if record["outcome"] == "done"]
    return {
        "outcomes": dict(Counter(record["outcome"] for record in records)),
        "messages": dict(Counter(record["message"] for record in records if record["message"])),
        "seconds_until_done": {"median": statistics.median(done), "max": max(done)} if done else {},
        "page": {"median": statistics.median(answers), "max": max(answers), "unanswered": unanswered},
    }


def table(result: dict[str, Any]) -> str:
    outcomes = dict.fromkeys(("done", "refused", "failed"), 0) | result["outcomes"]
    template = Path(__file__).with_name("demo_load.md").read_text(encoding="utf-8")
    return template.rstrip().format(**{**result, "outcomes": outcomes})


def faults(result: dict[str, Any]) -> list[str]:
    """What must not happen under load."""
    failed, silent = result["outcomes"].get("failed", 0), result["page"]["unanswered"]
    memory = result["peak_memory_mib"]
    found = [f"{failed} requests failed"] if failed else []
    found += [f"the page did not answer {silent} times"] if silent else []
    found += [f"the server took {memory['all']:.0f} MiB, more than {MEMORY}"] if memory["all"] > MEMORY else []
    grown = memory["all"] / memory["first_half"]
    return found + ([f"memory grew by {grown - 1:.0%} in the second half"] if grown > GROWTH else [])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--steps", type=int, default=20, help="of every picture")
    purpose = "what clients ask for, as often as it stands here; default: mostly pictures"
    parser.add_argument("--asked", nargs="+", choices=sorted(set(ASKED)), default=ASKED, help=purpose)
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    options = parser.parse_args(arguments)
    result = measure(options)
    save_json(result, options.output)
    print(table(result))
    if waited := result["seconds_until_done"]:
        print(f"the longest wait was {waited['max_in_pictures']:.1f} times that of a picture with nobody else there")
    for message, count in result["messages"].items():
        print(f"{count} x {message}")
    found = faults(result)
    for fault in found:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
