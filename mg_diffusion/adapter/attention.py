"""Decoupled cross-attention on a stock UNet: keys and values folded with its projections, and the processors."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


# Keys and values by layer; where references have regions, also whose each position is, (B, positions, sets).
FoldedAttention = dict[str, tuple[torch.Tensor, ...]]


class MGAttnProcessor:
    """Adds the granularities to one cross-attention layer; the layer's own processor still does the rest.

    The folded keys and values arrive with each call as `ip_hidden_states` (one of the names diffusers passes through
    `cross_attention_kwargs` without a warning); without them the layer behaves as before.
    """

    _attention_backend = None
    _parallel_config = None

    def __init__(self, base: Any, layer: str, num_tokens: int):
        self.base = base
        self.layer = layer
        self.num_tokens = num_tokens
        self.folded = None  # where it is handed out instead of passed on, see `MGAdapter.attach`
        self.takes_masks = "ip_adapter_masks" in inspect.signature(base.__call__).parameters

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.base,)  # copies and pickles of a UNet at work are those of the stock one

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        ip_hidden_states: FoldedAttention | None = None,
        ip_adapter_masks: Any = None,
    ) -> torch.Tensor:
        # Only what is given and taken: a sliced processor has no `temb`, that of an IP-Adapter has masks.
        extra = {} if temb is None else {"temb": temb}
        if self.takes_masks and ip_adapter_masks is not None:
            extra["ip_adapter_masks"] = ip_adapter_masks
        output = self.base(attn, hidden_states, encoder_hidden_states, attention_mask, **extra)
        folded = self.folded if ip_hidden_states is None else ip_hidden_states[self.layer]
        if folded is None:
            return output
        key, value, *shares = folded
        scores = hidden_states @ key  # (B, positions, heads * sets * granularities * tokens)
        weights = scores.unflatten(2, (-1, self.num_tokens)).softmax(-1)
        if shares:
            heads, sets = attn.heads, shares[0].shape[2]
            weights = weights.flatten(2).unflatten(2, (heads, sets, -1)) * shares[0][:, :, None, :, None]
        weights = weights.flatten(2)
        return output + (weights @ value) / attn.rescale_output_factor


def _itself(processor: Any) -> Any:
    return processor


def restore_processors(before: Sequence[tuple[nn.Module, Any]]) -> None:
    """Attention layers with what stood in their `__dict__`; `None` is a processor with weights, which is a submodule."""
    for attn, processor in before:
        attn.__dict__.pop("processor", None)
        if processor is not None:
            attn.__dict__["processor"] = processor


def attention_layers_of(unet: nn.Module) -> list[dict[str, Any]]:
    """The cross-attention layers that read the text, in the order of the UNet's modules."""
    return [
        {"name": name, "query_dim": attn.query_dim, "inner_dim": attn.inner_dim, "heads": attn.heads}
        for name, attn in unet.named_modules()
        if name.endswith("attn2")
    ]


def check_weights_in_memory(unet: nn.Module) -> None:
    """Raise a ValueError where group offloading keeps whole blocks on disk; a single layer is loaded when it is called."""
    registries = [getattr(module, "_diffusers_hook", None) for module in unet.modules()]
    hooks = [registry.get_hook("group_offloading") for registry in registries if registry is not None]
    configs = [hook.config for hook in hooks if hook is not None]
    if any(c.offload_to_disk_path is not None and c.offload_type.value == "block_level" for c in configs):
        raise ValueError(
            "The UNet's blocks are offloaded to disk, where the adapter cannot read their projections. Use "
            '`offload_type="leaf_level"`, or leave `offload_to_disk_path` out.'
        )


def effective_weight(linear: nn.Module, in_features: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The matrix (out, in) a projection applies in `dtype`, adapters such as LoRA included, on `device`."""
    reference = next(linear.parameters(), None)  # a module that torch quantized has none
    is_meta = reference is not None and reference.is_meta
    is_plain = type(linear) is nn.Linear and type(linear.weight) is nn.Parameter and linear.weight.dtype == dtype
    if is_plain and not is_meta and not hasattr(linear, "_diffusers_hook"):
        return linear.weight.to(device)  # elsewhere where the model is offloaded
    # Read by what it does. Quantized weights are stored in another form or type; what is offloaded layer by layer is
    # there only during a call, on the device that computes.
    place = device if reference is None or is_meta else reference.device
    identity = torch.eye(in_features, dtype=dtype, device=place)
    return (linear(identity) - linear(torch.zeros_like(identity[:1]))).T.to(device)
