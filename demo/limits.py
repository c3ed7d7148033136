"""What every request meets first: a limit for its body, and addresses that are closed."""

import re
from typing import Any

from demo.settings import shown


# Bytes of a request that brings no file: Python needs a hundred times as much memory for small JSON values.
MAX_JSON_BYTES = 2**20
BRINGING_FILES = ("/gradio_api/upload", "/gradio_api/component_server")  # in forms of several parts
MAX_LAYER = 2 * 2**20  # bytes of a painted layer: the canvas is small, layers wait in memory
MAX_LAYERS = 4
REMOTE_FILE = re.compile(r"/file[=/]\s*https?:", re.IGNORECASE)  # gradio would get the file from elsewhere


class Gate:
    """ASGI middleware.

    Args:
        limit: a body that is announced longer than so many bytes is answered with 413; one that turns out longer is
            cut off. Requests that bring no file have `MAX_JSON_BYTES`.
        closed: addresses that are answered with 404, such as those of services that would keep files for ever.
    """

    def __init__(self, app: Any, limit: int, closed: tuple[str, ...] = ()):
        self.app, self.limit, self.closed = app, limit, closed

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/")
        if path.endswith(self.closed) or REMOTE_FILE.search(path):
            await refuse(send, 404, "Not found.")
            return
        headers = dict(scope["headers"])
        is_form = headers.get(b"content-type", b"").startswith(b"multipart/form-data")
        limit = self.limit if is_form and path in BRINGING_FILES else min(self.limit, MAX_JSON_BYTES)
        announced = headers.get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > limit:
            await refuse(send, 413, f"At most {limit} bytes are accepted here.")
            return
        seen = 0

        async def counted() -> dict[str, Any]:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                return {"type": "http.disconnect"}  # whoever reads on finds the client gone
            return message

        await self.app(scope, counted, send)


async def refuse(send: Any, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def check_layer(fields: Any, files: Any) -> bool:
    """Check a painted layer, which arrives before anyone asks for an edit.

    Args:
        fields: of the form, texts by name; files: (name, content) of what came along.

    Returns:
        whether it is a layer: editors send the picture below it, too.

    Raises:
        ValueError: for what no editor sends.
    """
    if not isinstance(fields, dict) or not {"id", "type", "index"} <= set(fields) or not isinstance(files, list):
        raise ValueError("A painted layer has an id, a type, an index and a file. Paint it on the page.")
    if fields["type"] != "layer":
        return False
    if not 0 < len(str(fields["id"])) <= 100:
        raise ValueError("The id of a painting has 1 to 100 characters. Paint it on the page.")
    if not re.fullmatch(f"[0-{MAX_LAYERS - 1}]", str(fields["index"])):
        raise ValueError(
            f"The index of a painted layer is a number below {MAX_LAYERS}, got '{shown(fields['index'])}'. Clear the "
            f"mask and paint it again."
        )
    if len(files) != 1 or len(files[0][1]) > MAX_LAYER:
        raise ValueError(f"A painted layer is one file of at most {MAX_LAYER / 2**20:.0f} MB. Paint less.")
    return True
