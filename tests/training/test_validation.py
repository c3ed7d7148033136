"""The validation loss can be compared between runs; the grid can be read."""

import warnings

import numpy as np
import pytest
import torch

from mg_diffusion import MGPipeline
from mg_diffusion.training import validation
from mg_diffusion.training.models import TrainedModel, build_components
from mg_diffusion.training.objective import Objective
from mg_diffusion.training.samples import SampleStream
from mg_diffusion.training.validation import LABEL_WIDTH, bucket_timesteps, labeled_grid, save_grid, validation_loss


CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [1000, 100])
def test_buckets_cover_all_timesteps_and_are_measured_inside(count):
    buckets = bucket_timesteps(count)
    covered = []
    for name, timesteps in buckets.items():
        low, high = map(int, name[1:].split("-"))
        covered += range(low, high + 1)
        assert (
            len(set(timesteps)) == validation.TIMESTEPS_PER_BUCKET and low <= min(timesteps) <= max(timesteps) <= high
        )
    assert covered == list(range(count))
    assert bucket_timesteps(1000)["t0-199"] == [25, 75, 125, 175]


@pytest.fixture(scope="module")
def parts(pool, pictures):
    """Objective, model and held-out samples, with a codec that draws its latents."""
    components = build_components(pictures.captions, 32, [32, 32], 32)
    model = TrainedModel(*(components[name] for name in ("unet", "text_encoder", "mg_encoder", "mg_adapter")))
    stream = SampleStream(*pool, pictures.captions, 6, 1, {"composite": 0.3, "rendered": 0.3}, 16, augment=False)
    with components["mg_adapter"].attach(components["unet"]):
        yield Objective(components, 16.0), model.eval(), stream


class Drawing(Objective):
    """Latents of a VAE that is not lossless differ each time they are drawn."""

    def latents(self, images, generators=None):
        found = super().latents(images, generators)
        return found + 0.1 * torch.randn_like(found)


def test_it_is_a_function_of_weights_and_samples(parts):
    objective, model, stream = parts
    drawing = Drawing.__new__(Drawing)
    vars(drawing).update(vars(objective))
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        losses.append(validation_loss(drawing, model, stream, CPU))
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(seed)))  # undisturbed
    assert losses[0] == losses[1]
    assert losses[0].keys() == {"val_loss", *(f"val_loss_{name}" for name in bucket_timesteps(1000))}
    assert losses[0]["val_loss"] == pytest.approx(np.mean([v for k, v in losses[0].items() if k != "val_loss"]))
    assert losses[0] != validation_loss(objective, model, stream, CPU)


def test_the_noise_and_the_timestep_of_a_sample_do_not_depend_on_its_batch(parts, monkeypatch):
    objective, model, stream = parts
    together = validation_loss(objective, model, stream, CPU)
    monkeypatch.setattr(validation, "BATCH", 4)  # the second batch begins in the middle
    assert validation_loss(objective, model, stream, CPU) == pytest.approx(together, rel=1e-4)


def test_every_sample_has_its_own_noise_in_every_bucket(parts):
    objective, _, stream = parts
    images = objective.collate([stream[i] for i in range(3)])["image"]
    drawn = [noise for bucket in range(5) for noise in validation._noise(objective, images, 0, bucket)]
    assert len({noise.numpy().tobytes() for noise in drawn}) == 15


@pytest.mark.parametrize("size, shown", [(32, 128), (64, 128), (100, 100), (256, 256), (512, 256)])
def test_pictures_of_a_grid_have_a_size_that_can_be_seen_and_sent(size, shown):
    picture = np.full((size, size, 3), 90, np.uint8)
    grid = labeled_grid({"one": [picture, picture], "two\nlines": [picture, picture]})
    assert grid.size == (LABEL_WIDTH + 2 * shown, 2 * shown)
    assert set(np.asarray(grid)[:, LABEL_WIDTH:].flatten()) == {90}
    assert (np.asarray(grid)[:, :LABEL_WIDTH, 0] < 128).any()


def test_pictures_to_train_on_are_not_doubted_as_textures(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("mg_diffusion.encoder.texture.UNEVEN", 0.0)  # so that all pictures are
    pipeline = MGPipeline(**build_components(pictures.captions, 32, [32, 32], 32))
    with pytest.warns(UserWarning, match="looks like objects"):
        pipeline.mg_encoder.encode({"texture": pictures.whole[0].permute(1, 2, 0).numpy()}, (32, 32))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The texture reference")
        save_grid(pipeline, pictures, tmp_path / "grid.png", columns=1)
