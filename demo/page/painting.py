"""The canvas on which masks are painted, with bounds for what it takes."""

import threading
from typing import Any

import gradio as gr
from starlette.exceptions import HTTPException

from demo.limits import MAX_LAYERS, check_layer
from demo.page.values import path_of
from demo.uploads import file_bytes


CANVAS = 400  # pixels on a side of what the mask is painted on
BLOBS = 16  # edits whose painted layers wait in memory


def draw_editor() -> gr.ImageEditor:
    brush = gr.Brush(default_size=28, colors=["#ff00aa"], color_mode="fixed")
    tools = {"brush": brush, "eraser": gr.Eraser(default_size=28), "canvas_size": (CANVAS, CANVAS), "layers": False}
    without = {"sources": (), "transforms": (), "buttons": []}
    options = {"label": "Paint the mask", "type": "filepath", "format": "png", "height": 480, "elem_id": "editor"}
    return bounded(gr.ImageEditor(**options, **tools, **without))


def bounded(editor: gr.ImageEditor) -> gr.ImageEditor:
    """The editor with a limit to what may wait in memory: layers arrive one by one, before anyone asks for an edit."""
    accept, lock = editor.accept_blobs, threading.Lock()

    def accept_blobs(data: gr.components.image_editor.AcceptBlobs) -> None:
        fields = getattr(data, "data", None)  # `data` is whatever JSON says where no form was sent
        try:
            if not check_layer(fields, getattr(data, "files", None)):
                return
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        with lock:
            while len(editor.blob_storage) >= BLOBS and fields["id"] not in editor.blob_storage:
                editor.blob_storage.pop(next(iter(editor.blob_storage)))
            accept(data)

    accept_blobs._is_server_fn = True  # what `gradio.components.base.server` marks
    editor.accept_blobs = accept_blobs
    return editor


def strokes_of(editor: gr.ImageEditor, payload: Any) -> list[bytes]:
    """The painted layers of an editor as files."""
    if not isinstance(payload, dict):
        return []
    blobs = editor.blob_storage.pop(payload["id"], None) if payload.get("id") else None
    if blobs is not None:
        return [layer for layer in blobs.layers if layer]
    layers = payload.get("layers") or []
    if len(layers) > MAX_LAYERS:
        raise ValueError(f"A picture has at most {MAX_LAYERS} painted layers, there are {len(layers)}. Paint it anew.")
    return [file_bytes(path) for path in map(path_of, layers) if path]
