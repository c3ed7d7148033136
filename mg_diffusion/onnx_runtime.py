"""The networks of a pipeline computed by ONNX Runtime on a CPU: `load_pipeline(..., runtime="onnxruntime")`.

A network is exported once for each form of its inputs: size, number of pictures, which references there are. That takes from
seconds to half a minute; the graph is then kept in the cache of huggingface_hub, where the next process finds it.
What a graph does not do, torch does as before: gradients (of feature guidance), LoRAs, IP-Adapters, FreeU, offloading. Networks on
a GPU or in half precision are refused, and where they get there later a warning tells that torch computes them.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import inspect
import logging
import os
import shutil
import tempfile
import threading
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from huggingface_hub import cached_assets_path
from torch.utils._pytree import tree_flatten, tree_unflatten

from . import __version__


NEEDED = ("onnxruntime", "onnx", "onnxscript")
MOST_GRAPHS = 8  # of a network in memory, each with weights of its own
STOCK = ("AttnProcessor", "AttnProcessor2_0", "MGAttnProcessor")  # by name: those of a repository's own code, too
PLACE = "mg_diffusion", "onnx", "graphs"
WRITING = threading.Lock()  # the exporter of torch serves one at a time
OUTPUTS = {UNet2DConditionModel: UNet2DConditionOutput, UNet2DModel: UNet2DOutput}
Run = Callable[[list[torch.Tensor]], torch.Tensor]


def use_onnx_runtime(pipe: Any) -> Any:
    """Let ONNX Runtime compute the UNet and the detail network of a pipeline; the pipeline itself, for chaining.

    Of all pipelines that share these networks. `del pipe.unet.forward` (and that of `pipe.mg_detail`) undoes it.

    Raises:
        ValueError: if a package that this needs is not installed, the pipeline has no such network, or is offloaded, on a GPU or
            in half precision.
    """
    networks = [getattr(pipe, name, None) for name in ("unet", "mg_detail")]
    known = [one for one in networks if type(one) in OUTPUTS]
    if not known:
        raise ValueError(f"{type(pipe).__name__} must have a UNet of diffusers that is not compiled, and has none.")
    for network in known:
        if not isinstance(network.__dict__.get("forward"), (OnnxForward, type(None))):
            raise ValueError(
                f"Something else stands for the forward of {type(network).__name__} already, such as offloading or a hook. Call "
                f"`use_onnx_runtime` on a pipeline without it, that is before `enable_model_cpu_offload` and the like."
            )
        if found := out_of_reach(network):
            raise ValueError(
                f"ONNX Runtime computes on a CPU in float32, and {type(network).__name__} of the pipeline is {found}. Bring it there "
                f'by `pipe.to("cpu", torch.float32)`, or leave ONNX Runtime out: torch computes it where it is.'
            )
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"The runtime onnxruntime needs {', '.join(missing)}: pip install 'mg-diffusion[onnx]', or leave `runtime` out."
        )
    for network in known:
        network.forward = OnnxForward(network)
    return pipe


def out_of_reach(network: torch.nn.Module) -> str:
    """Where the weights of a network lie, or their type, if ONNX Runtime does not compute there; else nothing."""
    weight = next(network.parameters())
    if weight.device.type != "cpu":
        return f"on {weight.device}"
    return "" if weight.dtype == torch.float32 else f"in {str(weight.dtype).removeprefix('torch.')}"


class Graph(torch.nn.Module):
    """The prediction of a network as a function of tensors alone; all else that it was called with stays as it is."""

    def __init__(self, network: torch.nn.Module, forward: Callable[..., Any], leaves: list[Any], form: Any):
        super().__init__()
        self.network = network
        self.called = forward, leaves, form

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        forward, leaves, form = self.called
        given = iter(tensors)
        arguments = tree_unflatten([next(given) if torch.is_tensor(one) else one for one in leaves], form)
        return forward(**arguments, return_dict=False)[0]


class OnnxForward:
    """Stands for the `forward` of a network, with the graphs of it that there are; `load` brings a graph into a runtime."""

    def __init__(self, network: torch.nn.Module, load: Callable[[Path], Run] | None = None):
        self.network, self.load = network, load or in_onnx_runtime
        self.stock = types.MethodType(type(network).forward, network)
        self.signature = inspect.signature(self.stock)
        self.graphs: dict[Any, Run | None] = {}
        self.weights: Any = None
        self.told = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.network, self.load)  # a copy of the network begins without graphs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = dict(self.signature.bind(*args, **kwargs).arguments)
        returns_dict = arguments.pop("return_dict", True)
        leaves, form = tree_flatten(arguments)
        tensors = [one for one in leaves if torch.is_tensor(one)]
        run = self.run_for(leaves, form, tensors) if self.is_plain(tensors) else None
        if run is None:
            return self.stock(*args, **kwargs)
        found = run(tensors)
        return OUTPUTS[type(self.network)](sample=found) if returns_dict else (found,)

    def is_plain(self, tensors: list[torch.Tensor]) -> bool:
        """Whether a graph would compute what torch does."""
        network = self.network
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return False
        if network.training or getattr(network, "peft_config", None):
            return False
        if found := out_of_reach(network):
            self.tell(found)
            return False
        if any(one.device.type != "cpu" or one.dtype not in (torch.float32, torch.int64) for one in tensors):
            return False
        return all(_is_stock(module) for module in network.modules() if module is not network)

    def tell(self, found: str) -> None:
        """Warn, once, of a network that got to where ONNX Runtime does not compute."""
        if found != self.told:
            self.told = found
            warnings.warn(
                f"{type(self.network).__name__} is {found} by now, where torch computes it: ONNX Runtime computes on a CPU in "
                f'float32. `pipe.to("cpu", torch.float32)` brings it back.',
                stacklevel=4,
            )

    def run_for(self, leaves: list[Any], form: Any, tensors: list[torch.Tensor]) -> Run | None:
        """The graph for inputs of this form; `None` where it could not be exported."""
        weights = [_trace_of(one) for one in self.network.parameters()]
        shapes = [(tuple(one.shape), str(one.dtype)) for one in tensors]
        tokens = [getattr(m.processor, "num_tokens", 0) for m in self.network.modules() if hasattr(m, "processor")]
        others = [one for one in leaves if not torch.is_tensor(one)]
        key = f"{form} {others} {shapes} {tokens}"
        threads = torch.get_num_threads()  # those of a session, not of a graph
        with WRITING:
            if (weights, threads) != self.weights:  # what was exported before is of other weights
                self.graphs.clear()
                self.weights = weights, threads
            if key not in self.graphs:
                while len(self.graphs) >= MOST_GRAPHS:
                    del self.graphs[next(iter(self.graphs))]
                self.graphs[key] = self.prepare(key, leaves, form, tensors)
            return self.graphs[key]

    def prepare(self, key: str, leaves: list[Any], form: Any, tensors: list[torch.Tensor]) -> Run | None:
        """The graph, from the cache or exported into it."""
        graph = Graph(self.network, self.stock, leaves, form).eval()
        name = digest(self.network, key)
        try:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    root = cached_assets_path(*PLACE)
                    if (root / name).is_dir() and (run := self.load_kept(root / name)):
                        return run
                    part = Path(tempfile.mkdtemp(dir=root))
                except OSError:  # a home that cannot be written to
                    root, part = None, Path(folder)
                try:
                    export(graph, tensors, part)
                    run = self.load(part)
                    if root is not None:
                        with contextlib.suppress(OSError):  # another process was faster
                            os.replace(part, root / name)
                finally:
                    if root is not None:
                        shutil.rmtree(part, ignore_errors=True)
                return run
        except Exception as error:  # of exporter or runtime, which know many
            warnings.warn(
                f"{type(self.network).__name__} could not be exported for ONNX Runtime, torch computes it: {error}",
                stacklevel=2,
            )
            return None

    def load_kept(self, folder: Path) -> Run | None:
        """A graph of the cache; a damaged one, of a full disk or a copy that stopped, is taken out of it: `None`."""
        try:
            return self.load(folder)
        except Exception as error:  # of the runtime, which knows many
            warnings.warn(
                f"The graph of {type(self.network).__name__} in {str(folder)!r} is damaged and is made anew: {error}",
                stacklevel=6,
            )
            shutil.rmtree(folder, ignore_errors=True)
            return None


def _trace_of(parameter: torch.nn.Parameter) -> tuple[Any, ...]:
    """What tells that a parameter changed: merged LoRAs and averages write to its data, which counts no version."""
    flat = parameter.detach().flatten()
    probe = flat[[0, len(flat) // 3, len(flat) // 2, -1]].tolist() if len(flat) else []
    return parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version, *probe


def _is_stock(module: torch.nn.Module) -> bool:
    """Whether a part of a network does what its class says."""
    if module._compiled_call_impl is not None:  # block by block
        return False
    if "forward" in module.__dict__ or module._forward_hooks or module._forward_pre_hooks:  # offloading, observers
        return False
    if getattr(module, "s1", None) is not None:  # FreeU
        return False
    processor = getattr(module, "processor", None)
    return all(type(one).__name__ in STOCK for one in (processor, getattr(processor, "base", None)) if one is not None)


def digest(network: torch.nn.Module, key: str) -> str:
    """The name of a graph: of weights, form of inputs, and versions of all that writes it."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers", *NEEDED)}
    settings = sorted((name, repr(value)) for name, value in network.config.items())
    found = hashlib.sha256(f"{key} {versions} {__version__} {type(network).__name__} {settings}".encode())
    for name, one in network.state_dict().items():
        found.update(name.encode())
        found.update(one.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:32]


def export(graph: Graph, tensors: list[torch.Tensor], folder: Path) -> None:
    names = [f"input_{i}" for i in range(len(tensors))]
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it reports packages that are not needed
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            file = str(folder / "graph.onnx")
            torch.onnx.export(graph, tuple(tensors), file, input_names=names, dynamo=True, verbose=False)
    finally:
        log.setLevel(level)


def in_onnx_runtime(folder: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # torch computes between its calls
    session = onnxruntime.InferenceSession(str(folder / "graph.onnx"), options, providers=["CPUExecutionProvider"])
    read = [(one.name, int(one.name.removeprefix("input_"))) for one in session.get_inputs()]

    def run(tensors: list[torch.Tensor]) -> torch.Tensor:
        arrays = {name: tensors[i].detach().contiguous().numpy() for name, i in read}
        return torch.from_numpy(session.run(None, arrays)[0])

    return run
