"""LoRAs of a model: what brings them back as they were."""

from collections.abc import Callable

import torch


def remembered_loras(model: torch.nn.Module) -> Callable[[], None]:
    """What brings back, of a model as it is now: its layers, its LoRAs, which are active, how strong, and what is trained."""
    children = [(part, name, child) for part in model.modules() for name, child in part.named_children()]
    layers = [part for part in model.modules() if hasattr(part, "active_adapters") and hasattr(part, "scaling")]
    strengths = [(part, list(part.active_adapters), dict(part.scaling)) for part in layers]
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    said = {name: vars(model).get(name) for name in ("peft_config", "_hf_peft_config_loaded")}
    known = set(said["peft_config"] or {})

    def bring_back() -> None:
        for part, name, child in children:
            if getattr(part, name, None) is not child:  # a layer that a LoRA was wrapped around
                setattr(part, name, child)
        if added := set(vars(model).get("peft_config") or {}) - known:
            model.delete_adapters(sorted(added))
        for part, active, scaling in strengths:
            part.set_adapter(active)
            part.scaling.clear()
            part.scaling.update(scaling)
        for parameter, is_trained in trained:
            parameter.requires_grad_(is_trained)
        for name, value in said.items():
            if value is None:
                vars(model).pop(name, None)
            else:
                setattr(model, name, value)

    return bring_back
