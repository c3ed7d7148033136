"""The curves of a run."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure  # not pyplot, which keeps figures alive and looks for a screen
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from .run_files import Run


def smooth(values: list[float]) -> list[float]:
    """Means of a window around each value, a tenth of all wide."""
    reach = len(values) // 20
    windows = (values[max(0, i - reach) : i + reach + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _draw_loss(axes: Any, run: Run) -> None:
    steps, losses = run.series("loss")
    axes.plot(steps, losses, color="#9db4d0", linewidth=1, marker="." if len(steps) < 40 else None, label="as logged")
    axes.plot(steps, smooth(losses), color="#1f4e8c", linewidth=2, label="smoothed")
    axes.set_title("training loss")
    axes.legend(frameon=False)


def _draw_validation(axes: Any, run: Run) -> None:
    buckets = run.names("val_loss_t")
    for name, color in zip(buckets, colormaps["viridis"](np.linspace(0, 0.9, len(buckets))), strict=True):
        axes.plot(*run.series(name), color=color, marker=".", label=name.removeprefix("val_loss_"))
    if "val_psnr" in run.names("val_"):
        axes.plot(*run.series("val_psnr"), color="black", linewidth=2, marker=".")
        axes.set_title("PSNR of held-out pictures, dB")
    else:
        axes.plot(*run.series("val_loss"), color="black", linewidth=2, marker=".", label="mean")
        axes.set_title("validation loss")
        axes.set_yscale("log")
    if buckets:
        axes.legend(frameon=False, title="timesteps", loc="center left", bbox_to_anchor=(1, 0.5))
    elif not run.names("val_"):
        axes.text(0.5, 0.5, "no held-out pictures", ha="center", transform=axes.transAxes, color="gray")


def _draw_gradient(axes: Any, run: Run) -> None:
    axes.plot(*run.series("grad_norm"), color="#7a5195", linewidth=1.5, marker="." if len(run.steps) < 40 else None)
    limit = run.config["max_grad_norm"]
    axes.axhline(limit, color="gray", linestyle="--", linewidth=1, label=f"clipped to {limit:g}")
    axes.set_yscale("log")
    axes.set_title("norm of the gradient")
    axes.legend(frameon=False)


def draw_curves(run: Run) -> Figure:
    """Training loss, validation loss by bucket of timesteps, and the norm of the gradient, over the steps."""
    figure = Figure(figsize=(15, 4), layout="constrained")
    for axes, draw in zip(figure.subplots(1, 3), (_draw_loss, _draw_validation, _draw_gradient), strict=True):
        draw(axes, run)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if axes.get_yscale() == "log":
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
