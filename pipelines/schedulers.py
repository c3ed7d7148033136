"""Which schedulers can take a UNet's predictions to a picture, told before anything is computed."""

import copy
import inspect
from typing import Any

import torch


# A share of the picture in the last timestep above which "pure noise" is not, and below which schedulers of two evaluations a
# step overshoot: the first step's difference of the two is weighed by a noise level of thousands.
TERMINAL, OVERSHOOTING = 1e-4, 1e-6
GOOD = "DDIMScheduler, EulerDiscreteScheduler or DPMSolverMultistepScheduler"


def check_scheduler(scheduler: Any, timesteps: torch.Tensor) -> None:
    """Raise a ValueError for a scheduler that does not know what the configuration it was made from asks for.

    Args:
        scheduler: whose timesteps are set, to these; it is not changed.
    """
    name, config = type(scheduler).__name__, scheduler.config
    kind = config.get("prediction_type")
    parameters = inspect.signature(type(scheduler).__init__).parameters
    # `from_config` keeps what a class does not know.
    if (
        kind not in (None, "flow_prediction")
        and "prediction_type" not in parameters
        or not _can_step(scheduler, timesteps)
    ):
        raise ValueError(
            f"{name} does not know predictions of the type {kind!r}, which the UNet makes. Use for example {GOOD}, by "
            f"`.from_config(pipe.scheduler.config)`."
        )
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if not config.get("rescale_betas_zero_snr") or alphas is None:
        return
    if alphas[-1] > TERMINAL:
        raise ValueError(
            f"{name} does not know `rescale_betas_zero_snr`: its last timestep keeps {float(alphas[-1]) ** 0.5:.2g} of the "
            f"picture, where the UNet was trained on pure noise. Use for example {GOOD}, by "
            f"`.from_config(pipe.scheduler.config)`."
        )
    if scheduler.order > 1 and alphas[-1] < OVERSHOOTING:
        raise ValueError(
            f"{name} evaluates the UNet {scheduler.order} times a step, which overshoots where runs begin in pure noise "
            f"(`rescale_betas_zero_snr`). Use for example {GOOD}, by `.from_config(pipe.scheduler.config)`."
        )


def check_noising(scheduler: Any, purpose: str, otherwise: str = "") -> None:
    """Raise a ValueError for a scheduler that cannot put a picture under noise, which `purpose` needs."""
    if not any(hasattr(scheduler, name) for name in ("add_noise", "scale_noise")):
        raise ValueError(
            f"{purpose} puts a picture under noise, which {type(scheduler).__name__} cannot. Use for example {GOOD}, by "
            f"`.from_config(pipe.scheduler.config)`{otherwise}."
        )


def check_some_steps(scheduler: Any, timesteps: torch.Tensor, sigmas: Any) -> None:
    """Raise a ValueError where the `sigmas` of a call leave no step: some schedulers take the last one for the end."""
    if not len(timesteps):
        raise ValueError(
            f"`sigmas` = {list(sigmas)} leave no step to take: {type(scheduler).__name__} takes the last one as where the run "
            f"ends. Append 0.0 to them."
        )


def _can_step(scheduler: Any, timesteps: torch.Tensor) -> bool:
    """Whether a scheduler takes a step with what its configuration says that the UNet predicts; tried on a copy."""
    trial, tiny = copy.deepcopy(scheduler), torch.zeros(1, 1, 1, 1, dtype=torch.float32, device=timesteps.device)
    accepted = inspect.signature(type(trial).step).parameters
    options = (
        {"generator": torch.Generator()} if "generator" in accepted else {}
    )  # not those that pictures are drawn by
    first = timesteps[0]
    kind = type(trial)  # whose methods are taken, and not what somebody put on the scheduler to look at its steps
    try:
        with torch.random.fork_rng(devices=[]):  # some draw a seed of what everybody draws of
            if hasattr(kind, "scale_model_input"):
                kind.scale_model_input(trial, tiny, first)
            kind.step(trial, tiny, first, tiny, **options)
    except (NotImplementedError, ValueError) as error:
        return "prediction" not in str(error).lower()
    except Exception:  # of what a call would not do
        return True
    return True
