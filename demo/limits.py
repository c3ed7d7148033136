"""What every request meets first: a limit for its body, and addresses that are closed."""

from typing import Any


class Gate:
    """ASGI middleware.

    Args:
        limit: a body that is announced longer than so many bytes is answered with 413; one that turns out longer is
            cut off.
        closed: addresses that are answered with 404, such as those of services that would keep files for ever.
    """

    def __init__(self, app: Any, limit: int, closed: tuple[str, ...] = ()):
        self.app, self.limit, self.closed = app, limit, closed

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"].rstrip("/").endswith(self.closed):
            await refuse(send, 404, b"Not found.")
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self.limit:
            await refuse(send, 413, b"Too large.")
            return
        seen = 0

        async def counted() -> dict[str, Any]:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit:
                return {"type": "http.disconnect"}  # whoever reads on finds the client gone
            return message

        await self.app(scope, counted, send)


async def refuse(send: Any, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
