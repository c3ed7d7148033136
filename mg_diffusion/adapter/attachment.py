"""The adapter's processors on a UNet for as long as calls need them, which several threads may share."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from .attention import MGAttnProcessor, restore_processors


PLACE = "_mg_attachment"  # of an `Attachment` in the `__dict__` of a UNet, for as long as there is one


class Attachment:
    """What all calls on one UNet share: keys and values come with each call, so that one set of processors serves all.

    The first call brings the processors, the last one takes them away again. A copy of the UNet that is made meanwhile
    begins with one of its own, that nobody uses.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.calls = 0
        self.is_over = False
        self.undo = contextlib.ExitStack()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def begin(self, unet: nn.Module, layers: Sequence[str], num_tokens: int) -> bool:
        """Whether a call may begin; not where the last one has just ended.

        Raises:
            ValueError, RuntimeError: where it cannot share what is attached.
        """
        with self.lock:
            if self.is_over:
                return False
            try:
                if self.calls:
                    self.check(num_tokens)
                else:
                    self._install(unet, layers, num_tokens)
                self.calls += 1
            finally:
                self._end_if_idle(unet)
        return True

    def end(self, unet: nn.Module) -> None:
        with self.lock:
            self.calls -= 1
            self._end_if_idle(unet)

    def check(self, num_tokens: int) -> None:
        """Raise a ValueError or RuntimeError where a further call cannot share what is attached."""
        with self.lock:
            if not self.calls:
                return
            if num_tokens != self.num_tokens:
                raise ValueError(
                    f"The UNet is at work with an adapter of {self.num_tokens} tokens a granularity, and this one has "
                    f"{num_tokens}. Wait for the other call, or give this pipeline a UNet of its own: "
                    f"`copy.deepcopy(pipe.unet)`."
                )
            if self.hands_out and self.thread != threading.get_ident():
                raise RuntimeError(
                    "The UNet, whose blocks are compiled one by one, is at work with references in another thread, and "
                    "such blocks know those of one call only. Wait for that call, give this pipeline a UNet of its own "
                    "(`copy.deepcopy(pipe.unet)` before it is compiled), or compile the UNet as a whole: `unet.compile()`."
                )

    def _install(self, unet: nn.Module, layers: Sequence[str], num_tokens: int) -> None:
        modules = dict(unet.named_modules())
        found = [modules[name] for name in layers]
        before = [(attn, attn.__dict__.get("processor")) for attn in found]
        own = [MGAttnProcessor(attn.processor, name, num_tokens) for attn, name in zip(found, layers, strict=True)]
        self.num_tokens, self.thread = num_tokens, threading.get_ident()

        def hand_out(unet: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            passed = dict(kwargs.get("cross_attention_kwargs") or {})
            folded = passed.pop("ip_hidden_states", {})
            for processor in own:
                processor.folded = folded.get(processor.layer)
            return args, {**kwargs, "cross_attention_kwargs": passed}

        # Blocks that are compiled one by one (`compile_repeated_blocks`) share one graph, which must not depend on the
        # name of a layer: it would be compiled anew for each.
        self.hands_out = any(module._compiled_call_impl is not None for module in unet.modules() if module is not unet)
        if self.hands_out:
            self.undo.callback(unet.register_forward_pre_hook(hand_out, with_kwargs=True).remove)
        self.undo.callback(restore_processors, before)
        for attn, processor in zip(found, own, strict=True):
            # Not `set_processor`: a processor with weights, as of an IP-Adapter, stays a module of the UNet, so that it
            # is moved, offloaded and saved with it; ours only hides it.
            attn.__dict__["processor"] = processor

    def _end_if_idle(self, unet: nn.Module) -> None:
        if not self.calls:
            self.is_over = True
            unet.__dict__.pop(PLACE, None)
            self.undo.close()


@contextlib.contextmanager
def attached(unet: nn.Module, layers: Sequence[str], num_tokens: int) -> Iterator[None]:
    """Processors on the layers of these names for the length of a `with` block.

    Raises:
        ValueError, RuntimeError: where a call is at work on the UNet that this one cannot share it with.
    """
    attachment = unet.__dict__.setdefault(PLACE, Attachment())
    while not attachment.begin(unet, layers, num_tokens):
        attachment = unet.__dict__.setdefault(PLACE, Attachment())
    try:
        yield
    finally:
        attachment.end(unet)


def check_free(unet: nn.Module, num_tokens: int) -> None:
    """Raise what `attached` would, before anything is computed."""
    attachment = unet.__dict__.get(PLACE)
    if attachment is not None:
        attachment.check(num_tokens)
