"""What a caller has set for tensors that name no device, and that it is nothing to what is computed here."""

import contextlib

import torch


def on_cpu() -> contextlib.AbstractContextManager:
    """A block in which tensors that name no device lie on the CPU, whatever is the default.

    Where that is the default nothing is entered: it would cost each call of torch some time.
    """
    return contextlib.nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
