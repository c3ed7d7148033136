"""What the flags tell a run, in parts. A stage reads its flags into them; all else gets the part it needs."""

from dataclasses import dataclass, fields, replace
from typing import Any, Self


@dataclass(frozen=True)
class Settings:
    """Values of the flags that its fields are named as, of all of them or of another part."""

    @classmethod
    def of(cls, args: Any) -> Self:
        return cls(**{field.name: getattr(args, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class Data(Settings):
    """Which pictures are read."""

    train_data_dir: str | None
    dataset_name: str | None
    dataset_config_name: str | None
    image_column: str | None
    caption_column: str | None
    resolution: int
    min_image_size: int | None
    max_image_pixels: int
    max_skipped_share: float
    max_train_samples: int | None
    num_validation_images: int
    streaming: bool
    streaming_window: int | None
    samples_per_picture: int | None
    seed: int
    output_dir: str  # for what tells of the data


@dataclass(frozen=True)
class Supervision(Settings):
    """What samples are made of pictures."""

    num_crossings: int
    num_rendered: int
    composite_share: float
    rendered_share: float
    augment: bool
    seed: int
    cache_dir: str | None

    @property
    def shares(self) -> dict[str, float]:
        """How many samples are crossed pictures, by kind."""
        return {"composite": self.composite_share, "rendered": self.rendered_share}

    def held_out(self, num_pictures: int) -> "Supervision":
        """That of held-out pictures, alike in all runs."""
        rendered = max(1, num_pictures // 2)
        return replace(self, num_crossings=num_pictures, num_rendered=rendered, augment=False, seed=1)


@dataclass(frozen=True)
class Layouts(Settings):
    """What is laid out at a larger size than that of the base."""

    layout_size: int | None
    materials_dir: str | None
    num_laid_crossings: int


@dataclass(frozen=True)
class Batches(Settings):
    """How samples become batches."""

    train_batch_size: int
    gradient_accumulation_steps: int
    split_batches: bool
    dataloader_num_workers: int
    seed: int

    def samples(self, num_processes: int) -> int:
        """How many samples all processes read at once; a ValueError if they cannot share a batch equally."""
        if not self.split_batches:
            return self.train_batch_size * num_processes
        if self.train_batch_size % num_processes:
            raise ValueError(
                f"--split_batches shares a batch among all processes equally, but --train_batch_size "
                f"{self.train_batch_size} is no multiple of {num_processes} processes; give one that is."
            )
        return self.train_batch_size


@dataclass(frozen=True)
class Optimization(Settings):
    """How a step changes the weights."""

    learning_rate: float
    lr_scheduler: str
    lr_warmup_steps: int
    adam_beta1: float
    adam_beta2: float
    adam_weight_decay: float
    adam_epsilon: float
    max_grad_norm: float
    mixed_precision: str
    ema_decay: float


@dataclass(frozen=True)
class Steps(Settings):
    """How many steps there are, and what is done between them."""

    max_train_steps: int
    checkpointing_steps: int
    validation_steps: int
    validation_at_start: bool

    def is_due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.max_train_steps


@dataclass(frozen=True)
class RunSettings:
    """What the loop is told; `flags` are all of them, which checkpoints keep so that a resumed run can compare."""

    batches: Batches
    optimization: Optimization
    steps: Steps
    flags: dict[str, Any]

    @classmethod
    def of(cls, args: Any) -> Self:
        return cls(Batches.of(args), Optimization.of(args), Steps.of(args), {**vars(args)})

    @property
    def output_dir(self) -> str:
        return self.flags["output_dir"]

    @property
    def stage(self) -> str:
        return self.flags["stage"]

    def num_samples(self, num_processes: int) -> int:
        """How many samples the run draws; errors as of `Batches.samples`."""
        accumulated = self.steps.max_train_steps * self.batches.gradient_accumulation_steps
        return accumulated * self.batches.samples(num_processes)
