"""The exponential moving average of what is trained."""

from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from .sharding import shard_like, whole


class Averaged:
    """Exponential moving average of the trained weights, saved and loaded with every checkpoint."""

    def __init__(self, model: nn.Module, decay: float):
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.ema = EMAModel(self.parameters, decay=decay, use_ema_warmup=True, inv_gamma=1.0, power=0.75)

    def state_dict(self) -> dict[str, Any]:
        state = self.ema.state_dict()
        return {**state, "shadow_params": [whole(one) for one in state["shadow_params"]]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ema.load_state_dict(state)
        pairs = zip(self.ema.shadow_params, self.parameters, strict=True)  # what is loaded lies on the CPU
        self.ema.shadow_params = [shard_like(one, own).to(own.device) for one, own in pairs]

    def step(self) -> None:
        self.ema.step(self.parameters)

    @torch.no_grad()
    def distance(self) -> float:
        """||average - weights|| / ||weights||, over all that is trained."""
        pairs = list(zip(self.ema.shadow_params, self.parameters, strict=True))
        away = sum(whole((average.float() - now.float()).square().sum()) for average, now in pairs)
        return (away / sum(whole(now.float().square().sum()) for _, now in pairs)).sqrt().item()

    def __enter__(self) -> None:
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)

    def __exit__(self, *exception: Any) -> None:
        self.ema.restore(self.parameters)
