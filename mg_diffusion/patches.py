"""Patches of a picture that look like those over its hole: PatchMatch (Barnes et al., SIGGRAPH 2009), all patches at once.

Every 5 x 5 patch that touches the hole looks for the most similar one that does not: what its neighbors found, shifted, and
places at random around what it found itself. The pixels of the hole then become what the patches over them found.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F


RADIUS = 2  # of a patch
SIDE = 2 * RADIUS + 1
JUMPS = (1, 2, 1)  # pixels to the neighbors that are asked, in turn
CHUNK = 1 << 16  # patches that are compared at once
KNOWN = 7.0  # how much a known pixel of a patch counts beside one of the hole: what goes on has to fit its edge
LEAST_WEIGHT = 1e-6  # of a patch that fits badly: some pixels have no other
ROOM = 0.5  # of how far a hole reaches beyond what is known: so far from its edge nothing is far
COMPARED = 512  # patches, at least, that others are compared with to tell which are rare
LIKENESSES = 20  # of them that are like one which is not


class PatchLevel:
    """One picture of a pyramid, its hole, and where each patch over the hole has its likeness.

    Attributes:
        picture: (H, W, C), what is compared and voted for; its hole is filled in place.
        hole: (H, W) bool.
        targets: (N,) the middles of the patches over the hole, as y W + x; `found`: (N,) those of their likenesses.
        errors: (N,) squared differences, and what it costs that a likeness is far.

    Args:
        nearness: how much the distance between a patch and its likeness costs, squared, as a share of the longer side: a sky
            goes on as it is beside the hole, not as it is above. Around a picture it is that to the nearest edge.

    Raises:
        ValueError: if there is no patch without hole.
    """

    def __init__(self, picture: torch.Tensor, hole: torch.Tensor, nearness: float = 0.0):
        self.picture, self.hole = picture.clone(), hole
        self.height, self.width, self.channels = picture.shape
        inner = torch.zeros_like(hole)
        inner[RADIUS:-RADIUS, RADIUS:-RADIUS] = True
        touched = grown(hole, RADIUS)
        self.is_source = (inner & ~touched).flatten()
        if not self.is_source.any():
            raise ValueError("There is no patch without hole.")
        self.targets = (inner & touched).flatten().nonzero().flatten()
        self.number = torch.full((hole.numel(),), -1)  # of the target with this middle
        self.number[self.targets] = torch.arange(len(self.targets))
        across = torch.arange(-RADIUS, RADIUS + 1)
        self.rows = across * self.width - RADIUS  # where the rows of a patch begin, from its middle
        self.offsets = (across[:, None] * self.width + across).flatten()
        weights = (
            torch.full(hole.shape, KNOWN, dtype=torch.float32)
            .masked_fill(hole, 1.0)
            .flatten()[self.targets[:, None] + self.offsets]
        )
        self.weights = SIDE**2 * weights / weights.sum(1, keepdim=True)  # (N, 25) of the pixels of each target
        self.found = self.errors = self.strips = None
        self.nearness = nearness / max(self.height, self.width) ** 2
        self._anchor()

    def _anchor(self) -> None:
        """Where likenesses of each target are near, (N,) rows and columns: itself or, beyond what is known, the edge of that."""
        own = self.targets // self.width, self.targets % self.width
        known = extents(~self.hole)
        self.anchors = [place.clamp(first, end - 1) for place, (first, end) in zip(own, known, strict=True)]
        beyond = max(int((place - edge).abs().max()) for place, edge in zip(own, self.anchors, strict=True))
        self.room = ROOM * beyond

    # -- beginning ----------------------------------------------------------------------------------------------------
    def carry(self, smaller: "PatchLevel", generator: torch.Generator) -> None:
        """Begin with the places that a picture of half the size found."""
        y, x = self.targets // self.width, self.targets % self.width
        above = (y // 2).clamp(RADIUS, smaller.height - RADIUS - 1)
        number = smaller.number[above * smaller.width + (x // 2).clamp(RADIUS, smaller.width - RADIUS - 1)]
        place = smaller.found[number]
        y = (2 * (place // smaller.width) + y % 2).clamp(max=self.height - 1)
        x = (2 * (place % smaller.width) + x % 2).clamp(max=self.width - 1)
        carried, sources = y * self.width + x, self.is_source.nonzero().flatten()
        drawn = sources[torch.randint(len(sources), (len(self.targets),), generator=generator)]
        self.found = torch.where((number >= 0) & self.is_source[carried], carried, drawn)
        self.errors = torch.where(number >= 0, smaller.errors[number], smaller.errors.max())
        self.vote()

    def peel(self, rarity: float = 0.0) -> None:
        """Fill the hole ring by ring from its edge, with the patches most like what is known there: all are compared.

        (Onion peel: Newson et al., "Video inpainting of complex scenes", SIIMS 2014.)

        Args:
            rarity: how much it counts against a patch that the picture has no second one like it.
        """
        pixels, known = self.picture.view(-1, self.channels), ~self.hole
        sources = self.is_source.nonzero().flatten()
        shown = pixels[sources[:, None] + self.offsets].flatten(1)
        rare = rarity * _rarity(shown) if rarity else 0.0
        self.found, self.errors = (
            sources[:1].repeat(len(self.targets)),
            torch.ones(len(self.targets), dtype=torch.float32),
        )
        while not known.all():
            ring = ~known & grown(known, 1)
            y, x = ring.nonzero().T
            middles = y.clamp(RADIUS, self.height - RADIUS - 1) * self.width + x.clamp(RADIUS, self.width - RADIUS - 1)
            middles = middles.unique()
            places = middles[:, None] + self.offsets
            weight = known.flatten()[places].repeat_interleave(self.channels, 1).float()
            distance = weight @ shown.square().T - 2 * (weight * pixels[places].flatten(1)) @ shown.T
            nearest = torch.full_like(self.number, -1)
            cost = rare + self._far(self.number[middles][:, None], sources)
            nearest[middles] = sources[(distance + weight.mean(1, keepdim=True) * cost).argmin(1)]
            self.found[self.number[middles]] = nearest[middles]
            at = ring.flatten().nonzero().flatten()
            total, count = (
                torch.zeros(len(at), self.channels, dtype=torch.float32),
                torch.zeros(len(at), 1, dtype=torch.float32),
            )
            for offset in self.offsets.tolist():
                source = nearest[(at - offset).clamp(0, len(nearest) - 1)]
                total += torch.where(source[:, None] >= 0, pixels[(source + offset).clamp(0, len(pixels) - 1)], 0.0)
                count += source[:, None] >= 0
            pixels[at] = total / count.clamp(min=1)
            known = known | ring

    # -- search -------------------------------------------------------------------------------------------------------
    def search(self, generator: torch.Generator, radius: int) -> None:
        """One round: the neighbors' likenesses, and places at random up to `radius` pixels from what is found."""
        pixels = F.pad(self.picture.flatten(), (0, self.channels * (SIDE - 1)))
        self.strips = pixels.unfold(0, self.channels * SIDE, self.channels).contiguous()  # 5 pixels from each one on
        self.errors = self._compare(torch.arange(len(self.targets)), self.found)
        for jump in JUMPS:
            for step in (jump, -jump, jump * self.width, -jump * self.width):
                neighbor = self.number[(self.targets + step).clamp(0, len(self.number) - 1)]
                self._try(self.found[neighbor] - step, neighbor >= 0)
        while radius >= 1:
            moves = torch.randint(-radius, radius + 1, (2, len(self.found)), generator=generator)
            y, x = self.found // self.width + moves[0], self.found % self.width + moves[1]
            self._try(y * self.width + x, (y >= 0) & (y < self.height) & (x >= 0) & (x < self.width))
            radius //= 2
        self.strips = None

    def _try(self, sources: torch.Tensor, is_tried: torch.Tensor) -> None:
        """Take candidates (N,) where they are nearer than what is found."""
        sources = sources.clamp(0, len(self.is_source) - 1)
        which = (is_tried & self.is_source[sources] & (sources != self.found)).nonzero().flatten()
        errors = self._compare(which, sources[which])
        is_better = errors < self.errors[which]
        self.errors[which[is_better]] = errors[is_better]
        self.found[which[is_better]] = sources[which[is_better]]

    def _compare(self, which: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
        """Squared differences, weighted, between targets, by number, and the patches around `sources`; and their distance."""
        found = []
        for some, others in zip(which.split(CHUNK), sources.split(CHUNK), strict=True):
            apart = (self._patches(self.targets[some]) - self._patches(others)).square_()
            by_pixel = apart.view(len(some), SIDE**2, self.channels).sum(2)
            found.append((by_pixel * self.weights[some]).sum(1) + self._far(some, others))
        return torch.cat(found)

    def _far(self, which: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
        """What it costs that sources lie far from where targets, by number, have their anchors."""
        places = sources // self.width, sources % self.width
        apart = ((anchor[which] - place).float() for anchor, place in zip(self.anchors, places, strict=True))
        return self.nearness * sum((one.abs() - self.room).clamp(min=0).square() for one in apart)

    def _patches(self, places: torch.Tensor) -> torch.Tensor:
        rows = (places[:, None] + self.rows).flatten()
        return self.strips.index_select(0, rows).view(len(places), SIDE, self.channels * SIDE)

    # -- vote ---------------------------------------------------------------------------------------------------------
    def vote(self, keeps_grain: bool = False) -> None:
        """Fill the hole with the mean of what was found or, but for its edge, with the nearest of it, which keeps grain."""
        at = self.hole.flatten().nonzero().flatten()
        value, pixels = self.voted(at), self.picture.view(-1, self.channels)
        if keeps_grain:
            is_inside = (~grown(~self.hole, RADIUS)).flatten()[at]
            value = torch.where(is_inside[:, None], pixels[self.nearest(at)], value)
        pixels[at] = value

    def voted(self, at: torch.Tensor) -> torch.Tensor:
        """The mean of what the patches over pixels `at` (M,) found there, (M, C)."""
        pixels = self.picture.view(-1, self.channels)
        total, weight = (torch.zeros(len(at), width, dtype=torch.float32) for width in (self.channels, 1))
        for share, sources in self._votes(at):
            value = pixels.index_select(0, sources)
            total, weight = total.addcmul_(share[:, None], value), weight + share[:, None]
        return total / weight

    def nearest(self, at: torch.Tensor) -> torch.Tensor:
        """The pixels (M,) that were found for pixels `at` (M,) by that of the patches over each that fits best."""
        found, weight = torch.zeros_like(at), torch.zeros(len(at), dtype=torch.float32)
        for share, sources in self._votes(at):
            is_more = share > weight
            found, weight = torch.where(is_more, sources, found), torch.where(is_more, share, weight)
        return found

    def _votes(self, at: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """For each pixel of a patch: how well the patches that have pixels `at` (M,) there fit, and what they found for them."""
        spread = self.errors.sort().values[3 * len(self.errors) // 4]
        weights = torch.exp(-self.errors / (2 * spread + 1e-8)).clamp(min=LEAST_WEIGHT)
        for offset in self.offsets.tolist():
            number = self.number[(at - offset).clamp(0, len(self.number) - 1)]
            sources = (self.found[number] + offset).clamp(0, len(self.number) - 1)
            yield torch.where(number >= 0, weights[number], 0.0), sources


def _rarity(patches: torch.Tensor) -> torch.Tensor:
    """How far the 20th nearest of some patches is from each of (N, D), squared: those of a texture are near to many."""
    some = patches[:: max(1, len(patches) // COMPARED)]
    return torch.cdist(patches, some).square().kthvalue(min(LIKENESSES, len(some)), 1).values


def extents(area: torch.Tensor) -> list[tuple[int, int]]:
    """Of the rows and of the columns of an area (H, W) bool the first, and the one behind the last."""
    places = (area.any(axis).nonzero().flatten() for axis in (1, 0))
    return [(int(found[0]), int(found[-1]) + 1) for found in places]


def grown(area: torch.Tensor, radius: int) -> torch.Tensor:
    """An area (H, W) bool with all that is within `radius` pixels of it, across or along."""
    return F.max_pool2d(area[None, None].float(), 2 * radius + 1, 1, radius)[0, 0] > 0
