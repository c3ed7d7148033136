"""Callbacks: what may be called after a step, and what it may hand back."""

from typing import Any

import torch

from ..arrays import check_tensor


ROWS = ("latents", "mask", "masked_image_latents")  # with one row for each picture, and always of the same size


class CalledBack:
    """A call that asks a callback after each step."""

    def check_callback(self, callback: Any, asked: Any) -> None:
        """Raise a ValueError for a callback that cannot be called, or that asks for tensors that are none."""
        if callback is not None and not callable(callback):
            raise ValueError(
                f"`callback_on_step_end` is a function of pipeline, step, timestep and tensors, or `None`; got {callback!r}."
            )
        known = self._callback_tensor_inputs
        unknown = [name for name in asked if name not in known] if isinstance(asked, (list, tuple)) else asked
        if not isinstance(asked, (list, tuple)) or unknown:
            raise ValueError(f"`callback_on_step_end_tensor_inputs` must be some of {known}, got {unknown!r}.")

    def call_back(self, call: Any, i: int, t: torch.Tensor) -> None:
        """Hand the tensors that were asked for to the callback, and take those that it returns."""
        tensors = {name: getattr(call, name) for name in call.given.callback_on_step_end_tensor_inputs}
        changed = call.given.callback_on_step_end(self, i, t, tensors)
        if not isinstance(changed, dict):
            raise ValueError(
                f"`callback_on_step_end` returns a dict of the tensors that it changes, `{{}}` if none; got {changed!r:.80}."
            )
        # One that switches guidance off may leave out the rows that only guidance reads.
        rows = call.count * (1 + int(self.do_classifier_free_guidance))
        for name in self._callback_tensor_inputs:
            before = getattr(call, name)
            value = changed.pop(name, before)
            if value is not before:
                check_changed(name, before, value, rows)
                setattr(call, name, value)


def check_changed(name: str, before: torch.Tensor | None, value: Any, rows: int) -> None:
    """Raise a ValueError for a tensor of a callback that cannot take the place of the one before.

    Args:
        rows: of what the UNet reads beside the latents, at least.
    """
    told = f"{name}` of `callback_on_step_end"
    if before is None:
        raise ValueError(f"`{told}` cannot be replaced: this call has none. Leave it out of what is returned.")
    if name in ROWS:
        check_tensor(value, told, tuple(before.shape))
    else:
        middle = ("tokens",) * (before.ndim - 2)
        check_tensor(value, told, ("rows", *middle, before.shape[-1]))
        if len(value) < rows and name != "negative_prompt_embeds":  # which is read before the first step
            raise ValueError(
                f"`{told}` must have at least {rows} rows, one for each that the UNet reads; got {len(value)}. Keep the last {rows}."
            )
    if value.dtype != before.dtype or value.device != before.device:
        raise ValueError(
            f"`{told}` must be of {before.dtype} on {before.device}, got {value.dtype} on {value.device}. Return "
            f"`tensor.to(before)` of the one it was given."
        )
