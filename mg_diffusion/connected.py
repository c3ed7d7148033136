"""What is connected in a small picture: by neighbors with no edge between them, and what such a thing encloses."""

import torch


EDGE = 4.0  # Delta-E between neighboring cells that nothing leads across, lightness counted half
GAP = 2  # cells beyond what is connected: the grain of wood is no edge of a thing


def connected(smooth: torch.Tensor, start: torch.Tensor, within: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The cells (h, w) `within` others that `start` leads to without an edge; and those, too, that lie `GAP` cells beyond.

    Args:
        smooth: (1, 3, h, w) Lab, its edges kept, in `half_light`.
    """
    steps = tuple((smooth.diff(dim=axis).square().sum(1)[0].sqrt() < EDGE) for axis in (3, 2))
    found = flooded(start & within, within, steps)
    around = flooded(found, within, rounds=GAP)
    closed = around & ~flooded(~around, torch.ones_like(within), rounds=1)
    return closed | found, around


def flooded(
    start: torch.Tensor,
    within: torch.Tensor,
    steps: tuple[torch.Tensor, torch.Tensor] | None = None,
    rounds: int | None = None,
) -> torch.Tensor:
    """The cells (h, w) that neighbors lead to from `start`, `within` others; to the end, or so many times.

    Args:
        steps: between which neighbors, across (h, w - 1) and along (h - 1, w); between all if not given.
    """
    across, along = steps or (True, True)
    count, turn = -1, 0
    while turn != rounds and (turn % 8 or (now := int(start.sum())) > count):  # a look now and then
        count, turn = (now if turn % 8 == 0 else count), turn + 1
        found = start.clone()
        found[:, 1:] |= start[:, :-1] & across
        found[:, :-1] |= start[:, 1:] & across
        found[1:] |= start[:-1] & along
        found[:-1] |= start[1:] & along
        start = found & within
    return start
