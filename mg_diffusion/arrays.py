"""Arrays and numbers as people have them, of numpy or torch, as plain ones."""

import math
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np


def is_tensor(given: Any) -> bool:
    """Whether something is a tensor of torch, which need not be imported to tell."""
    return any(kind.__module__ == "torch" and kind.__name__ == "Tensor" for kind in type(given).__mro__)


def is_array(given: Any) -> bool:
    return isinstance(given, np.ndarray) or is_tensor(given)


def plain_number(value: Any) -> float | None:
    """A number of Python, numpy or torch as an `int` or a `float`; `None` for all else: text, true and false, NaN, infinity.

    Those of numpy are not for computing: of narrow types they wrap around without a word.
    """
    try:
        value = value.item() if is_array(value) and value.ndim == 0 else value
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (Real, Decimal)):
            return None
        number = int(value) if isinstance(value, Integral) else float(value)
        return number if math.isfinite(number) else None
    except (RuntimeError, ValueError, OverflowError):  # a tensor without data, or more than a float holds
        return None


def whole_number(value: Any) -> int | None:
    """As `plain_number`, of whole numbers alone: no 2.0."""
    number = plain_number(value)
    return number if isinstance(number, int) else None


def check_count(value: Any, name: str = "num_images_per_prompt") -> int:
    """How many, as a whole number, or a ValueError for what is no number of them."""
    count = whole_number(value)
    if count is None or count < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {value!r}.")
    return count


def holds_numbers(tensor: Any) -> bool:
    """Whether a tensor of torch has data, of real and finite numbers."""
    try:
        return not tensor.is_complex() and bool(tensor.float().isfinite().all())
    except (RuntimeError, NotImplementedError):  # without data, or of a layout that cannot be read
        return False


def check_tensor(value: Any, name: str, shape: tuple[int | str, ...], source: str = "") -> None:
    """Raise a ValueError unless this is a tensor of torch of this shape, of finite numbers.

    Args:
        shape: a word stands for any number of them but none.
        source: what such a tensor comes from.
    """
    wanted = f"`{name}` must be a tensor of the shape ({', '.join(map(str, shape))}){source and f' from `{source}`'}"
    if not is_tensor(value):
        remedy = f" Pass `torch.from_numpy({name})`." if is_array(value) else ""
        raise ValueError(f"{wanted}, got {type(value).__name__}.{remedy}")
    sides = tuple(value.shape)
    if len(sides) != len(shape) or not all(
        side > 0 if isinstance(one, str) else side == one for side, one in zip(sides, shape, strict=True)
    ):
        raise ValueError(f"{wanted}, got {sides}.")
    if not holds_numbers(value):
        raise ValueError(f"{wanted}, of finite numbers; got some that are none, as NaN and infinite ones.")


def as_numbers(array: Any, name: str) -> np.ndarray:
    """An array of any memory layout, byte order, device and type of torch as one of numpy that may be written to.

    Args:
        array: of numpy or torch; bool, integers or floating point.
        name: of what it is, for messages.

    Raises:
        ValueError: for what holds no numbers, or hides some.
    """
    if is_tensor(array):
        try:
            array = array.detach().cpu().to_dense()
            array = (array.float() if array.is_floating_point() else array).numpy()
        except (RuntimeError, TypeError, NotImplementedError) as error:
            raise ValueError(
                f"{name} must hold numbers, got a tensor that cannot be read: {error}. Pass a plain one, such as "
                f"`tensor.float().cpu()`."
            ) from error
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(
            f"{name} must hold numbers, got a masked array. Say what stands for the rest: `array.filled(0)`."
        )
    if array.dtype.kind not in "buif":
        raise ValueError(
            f"{name} must be an array of numbers (bool, integers or floating point), got {array.dtype}. Convert it first, "
            f"for example with `array.astype('float32')`."
        )
    dtype = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.float64  # torch has no longer ones
    # A copy: torch takes no negative strides, foreign byte orders or, without a warning, read-only memory.
    return np.array(array, dtype=dtype, order="C", subok=False)
