"""A procedural renderer whose color, texture and shape are known exactly.

A picture is `palette[regions] + amplitude * texture`, drawn in CIELAB. Any palette, any texture field and any region
map can be combined, so the true answer to "color of A, texture of B, shape of C" exists: this is the *exact triple*
that supervises separate control, and the ground truth against which the views of `MGEncoder` are tested.
"""

import numpy as np


WHITE = (0.95047, 1.0, 1.08883)  # D65
TO_LINEAR = (
    (3.2404542, -1.5371385, -0.4985314),
    (-0.9692660, 1.8760108, 0.0415560),
    (0.0556434, -0.2040259, 1.0572252),
)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1.0, 1.0, size)
    return np.meshgrid(axis, axis, indexing="xy")


def _rotate(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _figure(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
    """One closed figure as a boolean map: disc, box, polygon, flower, ring, cross, crescent or band."""
    kind = rng.integers(8)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    if kind == 0:
        return radius < scale
    if kind == 1:
        return np.maximum(abs(x), abs(y) * rng.uniform(1, 2.2)) < 0.85 * scale
    if kind == 2:
        corners = rng.integers(3, 7)
        sector = 2 * np.pi / corners
        return radius * np.cos(angle % sector - sector / 2) < scale * np.cos(sector / 2)
    if kind == 3:
        return radius < scale * (0.65 + 0.35 * np.cos(rng.integers(3, 8) * angle))
    if kind == 4:
        return (radius < scale) & (radius > 0.5 * scale)
    if kind == 5:
        width = 0.35 * scale
        return ((abs(x) < width) & (abs(y) < scale)) | ((abs(y) < width) & (abs(x) < scale))
    if kind == 6:
        return (radius < scale) & (np.hypot(x - 0.5 * scale, y) > 0.75 * scale)
    return abs(y + 0.25 * np.sin(3 * x)) < 0.45 * scale


def render_regions(seed: int, size: int) -> np.ndarray:
    """Shape factor: a region map of integers 0..3 (background 0), shape (size, size)."""
    rng = np.random.default_rng([11, seed])
    x, y = _grid(size)
    regions = np.zeros((size, size), np.int64)
    for index in range(rng.integers(1, 4)):
        center = rng.uniform(-0.45, 0.45, 2)
        scale = rng.uniform(0.35, 0.7) * (1.0 if index == 0 else 0.6)
        regions[_figure(rng, *_rotate(x - center[0], y - center[1], rng.uniform(0, 2 * np.pi)), scale)] = index + 1
    return regions


def _filtered_noise(rng: np.random.Generator, phase: np.random.Generator, size: int, directed: bool) -> np.ndarray:
    """Noise of a power-law spectrum, or of one band that may have a direction."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None]
    frequency = np.hypot(fx, fy) + 1e-3
    if directed:
        center, width, theta = rng.uniform(0.08, 0.3), rng.uniform(0.15, 2.0), rng.uniform(0, np.pi)
        across = np.sin(np.arctan2(fy, fx) - theta)
        gain = np.exp(-((frequency - center) ** 2) / 0.0012) * (0.05 + np.exp(-((across / width) ** 2) / 2))
    else:
        gain = frequency ** -rng.uniform(0.0, 1.4)
        gain[frequency < 0.04] = 0.0
    return np.real(np.fft.ifft2(np.fft.fft2(phase.standard_normal((size, size))) * gain))


def render_texture(seed: int, phase_seed: int, size: int) -> np.ndarray:
    """Texture factor: a field of zero mean and unit deviation, shape (size, size).

    Another `phase_seed` gives another piece of the same material.
    """
    rng, phase = np.random.default_rng([22, seed]), np.random.default_rng([33, seed, phase_seed])
    x, y = _grid(size)
    shift = phase.uniform(-1, 1, 2)
    u, v = _rotate(x + shift[0], y + shift[1], rng.uniform(0, np.pi))
    frequency = rng.uniform(20.0, 70.0)
    kind = rng.integers(7)
    if kind == 0:
        field = np.sin(frequency * u)
    elif kind == 1:
        field = np.sign(np.sin(frequency * u) * np.sin(frequency * v))
    elif kind == 2:
        field = np.maximum(np.cos(0.7 * frequency * u), np.cos(0.7 * frequency * v)) ** 3
    elif kind == 3:
        cells = phase.uniform(-1.1, 1.1, (int(3 * frequency), 2))
        distance = np.sort(np.hypot(x[..., None] - cells[:, 0], y[..., None] - cells[:, 1]), axis=-1)
        field = distance[..., 1] - distance[..., 0]
    else:
        field = _filtered_noise(rng, phase, size, directed=kind in (5, 6))
    field = field - field.mean()
    return field / (field.std() + 1e-6)


def render_palette(seed: int) -> np.ndarray:
    """Color factor: four CIELAB colors at least 28 apart from each other, shape (4, 3)."""
    rng = np.random.default_rng([44, seed])
    while True:
        lightness, hue, chroma = rng.uniform(20, 88, 4), rng.uniform(0, 2 * np.pi, 4), rng.uniform(3, 60, 4)
        palette = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], 1)
        distance = np.linalg.norm(palette[:, None] - palette[None], axis=-1) + 1e3 * np.eye(4)
        if distance.min() > 28:
            return palette


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of shape (..., 3) to sRGB in [0, 1], clipped to the gamut."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * np.array(WHITE)
    linear = np.clip(xyz @ np.array(TO_LINEAR).T, 0, 1)
    return np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def halve(image: np.ndarray) -> np.ndarray:
    """Average 2x2 pixels, (2s, 2s, C) -> (s, s, C): what is drawn at twice the size gets anti-aliased borders."""
    half = image.shape[0] // 2
    return image.reshape(half, 2, half, 2, -1).mean((1, 3))


def compose(palette: np.ndarray, texture: np.ndarray, regions: np.ndarray, amplitude: float = 9.0) -> np.ndarray:
    """Paint: `palette` (4, 3) Lab, `texture` (2s, 2s), `regions` (2s, 2s) -> RGB float32 (s, s, 3) in [0, 1].

    Drawn at twice the size and averaged, so that borders are anti-aliased as in a photograph.
    """
    lab = palette[regions]
    lab[..., 0] = np.clip(lab[..., 0] + amplitude * texture, 2, 98)
    return lab_to_rgb(halve(lab)).astype(np.float32)


def render(
    color: int, texture: int, shape: int, *, phase: int = 0, size: int = 64, amplitude: float = 9.0
) -> np.ndarray:
    """Render the picture of three factor seeds.

    Args:
        color, texture, shape: seeds of the factors (non-negative).
        phase: another phase is another piece of the same material; color and shape do not change.
        size: height and width in pixels.
        amplitude: deviation of the texture in units of CIELAB lightness (0..100).

    Returns:
        RGB float32 of shape (size, size, 3) in [0, 1].
    """
    field = render_texture(texture, phase, 2 * size)
    return compose(render_palette(color), field, render_regions(shape, 2 * size), amplitude)
