"""The canvas on which masks are painted, with bounds for what it takes."""

import threading
from typing import Any

import gradio as gr

from demo.page.values import path_of
from demo.uploads import MAX_BYTES, file_bytes


CANVAS = 400  # pixels on a side of what the mask is painted on
BLOBS = 16  # edits whose painted layers wait in memory


def draw_editor() -> gr.ImageEditor:
    return bounded(
        gr.ImageEditor(
            label="Paint the mask",
            type="filepath",
            sources=(),
            transforms=(),
            layers=False,
            format="png",
            brush=gr.Brush(default_size=28, colors=["#ff00aa"], color_mode="fixed"),
            eraser=gr.Eraser(default_size=28),
            canvas_size=(CANVAS, CANVAS),
            height=480,
            buttons=[],
            elem_id="editor",
        )
    )


def bounded(editor: gr.ImageEditor) -> gr.ImageEditor:
    """The editor with a limit to what may wait in memory: layers arrive one by one, before anyone asks for an edit."""
    accept, lock = editor.accept_blobs, threading.Lock()

    def accept_blobs(data: gr.components.image_editor.AcceptBlobs) -> None:
        fields, size = data.data, sum(len(content) for _, content in data.files)
        index = fields.get("index") if isinstance(fields, dict) else fields["index"]
        if size > MAX_BYTES or (index not in (None, "", "null") and not 0 <= int(index) < 4):
            raise ValueError("Too much was painted.")
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
    return [file_bytes(path) for path in map(path_of, payload.get("layers") or []) if path]
