"""Graphs in the API format, run by ComfyUI's own executor; helpers that put tensors in and take results out."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import execution
import torch


GIVEN: dict[str, Any] = {}
TAKEN: dict[str, Any] = {}


class Give:
    """Whatever a test wants to connect, under a name."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "give", ("*",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": ("STRING", {})}}

    @classmethod
    def IS_CHANGED(cls, name):
        return float("nan")

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    def give(self, name):
        return (GIVEN[name],)


class Take:
    """Any output, for the test to read."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "test", "take", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*", {}), "name": ("STRING", {})}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    def take(self, value, name):
        TAKEN[name] = value["samples"] if isinstance(value, dict) and "samples" in value else value
        return {}


class AnyType(str):
    """Equal to every type of a socket, as ComfyUI's validation compares them."""

    def __ne__(self, other):
        return False

    __hash__ = str.__hash__


Give.RETURN_TYPES = (AnyType("*"),)
HELPERS = {"TestGive": Give, "TestTake": Take}


class Server:
    """What the executor tells its page; there is none."""

    client_id = last_node_id = last_prompt_id = None

    def send_sync(self, event, data, sid=None):
        pass


class GraphError(Exception):
    """What ComfyUI shows in red."""


class Comfy:
    def __init__(self, root: Path):
        self.root = root

    def run(self, graph: dict[str, Any]) -> dict[str, Any]:
        """Validate and execute; returns what the page would be shown, by node.

        Raises:
            GraphError: with the message of the node that failed.
        """
        name = str(uuid.uuid4())
        valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt(name, graph, None))
        if not valid:
            raise GraphError(f"{error} {node_errors}")
        executor = execution.PromptExecutor(Server())
        executor.execute(graph, name, {}, outputs)
        if not executor.success:
            raise GraphError(executor.status_messages[-1][1]["exception_message"])
        return executor.history_result["outputs"]

    def node(self, kind: str, output: int = 0, **inputs: Any) -> Any:
        """The output of one of our nodes; tensors and other objects among its inputs are given by helpers."""
        graph: dict[str, Any] = {"node": {"class_type": kind, "inputs": {}}}
        for key, value in inputs.items():
            if isinstance(value, (torch.Tensor, dict)) or type(value).__name__ == "Networks":
                GIVEN[key] = value
                graph[key] = {"class_type": "TestGive", "inputs": {"name": key}}
                value = [key, 0]
            graph["node"]["inputs"][key] = value
        graph["take"] = {"class_type": "TestTake", "inputs": {"value": ["node", output], "name": "result"}}
        self.run(graph)
        return TAKEN["result"]
