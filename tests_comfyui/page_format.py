"""Workflows as ComfyUI's page keeps them, made of those in the API format.

`COMFYUI=path python tests_comfyui/page_format.py` writes `example_workflows` anew, which the page offers as templates.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from checkout import find_checkout, prepare


NODES = Path(__file__).resolve().parents[1] / "mg_diffusion" / "comfyui"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
COLUMN, ROW = 420, 60  # pixels between nodes
PREVIEW = 320  # of a node that shows a picture


def page_graph(graph: dict[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    """A graph of the API format with places, links and the values of widgets in the order in which the page makes them."""
    numbers = {key: number for number, key in enumerate(graph, 1)}
    links: list[list[Any]] = []
    nodes = []
    heights: dict[int, int] = {}
    for key, node in graph.items():
        kind = kinds[node["class_type"]]
        inputs, values = _inputs(node["inputs"], kind)
        for slot, socket in enumerate(inputs):
            source, output = node["inputs"][socket["name"]] if socket["linked"] else (None, None)
            socket["link"] = len(links) + 1 if socket.pop("linked") else None
            if source is not None:
                links.append([len(links) + 1, numbers[source], output, numbers[key], slot, socket["type"]])
        column = _depth(graph, key)
        height = ROW + 30 * (len(inputs) + len(values))
        height = max(height, PREVIEW) if node["class_type"].endswith("Image") else height
        place = [COLUMN * column, heights.get(column, 0)]
        heights[column] = heights.get(column, 0) + height + ROW
        nodes.append(
            {
                "id": numbers[key],
                "type": node["class_type"],
                "pos": place,
                "size": [COLUMN - 80, height],
                "flags": {},
                "order": numbers[key] - 1,
                "mode": 0,
                "inputs": inputs,
                "outputs": _outputs(kind),
                "properties": {"Node name for S&R": node["class_type"]},
                "widgets_values": values,
            }
        )
    for number, source, output, *_ in links:
        nodes[source - 1]["outputs"][output]["links"].append(number)
    last = {"last_node_id": len(nodes), "last_link_id": len(links)}
    return {**last, "nodes": nodes, "links": links, "groups": [], "config": {}, "extra": {}, "version": 0.4}


def _inputs(given: dict[str, Any], kind: Any) -> tuple[list[dict[str, Any]], list[Any]]:
    """Sockets, and values of widgets."""
    known = kind.INPUT_TYPES()
    sockets, values = [], []
    for name, (type_, *rest) in {**known.get("required", {}), **known.get("optional", {})}.items():
        options = rest[0] if rest else {}
        is_widget = (isinstance(type_, list) or type_ in WIDGETS) and not options.get("forceInput")
        is_linked = isinstance(given.get(name), list)
        type_ = "COMBO" if isinstance(type_, list) else type_
        if is_widget:
            default = options.get("default", "" if type_ == "STRING" else None)
            values.append(default if is_linked else given.get(name, default))
            values += ["fixed"] if options.get("control_after_generate") else []
            values += ["image"] if options.get("image_upload") else []
        if not is_widget or is_linked:
            socket = {"name": name, "type": type_, "linked": is_linked}
            sockets.append(socket | ({"widget": {"name": name}} if is_widget else {}))
    return sockets, values


def _outputs(kind: Any) -> list[dict[str, Any]]:
    names = getattr(kind, "RETURN_NAMES", kind.RETURN_TYPES)
    return [{"name": name, "type": type_, "links": []} for name, type_ in zip(names, kind.RETURN_TYPES, strict=True)]


def _depth(graph: dict[str, Any], key: str) -> int:
    sources = [value[0] for value in graph[key]["inputs"].values() if isinstance(value, list)]
    return 1 + max((_depth(graph, source) for source in sources), default=-1)


def pages(kinds: dict[str, Any]) -> dict[str, str]:
    """The text of every file of `example_workflows`."""
    return {
        path.name: _text(page_graph(json.loads(path.read_text(encoding="utf-8")), kinds))
        for path in sorted((NODES / "api_workflows").glob("*.json"))
    }


def _text(graph: dict[str, Any]) -> str:
    """A node a line."""
    parts = {key: json.dumps(value) for key, value in graph.items()}
    parts["nodes"] = "[\n" + ",\n".join(map(json.dumps, graph["nodes"])) + "\n]"
    return "{" + ",\n".join(f'"{key}": {value}' for key, value in parts.items()) + "}\n"


def main() -> None:
    sys.path.insert(0, str(NODES.parents[1]))
    prepare(find_checkout(os.environ.get("COMFYUI")))
    import nodes

    from mg_diffusion.comfyui import NODE_CLASS_MAPPINGS

    for name, text in pages({**nodes.NODE_CLASS_MAPPINGS, **NODE_CLASS_MAPPINGS}).items():
        (NODES / "example_workflows" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
