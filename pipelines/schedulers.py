"""Which schedulers can take a UNet's predictions to a picture, told before anything is computed."""

import copy
import inspect
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import retrieve_timesteps

from ..arrays import plain_number


# A share of the picture in the last timestep above which "pure noise" is not, and below which schedulers of two evaluations a
# step overshoot: the first step's difference of the two is weighed by a noise level of thousands.
TERMINAL, OVERSHOOTING = 1e-4, 1e-6
GOOD = "DDIMScheduler, EulerDiscreteScheduler or DPMSolverMultistepScheduler"
INSTEAD = f"Use for example {GOOD}, by `.from_config(pipe.scheduler.config)`"
NEEDED = ("set_timesteps", "step", "order")  # without the last, the step before is not known to a scheduler
TRIED = (1, 4, 8, 8)  # latents


def set_steps(
    scheduler: Any, steps: int, device: torch.device | None = None, timesteps: Any = None, sigmas: Any = None
) -> tuple[torch.Tensor, int]:
    """Set a scheduler; its timesteps, and how many steps it counts.

    Raises:
        ValueError: for a scheduler of something else than such calls, for steps that it cannot be set to, and, in the words of
            diffusers, for wrong `timesteps` and `sigmas`.
    """
    name = type(scheduler).__name__
    if missing := [one for one in NEEDED if not hasattr(scheduler, one)]:
        raise ValueError(f"{name} is not one for calls like this: it has no `{missing[0]}`. {INSTEAD}.")
    check_falling("timesteps", timesteps, last_timestep(scheduler))
    check_falling("sigmas", sigmas)
    try:
        found = retrieve_timesteps(scheduler, steps, device, timesteps, sigmas)
    except Exception as error:  # of any type: schedulers check little
        for told, given in (("timesteps", timesteps), ("sigmas", sigmas)):
            if given is None:
                continue
            if isinstance(error, ValueError):
                raise
            raise ValueError(
                f"`{told}` = {given!r} cannot be set to {name} ({_words_of(error)}). Pass others, or leave it out."
            ) from error
        raise ValueError(
            f"{name} cannot be set to {steps} steps ({_words_of(error)}). Choose another number of them, or another scheduler. "
            f"{INSTEAD}."
        ) from error
    check_some_steps(scheduler, found[0], sigmas)
    check_scheduler(scheduler, found[0])
    return found


def last_timestep(scheduler: Any) -> float | None:
    """The noisiest timestep that a scheduler knows; `None` where it does not tell."""
    alphas = getattr(scheduler, "alphas_cumprod", None)
    return scheduler.config.get("num_train_timesteps") if alphas is None else len(alphas) - 1


def check_falling(name: str, given: Any, most: float | None = None) -> None:
    """Raise a ValueError for `timesteps` or `sigmas` of a call that are no way down from noise, at most so much."""
    if given is None:
        return
    is_listed = isinstance(given, (list, tuple)) or isinstance(given, (np.ndarray, torch.Tensor)) and given.ndim == 1
    numbers = [plain_number(one) for one in given] if is_listed else [None]
    if not numbers:
        raise ValueError(f"`{name}` is empty, so there is no step to take. Leave it out, or name some.")
    if (
        None in numbers
        or numbers[-1] < 0
        or most is not None
        and numbers[0] > most
        or any(one <= following for one, following in zip(numbers, numbers[1:], strict=False))
    ):
        bound = "" if most is None else f", at most {most:g}"
        example = (
            "" if most is None else f", or pass for example {[round(most * share) for share in (1, 0.75, 0.5, 0.25)]}"
        )
        raise ValueError(
            f"`{name}` must be finite numbers in a falling list, each smaller than the one before, none below 0{bound}; got "
            f"{given!r}. Leave it out{example}."
        )


def check_scheduler(scheduler: Any, timesteps: torch.Tensor) -> None:
    """Raise a ValueError for a scheduler that does not know what the configuration it was made from asks for.

    Args:
        scheduler: whose timesteps are set, to these; it is not changed.
    """
    name, config = type(scheduler).__name__, scheduler.config
    kind = config.get("prediction_type")
    parameters = inspect.signature(type(scheduler).__init__).parameters
    error = _error_in_step(scheduler, timesteps)
    is_of_kind = isinstance(error, (NotImplementedError, ValueError)) and "prediction" in str(error).lower()
    # `from_config` keeps what a class does not know.
    if is_of_kind or kind not in (None, "flow_prediction") and "prediction_type" not in parameters:
        raise ValueError(f"{name} does not know predictions of the type {kind!r}, which the UNet makes. {INSTEAD}.")
    if len(timesteps) and timesteps[0] < timesteps[-1] or "Inverse" in name:  # of a single step only the name tells
        raise ValueError(f"{name} goes from a picture to noise, and calls like this come from noise. {INSTEAD}.")
    if error is not None:
        raise ValueError(f"{name} cannot take the steps of calls like this ({_words_of(error)}). {INSTEAD}.")
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if not config.get("rescale_betas_zero_snr") or alphas is None:
        return
    if alphas[-1] > TERMINAL:
        raise ValueError(
            f"{name} does not know `rescale_betas_zero_snr`: its last timestep keeps {float(alphas[-1]) ** 0.5:.2g} of the "
            f"picture, where the UNet was trained on pure noise. {INSTEAD}."
        )
    if scheduler.order > 1 and alphas[-1] < OVERSHOOTING:
        raise ValueError(
            f"{name} evaluates the UNet {scheduler.order} times a step, which overshoots where runs begin in pure noise "
            f"(`rescale_betas_zero_snr`). {INSTEAD}."
        )


def check_noising(scheduler: Any, purpose: str, otherwise: str = "") -> None:
    """Raise a ValueError for a scheduler that cannot put a picture under noise, which `purpose` needs."""
    if not any(hasattr(scheduler, name) for name in ("add_noise", "scale_noise")):
        raise ValueError(
            f"{purpose} puts a picture under noise, which {type(scheduler).__name__} cannot. {INSTEAD}{otherwise}."
        )


def check_some_steps(scheduler: Any, timesteps: torch.Tensor, sigmas: Any) -> None:
    """Raise a ValueError where the `sigmas` of a call leave no step: some schedulers take the last one for the end."""
    if not len(timesteps):
        raise ValueError(
            f"`sigmas` = {list(sigmas)} leave no step to take: {type(scheduler).__name__} takes the last one as where the run "
            f"ends. Append 0.0 to them."
        )


def _error_in_step(scheduler: Any, timesteps: torch.Tensor) -> Exception | None:
    """Why a scheduler cannot take a step with what its configuration says that the UNet predicts; tried on a copy."""
    trial, latents = copy.deepcopy(scheduler), torch.zeros(TRIED, dtype=torch.float32, device=timesteps.device)
    accepted = inspect.signature(type(trial).step).parameters
    own = torch.Generator(timesteps.device)  # not one that pictures are drawn by
    options = {"generator": own} if "generator" in accepted else {}
    first = timesteps[0]
    kind = type(trial)  # whose methods are taken, and not what somebody put on the scheduler to look at its steps
    try:
        with torch.random.fork_rng(devices=[]):  # some draw a seed of what everybody draws of
            if hasattr(kind, "scale_model_input"):
                kind.scale_model_input(trial, latents, first)
            kind.step(trial, latents, first, latents, **options)
    except Exception as error:  # of any type: schedulers check little
        return error
    return None


def _words_of(error: Exception) -> str:
    """An error in a line."""
    said = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
