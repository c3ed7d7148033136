"""Many visitors of the demo's page at once: `python -m benchmarks.demo_load`; figures for docs/demo.md.

A server is started. Clients upload references, ask for pictures, edits, sweeps and explanations as a page does, wait
for them and take them home, one after the other. A request ends well, is refused with a message, or has failed.
"""

import argparse
import asyncio
import io
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import PIL.Image
import psutil
import torch

from demo.references import reference, scene
from mg_diffusion.recipe import replacing


OUTPUT = Path(__file__).parent / "results" / "demo_load.json"
WAIT = 600  # seconds a client waits for what it asked for; the queue holds 24 jobs
MEMORY, GROWTH = 1536, 1.1  # MiB that the server may take; how much more in the second half than in the first
# What a client asks for, as often as visitors might: mostly pictures.
ASKED = ("generate", "generate", "generate", "edit", "explain", "sweep", "make_card")


Endpoints = dict[str, list[dict[str, Any]]]


class Refused(Exception):
    """The server said in words that it cannot do it now."""


# ---------------------------------------------------------------------------------------------------------------------
# One visitor
# ---------------------------------------------------------------------------------------------------------------------
def picture_file(image: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def square_mask(side: int) -> PIL.Image.Image:
    mask = PIL.Image.new("L", (side, side))
    mask.paste(255, (side // 4, side // 4, side // 2, side // 2))
    return mask


def client_of(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=WAIT, limits=httpx.Limits(max_connections=None), trust_env=False)


async def endpoints_of(http: httpx.AsyncClient) -> Endpoints:
    """The parameters of each endpoint, as the server lists them."""
    listed = (await http.get("/gradio_api/info")).json()["named_endpoints"]
    return {name: one["parameters"] for name, one in listed.items()}


class Visitor:
    """One client with its pictures.

    Args:
        http: a client of the server's address.
        endpoints: the parameters of each.
        seed: of what it asks for; steps: of every picture.
    """

    def __init__(self, http: httpx.AsyncClient, endpoints: Endpoints, seed: int, steps: int):
        self.http, self.endpoints, self.steps = http, endpoints, steps
        self.chance = random.Random(seed)

    async def upload(self, image: PIL.Image.Image) -> dict[str, Any]:
        answer = await self.http.post("/gradio_api/upload", files={"files": ("a.png", picture_file(image))})
        answer.raise_for_status()
        return {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}

    async def call(self, name: str, **values: Any) -> list[Any]:
        """An endpoint's results, as soon as they are there.

        Raises:
            Refused: by the queue; RuntimeError: with what came instead of results.
        """
        data = [values.get(one["parameter_name"], one.get("parameter_default")) for one in self.endpoints[f"/{name}"]]
        asked = await self.http.post(f"/gradio_api/call/{name}", json={"data": data})
        if asked.status_code == 503 and asked.json().get("detail"):
            raise Refused(asked.json()["detail"])
        asked.raise_for_status()
        event, address = None, f"/gradio_api/call/{name}/{asked.json()['event_id']}"
        async with self.http.stream("GET", address) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("data: ") and event == "complete":
                    return json.loads(line[6:])
                elif line.startswith("data: ") and event == "error":
                    raise RuntimeError(line[6:])
        raise RuntimeError("the stream ended without a result")

    async def ask(self, name: str) -> None:
        """One thing, as someone at the page asks for it; what comes back is downloaded and looked at."""
        lent = {
            "color_palette": ", ".join(reference("sea")),
            "texture_picture": await self.upload(reference("weave")),
            "shape_picture": await self.upload(reference("leaf")),
            "steps": self.steps,
            "seed": self.chance.randrange(1000),
        }
        more = {"sweep": {"columns": 3, "across": "shape"}, "make_card": {"granularity": "texture"}}.get(name, {})
        if name == "edit":
            photo = scene()
            more = {"photo": await self.upload(photo), "mask": await self.upload(square_mask(photo.width))}
        await self.look_at(await self.call(name, **lent, **more))

    async def look_at(self, results: Any) -> None:
        for address in addresses(results):
            answer = await self.http.get(address)
            answer.raise_for_status()
            if address.endswith(".png"):
                PIL.Image.open(io.BytesIO(answer.content)).load()


def addresses(results: Any) -> Iterator[str]:
    """Of all files in an endpoint's results, as paths of the server."""
    if isinstance(results, dict) and results.get("url"):
        yield "/gradio_api/" + results["url"].partition("/gradio_api/")[2]
    elif isinstance(results, (list, dict)):
        for each in results.values() if isinstance(results, dict) else results:
            yield from addresses(each)


# ---------------------------------------------------------------------------------------------------------------------
# Many visitors
# ---------------------------------------------------------------------------------------------------------------------
async def visit(url: str, clients: int, seconds: float, steps: int, pause: float = 1.0) -> list[dict[str, Any]]:
    """What clients ask for until the time is up; what was begun before then is waited for.

    Returns:
        for each request: `kind`, `seconds`, `outcome` ("done", "refused" or "failed") and `message`.
    """
    until, records = time.monotonic() + seconds, []
    async with client_of(url) as http:
        endpoints = await endpoints_of(http)

        async def stay(number: int) -> None:
            visitor = Visitor(http, endpoints, number, steps)
            while True:
                kind = visitor.chance.choice(ASKED)
                records.append(await recorded(visitor, kind))
                if time.monotonic() >= until:
                    return
                await asyncio.sleep(pause)

        await asyncio.gather(*(stay(number) for number in range(clients)))
    return records


async def recorded(visitor: Visitor, kind: str) -> dict[str, Any]:
    start, outcome, message = time.monotonic(), "done", ""
    try:
        await visitor.ask(kind)
    except Refused as refused:
        outcome, message = "refused", str(refused)
    except Exception as error:  # whatever it is, the visitor did not get what was asked for
        outcome, message = "failed", f"{type(error).__name__}: {error}"[:300]
    return {"kind": kind, "seconds": time.monotonic() - start, "outcome": outcome, "message": message}


async def watch(url: str, process: psutil.Process, seconds: float) -> dict[str, list[float]]:
    """How long the page itself takes to answer, and the server's memory in MiB, once a second."""
    until, answers, memory = time.monotonic() + seconds, [], []
    async with client_of(url) as http:
        while time.monotonic() < until:
            start = time.monotonic()
            (await http.get("/")).raise_for_status()
            answers.append(time.monotonic() - start)
            memory.append(process.memory_info().rss / 2**20)
            await asyncio.sleep(1)
    return {"answers": answers, "memory": memory}


# ---------------------------------------------------------------------------------------------------------------------
# The server, and the figures
# ---------------------------------------------------------------------------------------------------------------------
@contextmanager
def server() -> Iterator[tuple[str, psutil.Process, float]]:
    """The page in a process of its own: its address, the process, when it was started."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "demo.app", "--port", str(port)]
        with open(Path(folder, "log"), "wb") as log:
            environment = {**os.environ, "TMPDIR": folder}
            start = time.monotonic()
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            try:
                url = f"http://127.0.0.1:{port}"
                while not answers(url):
                    if process.poll() is not None or time.monotonic() > start + 120:
                        raise RuntimeError(f"The page did not come up:\n{Path(folder, 'log').read_text()}")
                    time.sleep(0.1)
                yield url, psutil.Process(process.pid), start
            finally:
                process.terminate()
                process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


async def one_picture(url: str, steps: int) -> float:
    """Seconds that a picture takes when nobody else asks for one."""
    start = time.monotonic()
    async with client_of(url) as http:
        await Visitor(http, await endpoints_of(http), 0, steps).ask("generate")
    return time.monotonic() - start


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with server() as (url, process, start):
        page = time.monotonic() - start
        asyncio.run(one_picture(url, options.steps))
        first = time.monotonic() - start
        alone = [asyncio.run(one_picture(url, options.steps)) for _ in range(3)]

        async def both() -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
            visits = visit(url, options.clients, options.seconds, options.steps)
            return await asyncio.gather(visits, watch(url, process, options.seconds))

        records, watched = asyncio.run(both())
        return {
            "times": {"page": page, "first_picture": first, "later_picture": statistics.median(alone)},
            **summary(records, watched),
            "settings": {
                **{name: getattr(options, name) for name in ("clients", "seconds", "steps")},
                "cores": len(os.sched_getaffinity(0)),
                "torch": torch.__version__,
                "gradio": version("gradio"),
            },
        }


def summary(records: list[dict[str, Any]], watched: dict[str, list[float]]) -> dict[str, Any]:
    """Outcomes, waiting times and memory in one figure each."""
    done = [record["seconds"] for record in records if record["outcome"] == "done"]
    memory = watched["memory"]
    half = len(memory) // 2
    return {
        "outcomes": dict(Counter(record["outcome"] for record in records)),
        "messages": dict(Counter(record["message"] for record in records if record["message"])),
        "seconds_until_done": {"median": statistics.median(done), "max": max(done)} if done else {},
        "page_answers": {"median": statistics.median(watched["answers"]), "max": max(watched["answers"])},
        "memory_mib": {
            "start": memory[0],
            "peak_of_first_half": max(memory[:half] or memory),
            "peak": max(memory),
        },
    }


def table(result: dict[str, Any]) -> str:
    settings, times, memory = result["settings"], result["times"], result["memory_mib"]
    outcomes, page, waits = result["outcomes"], result["page_answers"], result["seconds_until_done"]
    rows = [
        ("the page opens after", f"{times['page']:.1f} s"),
        ("the first picture, from the start of the server", f"{times['first_picture']:.1f} s"),
        (f"a later picture of {settings['steps']} steps, nobody else there", f"{times['later_picture']:.1f} s"),
        (
            "requests done / refused because the queue is full / failed",
            " / ".join(str(outcomes.get(name, 0)) for name in ("done", "refused", "failed")),
        ),
        ("a request that was done took, median / longest", f"{waits['median']:.0f} s / {waits['max']:.0f} s"),
        ("the page itself answers in, median / longest", f"{page['median']:.2f} s / {page['max']:.2f} s"),
        (
            "memory: at the start, at most in the first half, at most",
            f"{memory['start']:.0f}, {memory['peak_of_first_half']:.0f}, {memory['peak']:.0f} MiB",
        ),
    ]
    lines = [f"| {name} | {value} |" for name, value in rows]
    where = f"{settings['clients']} clients for {settings['seconds']:.0f} seconds, {settings['cores']} CPU cores that they share with the server"
    return "\n".join([f"{where}:", "", "| | |", "|-|-:|", *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--steps", type=int, default=20, help="of every picture")
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    options = parser.parse_args(arguments)
    result = measure(options)
    with replacing(options.output) as part:
        part.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(table(result))
    for message, count in result["messages"].items():
        print(f"{count} x {message}")
    broken = faults(result)
    for fault in broken:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if broken else 0


def faults(result: dict[str, Any]) -> list[str]:
    """What must not happen under load."""
    failed, memory = result["outcomes"].get("failed", 0), result["memory_mib"]
    found = [f"{failed} requests failed"] if failed else []
    found += [f"the server took {memory['peak']:.0f} MiB, more than {MEMORY}"] if memory["peak"] > MEMORY else []
    grown = memory["peak"] / memory["peak_of_first_half"]
    return found + ([f"memory grew by {grown - 1:.0%} in the second half"] if grown > GROWTH else [])


if __name__ == "__main__":
    sys.exit(main())
