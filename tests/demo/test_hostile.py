"""Hundreds of hostile inputs to a server of its own: no crash, no traceback, no file outside the temporary folder."""

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from benchmarks.demo_load import peak_memory, serving


pytest.importorskip("gradio", reason="the page needs the extra `demo`")
from attacker import Answer, Attacker, file_data  # noqa: E402
from hostile import KINDS, LIVE, Hostile, Inputs  # noqa: E402
from hostile_files import good_picture  # noqa: E402


LONGEST = 20  # seconds that an answer may take, also on a busy machine; most take less than one
GROWTH = 500  # MiB of memory that all inputs together may take at most, beyond that of a server that made a picture
# Exceptions that gradio logs itself when it refuses something before our code sees it. Nothing of them is sent.
LOGGED_BY_GRADIO = {
    "gradio.exceptions.InvalidPathError": "a file that was not uploaded",
    "pydantic_core._pydantic_core.ValidationError": "a file or a painted mask of another shape",
    "fastapi.exceptions.HTTPException": "a stream of a session that is not there",
    "RuntimeError": "the same, told once more by starlette",
    "KeyError": "a component that is not there, a form without its fields",
    "TypeError": "a value of another type",
    "ValueError": "too few inputs, a name with a zero byte",
    "OSError": "a name that is too long",
    "UnicodeEncodeError": "a name with half a character",
}
# Functions of ours that only stand between gradio and starlette.
PASSED_ON = ("__call__", "counted", "download_nothing")

# Reports what Python code of the server writes, whom it speaks to and what it starts: os.path, not the disk, is asked.
HOOK = """
import os, sys
log, inside = os.open(os.environ["HOSTILE_LOG"], os.O_WRONLY | os.O_APPEND), os.environ["TMPDIR"]
def report(event, args):
    said = None
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        said = args[0]
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.utime"):
        said = args[1] if event in ("os.rename", "os.symlink", "os.link") else args[0]
    elif event in ("socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "pickle.find_class"):
        said = str(args[:2])
    elif event == "socket.connect":
        said = str(args[1])
    if said is None or isinstance(said, int):
        return
    if isinstance(said, bytes):
        said = os.fsdecode(said)
    said = str(said)
    if not event.startswith(("socket", "subprocess", "pickle", "os.system", "os.exec")):
        said = os.path.abspath(said)
        if (said + "/").startswith(inside + "/") or said == "/dev/null":
            return
    os.write(log, f"{event} {said!r}\\n".encode())
sys.addaudithook(report)
"""


def snapshot(*folders: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


class Server:
    """The page in a process whose every folder lies under `root`; temporary ones under root/tmp."""

    def __init__(self, root: Path, repository: Path):
        self.root, self.repository, self.log = root, repository, root / "log"
        for name in ("tmp", "home", "cwd", "hook"):
            (root / name).mkdir()
        (root / "hook" / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
        (root / "events").touch()

    @contextmanager
    def running(self) -> Iterator[str]:
        with serving(self.log, cwd=self.root / "cwd", env=self.environment()) as (url, self.process):
            yield url

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MG_", "GRADIO_", "XDG_"))}
        return {
            **kept,
            "TMPDIR": str(self.root / "tmp"),
            "GRADIO_TEMP_DIR": str(self.root / "tmp" / "gradio"),
            "HOME": str(self.root / "home"),
            "HF_HOME": str(self.root / "home" / "huggingface"),
            "XDG_CACHE_HOME": str(self.root / "home" / "cache"),
            "PYTHONPATH": os.pathsep.join([str(self.root / "hook"), str(self.repository)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOSTILE_LOG": str(self.root / "events"),
        }

    @property
    def peak(self) -> float:
        if not Path("/proc").is_dir():
            pytest.skip("needs /proc to know the memory of a process")
        return peak_memory(self.process.pid)

    @property
    def watched(self) -> dict[str, tuple[int, int]]:
        """Files where none may be made or changed. Those of the checkout may, by others: HOOK tells what the server writes."""
        return snapshot(*(self.root / name for name in ("home", "cwd", "hook")))

    @property
    def events(self) -> list[str]:
        return (self.root / "events").read_text().splitlines()


@pytest.fixture(scope="module")
def server(tmp_path_factory, repository):
    server = Server(tmp_path_factory.mktemp("hostile").resolve(), repository)
    with server.running() as url:
        server.attacker = Attacker(url)
        picture = server.attacker.upload(good_picture())
        made = server.attacker.job("generate", {"texture-picture": file_data(picture), "color-palette": "#112233"})
        assert made.outcome == "result", made.text
        server.inputs = Inputs(server.attacker, str(repository), str(server.root))
        server.before, server.first_peak, server.first_events = server.watched, server.peak, len(server.events)
        yield server


def faults(answer: Answer, server: Server, echoes: tuple[str, ...]) -> list[str]:
    """What is wrong with an answer; `echoes` are texts that were sent and may come back."""
    text = answer.text.replace("\\/", "/")
    for echo in sorted(echoes, key=len, reverse=True):
        text = text.replace(echo, "")
    found = [sign for sign in ("Traceback", 'File "', 'File \\"', str(server.repository)) if sign in text]
    outside = re.sub(re.escape(f"{server.root}/tmp/gradio/"), "", text)
    found += (
        [f"a path of the server: {outside[max(0, at - 80) : at + 160]}"]
        if (at := outside.find(str(server.root))) >= 0
        else []
    )
    for message in (*answer.messages, *answer.notes):
        if LIVE.search(message):
            found.append(f"live HTML: {message}")
        if not message.endswith((".", ".)")) or message.startswith("Something went wrong on the server"):
            found.append(f"not in words of ours: {message}")
    return found + (["a broken stream"] if answer.outcome == "broken" else [])


def test_there_are_more_than_700_inputs(server):
    made = {kind: [one.name for one in server.inputs.of(kind)] for kind in KINDS}
    counted = {kind: len(names) for kind, names in made.items()}
    print(f"hostile inputs: {sum(counted.values())}: {counted}")
    names = [(kind, name) for kind, some in made.items() for name in some]
    assert len(names) == len(set(names)) > 700


@pytest.mark.parametrize("kind", KINDS)
def test_hostile(server, kind):
    wrong, outcomes = [], Counter()
    for one in server.inputs.of(kind):
        start = time.perf_counter()
        try:
            answer = one.send(server.attacker)
        except (httpx.HTTPError, AssertionError) as error:
            if not (one.too_large and isinstance(error, httpx.TransportError)):
                wrong.append(f"{one.name}: no answer: {error!r}")
            continue
        outcomes[answer.outcome or answer.status] += 1
        wrong += [f"{one.name}: {fault}" for fault in faults(answer, server, one.echoes)]
        wrong += judge(one, answer)
        if (taken := time.perf_counter() - start) > LONGEST:
            wrong.append(f"{one.name}: took {taken:.1f} s")
        if server.process.poll() is not None:
            wrong.append(f"{one.name}: the server ended")
            break
    print(f"{kind}: {dict(outcomes)}")
    assert not wrong, "\n".join(wrong)


def judge(one: Hostile, answer: Answer) -> list[str]:
    """Whether what must be refused was."""
    if one.refused and (answer.outcome == "result" or (not answer.outcome and answer.status < 400)):
        return [f"{one.name}: was accepted: {answer.text[-300:]}"]
    if one.too_large and answer.status != 413:
        return [f"{one.name}: was read: {answer.status} {answer.text[-300:]}"]
    return []


# The tests below look at what all of the above left behind.
def test_the_server_still_works(server):
    picture = file_data(server.attacker.upload(good_picture()))
    answer = server.attacker.job("generate", {"texture-picture": picture, "prompt": "a leaf"}, by="call")
    assert server.process.poll() is None and answer.outcome == "result", answer.text
    assert server.attacker.download(answer.data[1][0]["path"]).startswith(b"\x89PNG")


def test_memory_is_bounded(server):
    print(f"peak memory: {server.first_peak:.0f} MiB after a picture, {server.peak:.0f} MiB after all")
    assert server.peak - server.first_peak < GROWTH


def test_nothing_was_written_outside_and_nobody_was_asked(server):
    assert server.watched == server.before
    assert server.events[server.first_events :] == []
    assert sorted(path.name for path in server.root.iterdir()) == ["cwd", "events", "home", "hook", "log", "tmp"]


def test_the_log_holds_no_error_of_ours(server):
    log = server.log.read_text(encoding="utf-8", errors="replace")
    assert re.findall(r"ERROR:root:in .*", log) == []
    frames = re.findall(rf'File "{re.escape(str(server.repository))}/demo/(\S+)", line \d+, in (\S+)', log)
    assert [frame for frame in frames if frame[1] not in PASSED_ON] == []
    kinds = Counter(
        re.findall(r"^(?:  \| )*([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt))\b:?", log, re.MULTILINE)
    )
    print(f"logged by gradio: {dict(kinds)}")
    assert set(kinds) <= set(LOGGED_BY_GRADIO)
