"""What the page is to agents: tools of the Model Context Protocol, one for each endpoint, at /gradio_api/mcp.

They run the endpoints themselves, so that the limits are the same. Needs the package `mcp`; without it the page is a page.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote, urlsplit

import gradio as gr

from demo.page.values import is_upload
from demo.shelf import Shelf


IS_SPOKEN = find_spec("mcp") is not None
# Of gradio's two ways to speak it, the old one keeps a connection open for each agent.
CLOSED = ("/gradio_api/mcp/sse", "/gradio_api/mcp/messages")
OURS = "/gradio_api/file="


def keep_files(shelf: Shelf) -> None:
    """Pictures that agents send as `data:` go where files are removed after a time; gradio itself would keep them."""
    if IS_SPOKEN:
        import gradio.mcp

        gradio.mcp.DEFAULT_TEMP_DIR = str(shelf.folder)


async def download_nothing(address: str, cache_dir: str) -> str:
    """In place of gradio's download of a file that a request names by its address: uploads and results of ours are there."""
    _, ours, path = unquote(urlsplit(address).path).partition(OURS)
    if ours and is_upload(path):
        return path
    raise gr.Error("Files are not fetched from elsewhere. Upload the file.", print_exception=False)


def show_pictures(page: gr.Blocks) -> None:
    """Agents see every picture of a result; gradio itself shows those of lists as words only."""
    server = page.mcp_server_obj
    if server is not None:
        server.postprocess_output_data = one_by_one(server.postprocess_output_data)


def one_by_one(shown: Callable[[Any, str], list[Any]]) -> Callable[[Any, str], list[Any]]:
    def wrapper(outputs: Any, root_url: str) -> list[Any]:
        seen: list[Any] = []  # a result that is shown and to be downloaded is one result
        for one in flat(outputs):
            if one is not None and not any(_is_same(one, other) for other in seen):
                seen.append(one)
        return shown(seen, root_url)

    return wrapper


def flat(outputs: Any) -> Iterator[Any]:
    """Results within lists (of pictures; of all outputs where there are several), and pictures without their captions."""
    if isinstance(outputs, (list, tuple)):
        for one in outputs:
            yield from flat(one)
    else:
        is_captioned = isinstance(outputs, dict) and set(outputs) == {"image", "caption"}
        yield outputs["image"] if is_captioned else outputs


def _is_same(one: Any, other: Any) -> bool:
    """Gradio keeps a copy of each file under the hash of its content, so that equal paths are equal files."""
    return isinstance(one, dict) and isinstance(other, dict) and one.get("path") == other.get("path")
