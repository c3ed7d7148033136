"""A texture canvas out of shuffled tiles."""

import math
from itertools import product

import torch


OVERLAP = 4  # a fourth of a tile, 6 pixels of 24


def lay_tiles(tiles: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Quilt texture tiles (B, K, p, p) over a canvas (B, 1, height, width), in encoder pixels.

    In each place, row by row, the tile goes that fits best to what already lies there, tiles used before being dearer.
    Neighbors overlap by a fourth and are blended so that the contrast is kept where uncorrelated pieces meet. (Efros
    and Freeman, "Image quilting for texture synthesis and transfer", SIGGRAPH 2001, with a blend for their cut.)
    """
    batch, size = len(tiles), tiles.shape[2]
    overlap = size // OVERLAP
    stride = size - overlap
    rows, columns = (max(1, math.ceil((side - overlap) / stride)) for side in (height, width))
    canvas = tiles.new_zeros(batch, rows * stride + overlap, columns * stride + overlap)
    ramp = (torch.arange(overlap, device=tiles.device) + 1).to(tiles) / (overlap + 1)
    used, price = tiles.new_zeros(tiles.shape[:2]), tiles.var((1, 2, 3))
    every = torch.arange(batch, device=tiles.device)
    for row, column in product(range(rows), range(columns)):
        place = (..., slice(row * stride, row * stride + size), slice(column * stride, column * stride + size))
        laid, cost, share = canvas[place], used, tiles.new_ones(size, size)
        if row:
            above = slice(0, overlap)
            cost = cost + (tiles[:, :, above] - laid[:, None, above]).square().mean((2, 3))
            share[above] *= ramp[:, None]
        if column:
            left = (..., slice(0, overlap))
            cost = cost + (tiles[left] - laid[:, None][left]).square().mean((2, 3))
            share[left] *= ramp
        chosen = cost.argmin(1)
        used = used.index_put((every, chosen), price, accumulate=True)
        blend = share * tiles[every, chosen] + (1 - share) * laid
        canvas[place] = blend / (share.square() + (1 - share).square()).sqrt()
    return canvas[:, None, :height, :width]
