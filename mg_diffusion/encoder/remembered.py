"""What was computed of the same pixels before: looking at a reference takes longer than painting with it."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch


class Remembered:
    """Results of pure functions of tensors, by the content of what they were given.

    Beyond `most_bytes` those that were used least recently are forgotten. Where gradients are wanted nothing is kept. Copies
    and pickles of it are empty. Threads may share it; at worst they compute the same twice.
    """

    def __init__(self, most_bytes: int = 32 << 20):
        self.most_bytes = most_bytes
        self.results: OrderedDict[str, Any] = OrderedDict()
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.most_bytes,)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(*arguments)`: a tensor or a dict of tensors, which nobody may change in place.

        Args:
            function: a function of its arguments alone, of another name than all others.
            arguments: tensors, and what `repr` tells apart.
        """
        if torch.is_grad_enabled() and any(torch.is_tensor(one) and one.requires_grad for one in arguments):
            return function(*arguments)
        key = _key(function, arguments)
        found = self.results.get(key)
        if found is None:
            found = function(*arguments)
        with self.lock:
            self._keep(key, found)
        return dict(found) if isinstance(found, dict) else found

    def _keep(self, key: str, found: Any) -> None:
        """As what was used last."""
        if _bytes_of(found) <= self.most_bytes:
            self.results[key] = found
            self.results.move_to_end(key)
        while sum(map(_bytes_of, self.results.values())) > self.most_bytes:
            self.results.popitem(last=False)


def _bytes_of(found: Any) -> int:
    return sum(one.nbytes for one in (found.values() if isinstance(found, dict) else [found]))


def _key(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    """Of the content of the arguments, and of what else a result of torch depends on."""
    digest = hashlib.blake2b(digest_size=16)
    # A tensor of inference mode is refused by autograd, and autocast rounds.
    state = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
    digest.update(repr((function.__qualname__, state, torch.get_default_dtype())).encode())
    for one in arguments:
        if torch.is_tensor(one):
            digest.update(f"{tuple(one.shape)} {one.dtype} {one.device}".encode())
            digest.update(one.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        else:
            digest.update(repr(one).encode())
    return digest.hexdigest()
