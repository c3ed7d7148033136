"""A client that keeps to no rules: what it sends and what comes back is plain HTTP.

attacker = Attacker("http://127.0.0.1:7860")
answer = attacker.job("generate", {"prompt": "\\ud800"})
"""

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

import httpx


API = "/gradio_api"
WAIT = 30  # seconds for any answer; the slowest input takes one or two
LAST = ("process_completed", "unexpected_error", "close_stream", "server_stopped")


@dataclass
class Answer:
    """All that a client got to see."""

    status: int
    text: str  # of every response and of the event stream
    outcome: str = ""  # of a job: "result", "told" or "untold"; "" where none ran
    messages: tuple[str, ...] = ()  # errors, warnings and notes, which the page shows as HTML
    data: Any = None  # what a job gave

    @property
    def notes(self) -> tuple[str, ...]:
        """Values of updates that a job gave and that say something: Markdown, which the page shows as HTML, too."""
        given = self.data if isinstance(self.data, list) else []
        updates = [one for one in given if isinstance(one, dict) and one.get("__type__") == "update"]
        return tuple(one["value"] for one in updates if isinstance(one.get("value"), str) and one["value"])


def file_data(path: Any, **more: Any) -> dict[str, Any]:
    """An uploaded file as the page names it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


class Attacker:
    """Sends to a server; knows what its page knows."""

    def __init__(self, url: str):
        # A connection of its own for each request: servers close those on which something went wrong.
        self.http = httpx.Client(base_url=url, timeout=WAIT, limits=httpx.Limits(max_keepalive_connections=0))
        config = self.http.get("/config").json()
        parts = {part["id"]: part for part in config["components"]}
        self.parts = {self.key(part): part["id"] for part in config["components"]}
        self.functions = {
            one["api_name"]: (one["id"], [parts[number] for number in one["inputs"]]) for one in config["dependencies"]
        }

    @staticmethod
    def key(part: dict[str, Any]) -> str:
        return part["props"].get("elem_id") or str(part["props"].get("label"))

    def data(self, name: str, values: dict[str, Any]) -> list[Any]:
        """Inputs of a function: `values` by the ids of the page's elements, all else as on a new page, in one step."""
        given = {"steps": 1, **values}
        keys = [(self.key(part), part["props"].get("value")) for part in self.functions[name][1]]
        return [given.get(key, default) for key, default in keys]

    def body(self, name: str, values: dict[str, Any], **more: Any) -> bytes:
        number = self.functions[name][0]
        said = {"data": self.data(name, values), "fn_index": number, "session_hash": uuid.uuid4().hex, **more}
        return json.dumps(said).encode()  # as an attacker: NaN and half characters, too

    def request(self, method: str, address: str, **more: Any) -> Answer:
        """One request; of a stream that never ends, the first piece."""
        with self.http.stream(method, address, **more) as response:
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                return Answer(response.status_code, first_piece(response))
            content = response.read()
        return Answer(response.status_code, content.decode("utf-8", "replace"))

    def post(self, address: str, body: bytes | str, kind: str = "application/json") -> Answer:
        return self.request("POST", address, content=body, headers={"content-type": kind})

    # -- files --------------------------------------------------------------------------------------------------------
    def send_file(self, content: bytes, name: str = "a.png") -> Answer:
        return self.request("POST", f"{API}/upload", files={"files": (name, content, "image/png")})

    def upload(self, content: bytes, name: str = "a.png") -> str:
        """The path of an uploaded file on the server."""
        return json.loads(self.send_file(content, name).text)[0]

    def download(self, path: str) -> bytes:
        return self.http.get(f"{API}/file={path}").raise_for_status().content

    # -- jobs ---------------------------------------------------------------------------------------------------------
    def job(self, name: str, values: dict[str, Any] | None = None, by: str = "queue", **more: Any) -> Answer:
        """Run a function of the page, by its number and the queue or, `by` "call", by its name.

        `more` is said to the queue as well, such as a `session_hash` that several jobs share.
        """
        if by == "call":
            joined = self.post(f"{API}/call/{name}", json.dumps({"data": self.data(name, values or {})}))
        else:
            joined = self.post(f"{API}/queue/join", body := self.body(name, values or {}, **more))
        if joined.status != 200:
            return joined
        if by == "call":
            event = json.loads(joined.text)["event_id"]
            return self.follow(joined, f"{API}/call/{name}/{event}")
        return self.follow(joined, f"{API}/queue/data?session_hash={json.loads(body)['session_hash']}")

    def follow(self, joined: Answer, address: str) -> Answer:
        """Read an event stream to its end."""
        lines, deadline = [], time.monotonic() + WAIT
        with self.http.stream("GET", address) as response:
            for line in response.iter_lines():
                lines.append(line)
                if any(f'"msg":"{last}"' in line for last in LAST) or line.startswith("data:") and ended(lines):
                    break
                assert time.monotonic() < deadline, f"no end after {WAIT} s: {lines[-3:]}"
        return understood(response.status_code, [joined.text, *lines])


def ended(lines: list[str]) -> bool:
    """Whether the last event of a stream of /call was read."""
    return len(lines) > 1 and lines[-2] in ("event: complete", "event: error")


def first_piece(response: httpx.Response) -> str:
    """What an event stream says first; a server may end a stream without its end mark."""
    try:
        return next(response.iter_text(), "")
    except httpx.RemoteProtocolError:
        return ""


def understood(status: int, lines: list[str]) -> Answer:
    """An event stream, read."""
    answer, messages = Answer(status, "\n".join(lines), "untold"), []
    for before, line in zip(lines, lines[1:], strict=False):
        if not line.startswith("data:"):
            continue
        said = json.loads(line[5:])
        if before.startswith("event: "):  # of /call
            done = before == "event: complete"
            said = {"msg": LAST[0], "success": done, "output": {"data": said} if done else said}
        if not isinstance(said, dict):
            continue
        messages += [said["log"]] if said.get("msg") == "log" else []
        if said.get("msg") == LAST[0]:
            output = said["output"] if isinstance(said["output"], dict) else {}
            messages += [output["error"]] if output.get("error") else []
            answer.outcome = "result" if said["success"] else "told" if output.get("error") else "untold"
            answer.data = output.get("data")
        elif said.get("msg") == LAST[1]:
            messages.append(said["message"])
            answer.outcome = "broken"
    answer.messages = tuple(messages)
    return answer
