"""Steps and windows of them that no run can have, told before anything is loaded, as far as the files of a model tell."""

import argparse
import json

from .sizes import config_of, model_folder


STRICT = ("DDIMScheduler", "DDPMScheduler")  # take at most as many steps as the model was trained with, one by one
DEFAULTS = {True: 4, False: 20}  # of a UNet that is distilled, and of any other


def check_steps(options: argparse.Namespace) -> None:
    """Raise a ValueError for more steps than there are, and for a window in which no step lies.

    Of a model on the Hub nothing is known before it is loaded.
    """
    folder = model_folder(options)
    scheduler = config_of(folder, "scheduler", "scheduler_config.json")
    if scheduler.get("_class_name") not in STRICT:
        return
    most, steps = scheduler.get("num_train_timesteps", 1000), options.num_inference_steps
    if steps is not None and steps > most:
        raise ValueError(f"--steps must be at most {most}, as many as the model was trained with, got {steps}.")
    parts = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    # What starts later than in pure noise takes fewer steps, and SDXL has a default of its own.
    starts_late = options.composed_start is not None or getattr(options, "strength", None) is not None
    has_adapter = options.adapter is not None or "mg_adapter" in parts
    if starts_late or not has_adapter or (steps is None and "tokenizer_2" in parts):
        return
    is_distilled = config_of(folder, "unet").get("time_cond_proj_dim") is not None and not options.many_steps
    steps = steps or DEFAULTS[is_distilled]
    windows = {f"--schedule {name}=": curve for name, curve in options.schedule if isinstance(curve, tuple)}
    if options.feature_guidance_window is not None:
        windows["--feature-window "] = options.feature_guidance_window
    for flag, (start, end) in windows.items():
        if not any(start <= index / steps and (index + 1) / steps <= end for index in range(steps)):
            raise ValueError(
                f"{flag}{start:g}:{end:g}: none of the {steps} steps lies in it as a whole. Widen it, or give more --steps."
            )
