"""Requests that no page sends: addresses, bodies and names."""

import json
import random
from collections.abc import Iterator, Mapping
from urllib.parse import quote, urlencode

from attacker import API


SCRIPT = "</script><script>hostile()</script>"
NONSENSE = (b"", b"{", b"null", b"[]", b'"x"', b"7", b"\xff\xfe", b"\0" * 100)


def queries(texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Query strings of the page."""
    fields = (
        "color",
        "texture",
        "shape",
        "color_scale",
        "seed",
        "steps",
        "guidance",
        "size",
        "aspect",
        "coarseness",
        "assignment",
        "prompt",
        "tab",
        "model",
    )
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


# Addresses without names of ours: the address and whether it must be refused.
ADDRESSES = (
    (f"{API}/file/https://example.invalid/x.png", True),
    (f"{API}/proxy=http://example.invalid/x", True),
    (f"{API}/proxy=https://x.hf.space/x", True),
    (f"{API}/deep_link?session_hash=x", True),
    (f"{API}/deep_link/?session_hash=x", True),
    ("/config?deep_link=../../x", False),
    (f"/?deep_link={quote(SCRIPT)}", False),
    (f"/svelte/..%2f..%2f{quote(SCRIPT)}", True),
    (f"{API}/custom_component/x/client/..%2f../x", True),
    (f"{API}/custom_component/x/server/component/x", True),
    (f"{API}/queue/data?session_hash=nobody", False),
    (f"{API}/queue/data?session_hash={quote(SCRIPT)}", False),
    (f"{API}/call/generate/nobody", False),
    (f"{API}/call/..%2f..%2fx/nobody", False),
    (f"{API}/stream/a/b/1/playlist.m3u8", True),
    (f"{API}/stream/a/b/1/..%2fx.ts", True),
    (f"{API}/vibe-code", True),
    (f"{API}/run-history/records", True),
    (f"{API}/info?all_endpoints=1", False),
    (f"{API}/openapi.json", False),
    ("/monitoring", True),
    ("/monitoring/summary", True),
    ("/pwa_icon/9999999999999999999999", True),
    (f"/{quote(SCRIPT)}", True),
)
# Files that nobody may read, as the page names files of results.
FILES = (
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
    "",
)
STATIC = ("..%2f..%2froutes.py", "..%5c..%5croutes.py", "%2e%2e/%2e%2e/routes.py", "/etc/passwd", "a" * 3000)


def addresses(repository: str, root: str) -> Iterator[tuple[str, bool, tuple[str, ...]]]:
    """Address, whether it must be refused, and what it may echo."""
    ours = [f"{repository}/{path}" for path in ("README.md", "demo/app.py", ".git/config")]
    theirs = [f"{root}/{path}" for path in ("log", "tmp/gradio/../../log", "home")]
    for path in (*FILES, *ours, *theirs):
        yield f"{API}/file={path}", True, (path, f"{root}/log")
    for path in STATIC:
        yield f"/static/{path}", True, ()
        yield f"/assets/{path}", True, ()
    yield from ((address, refused, ()) for address, refused in ADDRESSES)


JOBS = (
    {},
    {"data": None},
    {"data": {}, "fn_index": 0, "session_hash": "x"},
    {"data": [], "fn_index": 10**30, "session_hash": "x"},
    {"data": [], "fn_index": -1, "session_hash": "x"},
    {"data": [], "fn_index": "x", "session_hash": "x"},
    {"data": [], "fn_index": 9999, "session_hash": "x"},
    {"data": [], "fn_index": 0, "session_hash": ["x"]},
    {"data": [], "fn_index": None, "session_hash": "x"},
)
HALF = b'{"data": [], "fn_index": 0, "session_hash": "\\ud800"}'  # a session of half a character
FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="'
FORMS = (
    ("multipart/form-data", b"--x--"),
    (FORM, b""),
    (FORM, b"--x\r\n\r\n\r\n--x--"),
    (FORM, PART + b'a.png"\r\n'),
    (FORM, PART + b"a" * 20_000 + b'"\r\n\r\nx\r\n--x--'),
    (FORM, b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\n/etc/passwd\r\n--x--'),
    (FORM, b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x--"),
    (f"{FORM}; charset=hostile", PART + b'a.png"\r\n\r\nx\r\n--x--'),
    ("text/html", b"<b>"),
)
JSON = "application/json"
# Name, address, body, content type, and whether it must be refused.
BODIES = (
    ("a million brackets", f"{API}/queue/join", b"[" * 900_000, JSON, True),
    ("job of a session of half a character", f"{API}/queue/join", HALF, JSON, False),
    ("stop of a session of half a character", f"{API}/run/stop", HALF, JSON, False),
    ("recording", f"{API}/process_recording", b"x", JSON, True),
    ("cancel", f"{API}/cancel", b'{"session_hash": 1}', JSON, True),
    ("vibe", f"{API}/vibe-edit", b'{"prompt": "x"}', JSON, True),
    ("login", "/login", b"username=x&password=x", "application/x-www-form-urlencoded", False),
)


def bodies(chance: random.Random) -> Iterator[tuple[str, str, bytes, str, bool]]:
    """Name, address, body, content type, and whether it must be refused."""
    for number, body in enumerate((*NONSENSE, chance.randbytes(500))):
        yield f"body of nonsense {number}", f"{API}/queue/join", body, JSON, True
    for number, said in enumerate(JOBS):
        yield f"job of nonsense {number}", f"{API}/queue/join", json.dumps(said).encode(), JSON, True
    for name in ("generate", "restore", "nobody", "..%2f..%2fx", "__class__"):
        for way in ("call", "call/v2", "run", "api"):
            yield f"POST {way}/{name}", f"{API}/{way}/{name}", b'{"data": {"a": "<b>"}}', JSON, True
    for number, (kind, body) in enumerate(FORMS):
        yield f"form of nonsense {number}", f"{API}/upload", body, kind, False
    yield from BODIES


# Where so many small lists are sent, and as what. Python would need a hundred times as much memory for them.
LISTS = (
    ("queue/join", 5_000_000, JSON),
    ("queue/join/", 5_000_000, JSON),
    ("call/upload", 400_000, JSON),  # names that end like those that bring files
    ("call/upload", 5_000_000, JSON),
    ("call/upload", 5_000_000, FORM),
    ("call/v2/upload", 5_000_000, JSON),
    ("run/upload", 1_000_000, JSON),
    ("run/upload", 5_000_000, JSON),
    ("run/upload", 5_000_000, FORM),
    ("api/component_server", 5_000_000, JSON),
    ("component_server", 400_000, JSON),
    ("component_server", 5_000_000, JSON),
    ("component_server", 5_000_000, "Multipart/Form-Data; boundary=x"),  # gradio reads JSON then
    ("component_server", 5_000_000, "text/plain"),
    ("component_server/", 5_000_000, JSON),
    ("upload", 5_000_000, JSON),
)


def lists(count: int) -> bytes:
    """JSON that says so many lists."""
    said = b'{"session_hash":"x","component_id":1,"fn_name":"x","fn_index":0,"data":['
    return said + b"[]," * (count - 1) + b"[]]}"


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
