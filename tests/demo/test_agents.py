"""The page as tools for agents: what a client of the Model Context Protocol sees, gives and gets, within the same limits."""

import asyncio
import base64
import io
from pathlib import Path

import httpx
import PIL.Image
import pytest


pytest.importorskip("mcp", reason="agents need the extra `demo`")
from mcp import ClientSession  # noqa: E402
from mcp.client.streamable_http import streamable_http_client  # noqa: E402

from demo.page.described import INPUTS  # noqa: E402


QUICK = {"color_palette": "#023047, #8ecae6", "steps": 2, "size": "64", "aspect": "1:1"}


def spoken(served: str, talk):
    """What `talk`, given a session, returns."""

    async def all_of_it():
        async with (
            streamable_http_client(f"{served}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await talk(session)

    return asyncio.run(all_of_it())


def call(served: str, tool: str, **values):
    return spoken(served, lambda session: session.call_tool(tool, values))


def as_data(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def picture_of(answer) -> PIL.Image.Image:
    assert not answer.isError, answer.content
    (data,) = [one.data for one in answer.content if one.type == "image"]
    return PIL.Image.open(io.BytesIO(base64.b64decode(data)))


def test_every_tool_and_every_input_is_described(served):
    tools = spoken(served, lambda session: session.list_tools()).tools
    assert {tool.name for tool in tools} == {"generate", "compose", "edit", "sweep", "explain", "make_card", "mix"}
    for tool in tools:
        assert tool.description and "Args:" not in tool.description
        given = tool.inputSchema["properties"]
        assert {name: one.get("description") for name, one in given.items()} == {name: INPUTS[name] for name in given}
        assert not tool.inputSchema.get("required")


def test_a_picture_sent_along_gives_a_picture_and_its_address(served, uploads_folder, studio):
    answer = call(served, "generate", **QUICK, shape_picture=as_data(uploads_folder / "leaf.png"))
    assert picture_of(answer).size == (64, 64)
    (said,) = [one.text for one in answer.content if one.type == "text"]
    assert said.startswith("Image URL: http")
    # A result of the page serves as a reference in the next call; nothing is fetched from its address.
    address = said.removeprefix("Image URL: ").replace(served, "http://nowhere.invalid")
    assert picture_of(call(served, "generate", **QUICK, texture_picture=address)).size == (64, 64)
    # What came as data lies on the shelf, which removes it.
    assert list(studio.shelf.folder.rglob("*.png"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 10**6}, "number of steps must be a number from 1 to 50"),
        ({"color_palette": "red"}, "is no color"),
        ({"shape_picture": "data:image/png;base64,aGVsbG8="}, "cannot be read as a picture"),
        ({"shape_picture": "http://127.0.0.1:1/a.png"}, "not fetched from elsewhere"),
        ({"shape_picture": "http://127.0.0.1:1/gradio_api/file=/etc/passwd"}, "not fetched from elsewhere"),
        ({"shape_picture": "/etc/passwd"}, "Invalid file data format"),
    ],
)
def test_limits_are_those_of_the_page(served, values, message):
    answer = call(served, "generate", **{**QUICK, **values})
    assert answer.isError
    told = " ".join(one.text for one in answer.content)
    assert message in told and "Traceback" not in told and "root:" not in told


def test_requests_stay_small_and_the_old_transport_is_closed(served):
    headers = {"Accept": "application/json, text/event-stream"}
    assert httpx.post(f"{served}/gradio_api/mcp/", json={"a": "0" * 2**21}, headers=headers).status_code == 413
    for path in ("sse", "sse/", "messages/?session_id=x"):
        assert httpx.get(f"{served}/gradio_api/mcp/{path}").status_code == 404
