"""Requests that no page sends: addresses, bodies and names."""

import json
import random
from collections.abc import Iterator, Mapping
from urllib.parse import quote, urlencode

from attacker import API


SCRIPT = "</script><script>hostile()</script>"


def queries(texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Query strings of the page."""
    fields = ("color", "texture", "shape", "color_scale", "seed", "steps", "guidance", "prompt", "tab", "model")
    for number, (name, text) in enumerate(texts.items()):
        field = fields[number % len(fields)]
        yield f"{name} as {field}", f"{field}={quote(text[:2000].encode('utf-8', 'surrogatepass'))}"
    for field in fields:
        yield f"live HTML as {field}", urlencode({field: "<img src=x onerror=hostile()>"})
    yield "a number too large", "seed=1e999&steps=-1e999&color_scale=nan&shape_scale=infinity"
    yield "names of gradio", f"__theme={quote(SCRIPT)}&view=api&deep_link=..%2F..%2Fx&session_hash=x"
    yield "a thousand names", urlencode({f"name{number}": number for number in range(1000)})
    yield "the same name twice", "seed=1&seed=x&seed=<b>"
    yield "bytes that are no text", "prompt=%ff%fe&color=%00"


def addresses(repository: str, root: str) -> Iterator[tuple[str, bool, tuple[str, ...]]]:
    """Address, whether it must be refused, and what it may echo."""
    for path in (
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/self/cwd/x",
        "/dev/zero",
        "../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%00",
        "a%00b",
        "%ff%fe",
        "a" * 3000,
        "file:///etc/passwd",
        "http://example.invalid/x.png",
        "https://example.invalid/x.png",
        "HTTPS://example.invalid/x.png",
        "http:/example.invalid/x.png",
        "http://169.254.169.254/latest",
        "ftp://example.invalid/x",
        f"{repository}/README.md",
        f"{repository}/demo/app.py",
        f"{repository}/.git/config",
        f"{root}/log",
        f"{root}/tmp/gradio/../../log",
        f"{root}/home",
        "",
    ):
        yield f"{API}/file={path}", True, (path, f"{root}/log")
    yield f"{API}/file/https://example.invalid/x.png", True, ()
    yield f"{API}/proxy=http://example.invalid/x", True, ()
    yield f"{API}/proxy=https://x.hf.space/x", True, ()
    yield f"{API}/deep_link?session_hash=x", True, ()
    yield f"{API}/deep_link/?session_hash=x", True, ()
    yield "/config?deep_link=../../x", False, ()
    yield f"/?deep_link={quote(SCRIPT)}", False, ()
    for path in ("..%2f..%2froutes.py", "..%5c..%5croutes.py", "%2e%2e/%2e%2e/routes.py", "/etc/passwd", "a" * 3000):
        yield f"/static/{path}", True, ()
        yield f"/assets/{path}", True, ()
    yield f"/svelte/..%2f..%2f{quote(SCRIPT)}", True, ()
    yield f"{API}/custom_component/x/client/..%2f../x", True, ()
    yield f"{API}/custom_component/x/server/component/x", True, ()
    yield f"{API}/queue/data?session_hash=nobody", False, ()
    yield f"{API}/queue/data?session_hash={quote(SCRIPT)}", False, ()
    yield f"{API}/call/generate/nobody", False, ()
    yield f"{API}/call/..%2f..%2fx/nobody", False, ()
    yield f"{API}/stream/a/b/1/playlist.m3u8", True, ()
    yield f"{API}/stream/a/b/1/..%2fx.ts", True, ()
    yield f"{API}/vibe-code", True, ()
    yield f"{API}/run-history/records", True, ()
    yield f"{API}/info?all_endpoints=1", False, ()
    yield f"{API}/openapi.json", False, ()
    yield "/monitoring", True, ()
    yield "/monitoring/summary", True, ()
    yield "/pwa_icon/9999999999999999999999", True, ()
    yield f"/{quote(SCRIPT)}", True, ()


def bodies(chance: random.Random) -> Iterator[tuple[str, str, bytes, dict[str, str], bool]]:
    """Name, address, body, headers, and whether it must be refused; the server may hang up on what is large."""
    join, names = f"{API}/queue/join", ("generate", "restore", "nobody", "..%2f..%2fx", "__class__")
    for number, body in enumerate(
        (b"", b"{", b"null", b"[]", b'"x"', b"7", b"\xff\xfe", b"\0" * 100, chance.randbytes(500))
    ):
        yield f"body of nonsense {number}", join, body, {}, True
    for number, said in enumerate(
        (
            {},
            {"data": None},
            {"data": {}, "fn_index": 0, "session_hash": "x"},
            {"data": [], "fn_index": 10**30, "session_hash": "x"},
            {"data": [], "fn_index": -1, "session_hash": "x"},
            {"data": [], "fn_index": "x", "session_hash": "x"},
            {"data": [], "fn_index": 9999, "session_hash": "x"},
            {"data": [], "fn_index": 0, "session_hash": ["x"]},
            {"data": [], "fn_index": 0, "session_hash": "\ud800"},
            {"data": [], "fn_index": None, "session_hash": "x"},
        )
    ):
        yield f"job of nonsense {number}", join, json.dumps(said).encode(), {}, number != 8
    for name in names:
        for way in ("call", "call/v2", "run", "api"):
            yield f"POST {way}/{name}", f"{API}/{way}/{name}", b'{"data": {"a": "<b>"}}', {}, True
    yield "a million brackets", join, b"[" * 900_000, {}, True
    yield "5 million lists", join, b'{"data":[' + b"[]," * 5_000_000 + b"[]]}", {}, True
    yield "22 MB", f"{API}/upload", bytes(22 * 2**20), {"content-type": "multipart/form-data; boundary=x"}, True
    form = "multipart/form-data; boundary=x"
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="'
    for number, (kind, body) in enumerate(
        (
            ("multipart/form-data", b"--x--"),
            (form, b""),
            (form, b"--x\r\n\r\n\r\n--x--"),
            (form, part + b'a.png"\r\n'),
            (form, part + b"a" * 20_000 + b'"\r\n\r\nx\r\n--x--'),
            (form, b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\n/etc/passwd\r\n--x--'),
            (form, b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x--"),
            (f"{form}; charset=hostile", part + b'a.png"\r\n\r\nx\r\n--x--'),
            ("text/html", b"<b>"),
        )
    ):
        yield f"form of nonsense {number}", f"{API}/upload", body, {"content-type": kind}, False
    half = b'{"data": [], "session_hash": "\\ud800"}'
    yield "stop of a session of half a character", f"{API}/run/stop", half, {}, False
    yield "recording", f"{API}/process_recording", b"x", {}, True
    yield "cancel", f"{API}/cancel", b'{"session_hash": 1}', {}, True
    yield "vibe", f"{API}/vibe-edit", b'{"prompt": "x"}', {}, True
    yield "login", "/login", b"username=x&password=x", {"content-type": "application/x-www-form-urlencoded"}, False


def names() -> Iterator[str]:
    """Names of uploads."""
    yield from (
        "../../../hostile.png",
        "..\\..\\hostile.png",
        "/etc/hostile",
        "..",
        ".",
        "",
        " ",
        "a\0b.png",
        "a" * 300,
    )
    yield from (
        "<img src=x onerror=hostile()>.png",
        "a%2f..%2f..%2fb",
        "con.png",
        "-rf",
        "~",
        "$(id).png",
        "\u202egnp.exe",
    )
    yield from (".htaccess", "state.json", "a.png/../../b.png", "\u00e9\U0001f600.png", "a\r\nX-Hostile: 1")
