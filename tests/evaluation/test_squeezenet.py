import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from mg_diffusion.evaluation.squeezenet import load_squeezenet, perceptual_distance, pooled_features, texture_grams

from . import render


REAL = os.environ.get("MG_SQUEEZENET")
SHAPES = {"conv1": (64, 3, 3, 3), "conv10": (1000, 512, 1, 1)}
for _fire, _channels, _squeezed in (
    *((2, 64, 16), (3, 128, 16), (4, 128, 32), (5, 256, 32)),
    *((6, 256, 48), (7, 384, 48), (8, 384, 64), (9, 512, 64)),
):
    SHAPES[f"fire{_fire}/squeeze1x1"] = (_squeezed, _channels, 1, 1)
    SHAPES[f"fire{_fire}/expand1x1"] = (4 * _squeezed, _squeezed, 1, 1)
    SHAPES[f"fire{_fire}/expand3x3"] = (4 * _squeezed, _squeezed, 3, 3)


@pytest.fixture(scope="module")
def tensors():
    """Random weights, in the names, shapes and precision of the released ones."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, shape in SHAPES.items():
        fan_in = shape[1] * shape[2] * shape[3]
        made[f"{name}.weight"] = (torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5).half()
        made[f"{name}.bias"] = torch.randn(shape[0], generator=generator).half()
    return made


@pytest.fixture(scope="module")
def net(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    save_file(tensors, path)
    return load_squeezenet(path)


@pytest.fixture(scope="module")
def pictures():
    return [render(seed, seed, seed) for seed in range(5)]


def as_pixels(pictures) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()


def reference_logits(tensors: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """The forward pass, straight from the tensors."""

    def convolved(x, name, **settings):
        return F.conv2d(x, tensors[f"{name}.weight"].float(), tensors[f"{name}.bias"].float(), **settings).relu()

    blue_green_red = pixels[:, [2, 1, 0]] * 255 - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
    x = convolved(blue_green_red, "conv1", stride=2)
    for fire in range(2, 10):
        if fire in (2, 4, 6):
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        x = convolved(x, f"fire{fire}/squeeze1x1")
        x = torch.cat([convolved(x, f"fire{fire}/expand1x1"), convolved(x, f"fire{fire}/expand3x3", padding=1)], 1)
    return convolved(x, "conv10").mean((2, 3))


def test_stages_and_logits_are_those_of_the_release(net, tensors):
    pixels = torch.rand(2, 3, 98, 110)  # sides that ceil_mode matters for
    torch.testing.assert_close(net(pixels), reference_logits(tensors, pixels), rtol=1e-4, atol=1e-3)
    pixels = torch.rand(1, 3, 96, 96)
    assert {name: tuple(stage.shape[1:]) for name, stage in net.stages(pixels).items()} == {
        "conv1": (64, 47, 47),
        "fire3": (128, 23, 23),
        "fire5": (256, 11, 11),
        "fire6": (384, 5, 5),
        "fire7": (384, 5, 5),
        "fire8": (512, 5, 5),
        "fire9": (512, 5, 5),
    }


@pytest.mark.skipif(not REAL, reason="set MG_SQUEEZENET to the real weights of SqueezeNet 1.1 to check their figures")
def test_real_weights_give_the_published_figures():
    net = load_squeezenet(REAL)
    pixels = torch.linspace(0, 1, 3 * 96 * 96).reshape(1, 3, 96, 96)
    assert net.stages(pixels)["fire9"].sum().item() == pytest.approx(4689.6, abs=0.1)
    logits = net(pixels)[0]
    assert logits.argmax().item() == 65
    assert logits.max().item() == pytest.approx(9.759, abs=1e-3)


def test_pooled_features_do_not_depend_on_the_batch(net, pictures):
    rows = pooled_features(net, pictures)
    assert rows.shape == (5, 128 + 256 + 512) and rows.dtype == np.float32
    assert rows.min() >= 0 and rows.std(0).max() > 0
    np.testing.assert_allclose(pooled_features(net, pictures[::-1], batch_size=2)[::-1], rows, rtol=1e-3, atol=1e-4)


def test_channels_count_by_their_direction_at_each_position(net, pictures):
    stages = net.stages(F.interpolate(as_pixels(pictures[:1]), size=(128, 128), mode="bilinear"))
    expected = []
    for name, channels in (("fire3", 128), ("fire5", 256), ("fire9", 512)):
        found = stages[name][0].reshape(channels, -1).double()
        expected.append((found / (found**2).mean(0).sqrt()).mean(1))
    np.testing.assert_allclose(pooled_features(net, pictures[:1])[0], torch.cat(expected), rtol=1e-3, atol=1e-4)


def test_small_pictures_are_scaled_up_bilinearly_and_large_ones_left_alone(net, pictures):
    large = F.interpolate(as_pixels(pictures), size=(128, 128), mode="bilinear").permute(0, 2, 3, 1).numpy()
    rows = pooled_features(net, large)
    np.testing.assert_allclose(pooled_features(net, pictures), rows, rtol=1e-3, atol=1e-4)
    assert np.abs(pooled_features(net, large.repeat(2, 1).repeat(2, 2)) - rows).max() > 0.05
    assert pooled_features(net, [picture[:32] for picture in pictures]).shape == rows.shape


def test_perceptual_distance_is_zero_to_itself_symmetric_and_grows(net, pictures):
    noise = np.random.default_rng(0).standard_normal((64, 64, 3))
    slight, strong = ([(p + size * noise).clip(0, 1) for p in pictures] for size in (0.02, 0.3))
    np.testing.assert_allclose(perceptual_distance(net, pictures, pictures), np.zeros(5), atol=1e-6)
    little = perceptual_distance(net, pictures, slight, batch_size=2)
    much = perceptual_distance(net, pictures, strong)
    assert little.shape == (5,)
    assert (0 < little).all() and (little < much).all() and (much < 2).all()
    np.testing.assert_allclose(perceptual_distance(net, strong, pictures), much, rtol=1e-4)


def test_grams_find_a_texture_in_other_colors_and_places(net):
    """With random weights, too: stripes and dots do not make the same filters respond together."""
    y, x = np.mgrid[:128, :128]
    textures = [np.sin(x / 2), np.sin(x / 2) * np.sin(y / 2), np.sin((x + y) / 5), np.sin(y / 1.5)]
    pictures = [np.stack([0.5 + 0.3 * one] * 3, -1) for one in textures]
    others = [np.roll(picture, 9, (0, 1)) * [0.9, 0.6, 0.3] for picture in pictures]
    own, found = texture_grams(net, pictures), texture_grams(net, others)
    assert own.shape == (4, 128 * 128) and np.allclose(np.linalg.norm(own, axis=1), 1, atol=1e-5)
    between = np.linalg.norm(found[:, None] - own, axis=2)
    assert (between.argmin(1) == np.arange(4)).all()


def test_networks_are_frozen(net):
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in net.parameters())


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="SqueezeNet weights, got '.*nowhere.safetensors', where there is none. Give"):
        load_squeezenet(tmp_path / "nowhere.safetensors")
    path = tmp_path / "text.safetensors"
    path.write_text("not weights")
    with pytest.raises(ValueError, match="expected a safetensors file, got '.*text.safetensors'.*Give the path"):
        load_squeezenet(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1.bias": None}, "the 52 tensors .* got 51: conv1.bias lacking, none foreign. Give the path"),
        ({"fc.weight": torch.ones(1)}, "got 53: none lacking, fc.weight foreign"),
        ({"conv1.bias": torch.ones(96)}, r"conv1.bias of shape \(64,\) in '.*', got \(96,\)"),
        ({f"fire{n}/expand1x1.bias": None for n in range(2, 8)}, "got 46: .*, fire4/expand1x1.bias, 3 more lacking"),
    ],
)
def test_other_tensors_are_refused(tensors, tmp_path, change, message):
    changed = {name: tensor for name, tensor in {**tensors, **change}.items() if tensor is not None}
    save_file(changed, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=message):
        load_squeezenet(tmp_path / "other.safetensors")


def test_wrong_pictures_are_refused(net, pictures):
    with pytest.raises(ValueError, match="at least one picture, got none"):
        pooled_features(net, [])
    with pytest.raises(ValueError, match=r"of one size, got \[\(64, 48, 3\), \(64, 64, 3\)\]: resize or crop"):
        pooled_features(net, [pictures[0], pictures[1][:, :48]])
    with pytest.raises(ValueError, match="got uint8: divide 8-bit pictures by 255"):
        pooled_features(net, [np.zeros((64, 64, 3), np.uint8)])
    with pytest.raises(ValueError, match="as many pictures in b as in a, got 2 and 1: they are compared in pairs"):
        perceptual_distance(net, pictures[:1], pictures[:2])
    with pytest.raises(ValueError, match=r"pairs of one size, got \(64, 64\) and \(64, 48\): resize one"):
        perceptual_distance(net, pictures[:1], [pictures[1][:, :48]])
