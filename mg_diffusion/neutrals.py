"""Black and white: what of a picture has no color that could be another.

Night stays night and paper stays paper when a picture is recolored, as colors laid over a drawing leave its ink and its
ground. Gray pictures are toned as a whole, and whoever selects black or white wants it to change.
"""

import torch


BLACK = (3.0, 12.0)  # lightness up to which what has no hue is black, and from which nothing is
WHITE = (86.0, 94.0)  # lightness up to which nothing is white, and from which what has no hue is
HUE = (4.0, 10.0)  # chroma up to which white has no hue, and from which it has one
DARK_HUE = (
    4.0,
    18.0,
)  # the same of black, less suddenly: a navy coat in the shade lies on both sides, shade on red is red
LEAST_SHARE = 0.02  # of a picture that has a color, for it to be a picture in color


def _rise(values: torch.Tensor, ends: tuple[float, float]) -> torch.Tensor:
    """0 up to the first, 1 from the second on, smoothly."""
    share = ((values - ends[0]) / (ends[1] - ends[0])).clamp(0, 1)
    return share.square() * (3 - 2 * share)


def share_of_color(lab: torch.Tensor) -> torch.Tensor:
    """Lab (B, 3, H, W) to (B, 1, H, W): 0 where there is black or white, 1 where there is any other color, gray included."""
    lightness, chroma = lab[:, :1], lab[:, 1:].norm(dim=1, keepdim=True)
    black = (1 - _rise(lightness, BLACK)) * (1 - _rise(chroma, DARK_HUE))
    return 1 - black - _rise(lightness, WHITE) * (1 - _rise(chroma, HUE))


def as_neutral(lab: torch.Tensor, color: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """What a and b (B, 2, H, W) become where `lab` (B, 3, H, W) is to become `color`: black and white, where `share`
    (B, 1, H, W) is 0, get no more of it than they had.

    The hue is that of `color` all the same: a dark corner of brown wood that turns blue has no brown stains.
    """
    had, gets = (one.norm(dim=1, keepdim=True) for one in (lab[:, 1:], color))
    return torch.lerp(color * (had / gets.clamp(min=1e-6)).clamp(max=1), color, share)


def keeps_neutrals(lab: torch.Tensor, area: torch.Tensor, colored: torch.Tensor, is_selected: bool) -> bool:
    """Whether black and white are to stay when what is in `area` (1, 1, h, w) of a picture (1, 3, h, w) is recolored.

    Args:
        colored: the area that has a color, by `share_of_color`.
        is_selected: whether someone chose the area; then what most of it is shall change.
    """
    if is_selected and colored.sum() < 0.5 * area.sum():
        return False
    has_hue = lab[:, 1:].norm(dim=1, keepdim=True) > HUE[0]
    return bool((colored * has_hue).sum() >= LEAST_SHARE * area.sum())


def counted(area: torch.Tensor, colored: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The area (1, 1, h, w) that a palette is laid into by shares, and how far lightness is to follow the palette's, in [0, 1].

    Black and white count as much as all else at most. They take the dark and the light colors of the palette, so that brown
    hair beside a black ground is no longer the darkest there is; but where nearly all is night, the stars have the palette to
    themselves, and shine as they did.
    """
    neutral = area - colored
    share = float((colored.sum() / neutral.sum().clamp(min=1e-6)).clamp(max=1))
    return colored + neutral * share, share
