"""Hostile inputs by kind; the same every time, because what chance decides is seeded."""

import json
import random
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from attacker import API, Answer, Attacker, file_data
from hostile_files import (
    as_file,
    bombs,
    cards,
    film,
    foreign,
    fuzzed,
    good_picture,
    picture,
    png,
    with_recipe,
    with_text,
    zeros,
)
from hostile_recipes import damaged, texts
from hostile_requests import FORM, LISTS, addresses, bodies, lists, names, queries
from hostile_words import BLOB, BLOBS, FIELDS, FILE_SLOTS, IMAGE, PLACES, TEXTS, VALUES, deep, outside, secret

from demo.checked_references import to_text


KINDS = (
    "fuzzed pictures",
    "bombs",
    "foreign files",
    "texts",
    "values",
    "paths",
    "masks and layers",
    "cards",
    "recipes",
    "addresses",
    "requests",
)
LIVE = re.compile(r"<[a-zA-Z/!?]")  # HTML that a page would run


@dataclass(frozen=True)
class Hostile:
    """One input. `echoes`: what of it may come back; `refused`: it must not succeed."""

    name: str
    send: Callable[[Attacker], Answer]
    refused: bool = False
    echoes: tuple[str, ...] = ()
    too_large: bool = False  # it is answered with 413, or cut off, because it is not read to its end


class Inputs:
    """All inputs, for a server at which `attacker` aims.

    Args:
        repository: folder of the code; root: folder that holds everything of the server.
    """

    def __init__(self, attacker: Attacker, repository: str, root: str):
        self.repository, self.root = repository, root
        self.good = attacker.upload(good_picture())
        made = attacker.job("make_card", {"granularity": "texture", "texture-picture": file_data(self.good)})
        self.card = attacker.download(made.data[0]["path"])
        self.made: dict[str, list[Hostile]] = {}

    def of(self, kind: str) -> list[Hostile]:
        if kind not in self.made:
            self.made[kind] = list(getattr(self, kind.replace(" ", "_"))(random.Random(kind)))
        return self.made[kind]

    def filled(self, function: str, element: str, value: Any) -> dict[str, Any]:
        """Inputs in which all else is in order."""
        good = {"photo": file_data(self.good), "texture-picture": file_data(self.good), "color-palette": "#112233"}
        good |= {"action": "variation", "tab": "generate"} if function == "edit" else {}
        if function == "make_card":
            good = {"granularity": "texture", **good, "color-palette": None}
        return {**good, element: value}

    def file(self, name: str, content: bytes, place: tuple[str, str], **more: Any) -> Hostile:
        """A file, uploaded and given in a place."""

        def send(attacker: Attacker) -> Answer:
            value = file_data(attacker.upload(content, f"a.{'safetensors' if 'card' in place[1] else 'png'}"))
            return attacker.job(place[0], self.filled(*place, value))

        return Hostile(f"{name}, in {place[1]} of {place[0]}", send, **more)

    # -- files --------------------------------------------------------------------------------------------------------
    def fuzzed_pictures(self, chance: random.Random) -> Iterator[Hostile]:
        for number, (name, content) in enumerate(fuzzed(chance)):
            yield self.file(name, content, PLACES[number % len(PLACES)])

    def bombs(self, chance: random.Random) -> Iterator[Hostile]:
        for number, (name, content) in enumerate(bombs()):
            yield self.file(name, content, PLACES[number % len(PLACES)])
        yield self.file("film with a recipe", film(), ("restore", "restore"), refused=True)
        yield self.file(
            "recipe of 4 million parts", with_text(b"[" + b"[]," * 4_000_000 + b"0]"), PLACES[5], refused=True
        )

    def foreign_files(self, chance: random.Random) -> Iterator[Hostile]:
        for number, (name, content) in enumerate(foreign()):
            yield self.file(name, content, PLACES[number % len(PLACES)])

    def cards(self, chance: random.Random) -> Iterator[Hostile]:
        places = (("generate", "texture-card"), ("see_1", "texture-card"))
        for number, (name, content) in enumerate(cards(self.card)):
            yield self.file(name, content, places[number % 2], refused=places[number % 2][0] == "generate")
        for place in (("generate", "color-card"), ("mix", "first-card"), ("generate", "shape-card")):
            yield self.file("card of texture", self.card, place, refused=True)
        yield self.file("card as a picture", self.card, ("generate", "texture-picture"), refused=True)
        yield self.file("picture as a card", good_picture(), ("generate", "texture-card"), refused=True)

    # -- what is said -------------------------------------------------------------------------------------------------
    def texts(self, chance: random.Random) -> Iterator[Hostile]:
        for name, text in TEXTS.items():
            for function, element in (("generate", "prompt"), ("generate", "color-palette"), ("edit", "action")):
                must = element != "prompt"
                yield self.said(name, function, element, text, refused=must and bool(text.strip()))

    def values(self, chance: random.Random) -> Iterator[Hostile]:
        for number, (name, value) in enumerate(VALUES.items()):
            for offset in range(5):
                yield self.said(name, *FIELDS[(5 * number + offset) % len(FIELDS)], value)

    def said(self, name: str, function: str, element: str, value: Any, **more: Any) -> Hostile:
        by = "call" if len(name) % 2 and function in ("generate", "edit", "sweep", "mix", "make_card") else "queue"
        return Hostile(
            f"{name}, as {element} of {function}",
            lambda attacker: attacker.job(function, self.filled(function, element, value), by),
            **more,
        )

    def paths(self, chance: random.Random) -> Iterator[Hostile]:
        for number, path in enumerate(outside(self.repository, self.root)):
            for meta in (True, False):
                place = FILE_SLOTS[(2 * number + meta) % len(FILE_SLOTS)]
                value = file_data(path) if meta else {"path": path}
                yield self.said(
                    f"{path!r:.40} {'as a file' if meta else 'alone'}", *place, value, refused=place[0][:3] != "see"
                )
        for path in secret(self.root):
            for meta in (True, False):
                for place in (
                    ("show_photo", "photo"),
                    ("generate", "shape-picture"),
                    ("make_card", "texture-picture"),
                ):
                    value = file_data(path) if meta else {"path": path}
                    yield self.said(f"{path!r:.200} {'as a file' if meta else 'alone'}", *place, value, refused=True)
        for number, value in enumerate(
            ("/etc/passwd", ["/etc/passwd"], 7, {"url": "http://127.0.0.1:1"}, {"path": 7})
        ):
            yield self.said(f"no file: {value!r}", *FILE_SLOTS[number], value)
        for path in ("/etc/passwd", "https://example.invalid/x.png"):
            for more in ({"is_stream": True}, {"url": "https://example.invalid/x.png"}, {"orig_name": "../../x"}):
                yield self.said(f"{path} {more}", "generate", "shape-picture", file_data(path, **more), refused=True)
        for element in ("texture-picture", "shape-card"):
            yield Hostile(
                f"an address as {element} after components were made anew",
                lambda attacker, element=element: self.after_a_skip(attacker, element),
                refused=True,
            )

    def after_a_skip(self, attacker: Attacker, element: str) -> Answer:
        """A file from elsewhere in a session in which all components were set before, which makes them anew."""
        session = uuid.uuid4().hex
        skipped = attacker.job("restore", {"restore": None}, session_hash=session)
        assert skipped.outcome == "result" and {"__type__": "update"} in skipped.data
        value = file_data("https://example.invalid/x.png")
        answer = attacker.job("generate", self.filled("generate", element, value), session_hash=session)
        assert answer.outcome == "told", answer.text  # whoever asks elsewhere in vain ends "untold"
        return answer

    # -- masks and recipes --------------------------------------------------------------------------------------------
    def masks_and_layers(self, chance: random.Random) -> Iterator[Hostile]:
        masks = {
            "of another size": as_file(picture(65)),
            "of 4 million pixels": png(2000, 2000, 8, 0, zeros(2000 * 2001)),
            "of 16 million pixels": png(4000, 4000, 1, 0, zeros(4000 * 501)),
            "transparent": as_file(picture(mode="RGBA").resize((64, 64)).point(lambda value: value // 2)),
            "all black": png(64, 64, 8, 0, zeros(64 * 65)),
            "of 16 bits": png(64, 64, 16, 0, zeros(64 * 129)),
            "that is no picture": b"no picture",
        }
        for name, content in masks.items():
            for function in ("show_polarity", "edit"):
                yield self.file(f"mask {name}", content, (function, "mask"))
                yield self.layer_file(f"layer {name}", content, function)
        many = {"background": None, "composite": None, "id": None}
        for count in (5, 1000):
            layers = {**many, "layers": [file_data(self.good)] * count}
            yield self.said(f"{count} layers", "show_polarity", "editor", layers, refused=True)
        nonsense = (
            [],
            "x",
            {"id": IMAGE},
            {**many, "layers": [None] * 9},
            {**many, "layers": "x"},
            {**many, "layers": [deep(50)]},
            {**many, "id": deep(9)},
            {**many, "layers": [], "id": "../../x"},
        )
        for number, value in enumerate(nonsense):
            yield self.said(f"layers of nonsense {number}", "show_polarity", "editor", value)
        yield from self.blobs()

    def layer_file(self, name: str, content: bytes, function: str) -> Hostile:
        def send(attacker: Attacker) -> Answer:
            layers = [file_data(attacker.upload(content))]
            editor = {"background": None, "layers": layers, "composite": None, "id": None}
            return attacker.job(function, self.filled(function, "editor", editor))

        return Hostile(f"{name} of {function}", send)

    def blobs(self) -> Iterator[Hostile]:
        """Painted layers as they arrive, one by one."""
        for number, (fields, content, refused) in enumerate(BLOBS):
            yield self.blob(f"blob {number}: {str(fields):.40}", {**BLOB, **fields}, content, refused=refused)
        for missing in ("type", "index", "id", "session_hash", "fn_name"):
            fields = {key: value for key, value in BLOB.items() if key != missing}
            yield self.blob(f"blob without {missing}", fields, b"1", refused=True)
        for number, data in enumerate((None, [1], "x", {"data": {}}, {"data": BLOB, "files": [["a", "b"]]})):

            def send(attacker: Attacker, data: Any = data) -> Answer:
                body = {**BLOB, "component_id": attacker.parts["editor"], "data": data}
                return attacker.post(f"{API}/component_server", json.dumps(body))

            yield Hostile(f"blob in JSON {number}", send, refused=True)

    def blob(self, name: str, fields: dict[str, str], content: bytes, **more: Any) -> Hostile:
        def send(attacker: Attacker) -> Answer:
            sent = {"component_id": str(attacker.parts["editor"]), **fields}
            return attacker.request("POST", f"{API}/component_server", data=sent, files={"file": ("blob", content)})

        return Hostile(name, send, **more)

    def recipes(self, chance: random.Random) -> Iterator[Hostile]:
        for name, recipe, refused in damaged(to_text(self.card)):
            yield self.file(f"recipe with {name}", with_recipe(recipe), ("restore", "restore"), refused=refused)
        for name, text in texts():
            yield self.file(f"recipe of {name}", with_text(text), ("restore", "restore"), refused=True)

    # -- plain requests -----------------------------------------------------------------------------------------------
    def addresses(self, chance: random.Random) -> Iterator[Hostile]:
        for name, text in queries(TEXTS):
            noted = name.startswith("live HTML") and not name.endswith(" prompt")  # a prompt may be any text
            yield Hostile(
                f"page with {name}", lambda attacker, text=text, noted=noted: open_page(attacker, text, noted)
            )
        for address, refused, echoes in addresses(self.repository, self.root):
            yield Hostile(
                f"GET {address:.100}",
                lambda attacker, address=address: attacker.request("GET", address),
                refused,
                echoes,
            )

    def requests(self, chance: random.Random) -> Iterator[Hostile]:
        for name, *request, refused in bodies(chance):
            yield Hostile(name, lambda attacker, request=request: attacker.post(*request), refused)
        for address, count, kind in LISTS:
            yield Hostile(
                f"{count} lists to {address} as {kind:.19}",
                lambda attacker, address=address, count=count, kind=kind: attacker.post(
                    f"{API}/{address}", lists(count), kind
                ),
                too_large=True,
            )
        yield Hostile(
            "22 MB", lambda attacker: attacker.post(f"{API}/upload", bytes(22 * 2**20), FORM), too_large=True
        )
        for name in names():
            yield Hostile(
                f"upload named {name!r:.60}", lambda attacker, name=name: attacker.send_file(good_picture(), name)
            )


def open_page(attacker: Attacker, query: str, noted: bool = False) -> Answer:
    """The page at an address, and what it loads then; with a note where live HTML is no value."""
    page = attacker.request("GET", f"/?{query}")
    assert page.status == 200 and "hostile()" not in page.text
    joined = attacker.post(f"{API}/queue/join?{query}", body := attacker.body("open", {}))
    if joined.status != 200:
        return joined
    answer = attacker.follow(joined, f"{API}/queue/data?session_hash={json.loads(body)['session_hash']}")
    if noted:
        assert len(answer.notes) == 1 and "left out" in answer.notes[0] and not LIVE.search(answer.notes[0]), answer
    return answer
