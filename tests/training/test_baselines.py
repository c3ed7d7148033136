"""Peers on the frozen base: they start from it, train only what is theirs, and are measured by the bench as we are."""

import json

import numpy as np
import pytest
import torch
from tiny_repository import SIZE, draw, save_tiny_repository

from benchmarks.baselines.__main__ import main
from benchmarks.baselines.gatys import GatysMethod, gram
from benchmarks.baselines.method import BaselineMethod
from benchmarks.baselines.networks import BASELINES, canny, hints_of
from benchmarks.baselines.training import build
from mg_diffusion import MGPipeline
from mg_diffusion.evaluation.squeezenet import SqueezeNet
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.training.renderer import render


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_repository(tmp_path_factory.mktemp("base"))


@pytest.fixture
def components(base):
    return MGPipeline.from_pretrained(base, dtype=torch.float32).components


@pytest.fixture
def references():
    return {name: torch.rand(2, 3, SIZE, SIZE) for name in GRANULARITIES}


def inputs(components):
    unet = components["unet"]
    size = unet.config.sample_size
    noisy, text = torch.randn(2, unet.config.in_channels, size, size), torch.randn(2, 5, 32)
    return noisy, torch.tensor([300, 700]), text


@pytest.mark.parametrize("name", BASELINES)
@torch.no_grad()
def test_strength_zero_is_the_base_row_by_row(name, components, references):
    given = inputs(components)
    expected = components["unet"](*given).sample
    model = build(name, components)
    for parameter in model.parameters():
        if parameter.requires_grad and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    strengths = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    found = model.baseline(*given, model.baseline.encode(references, strengths))
    torch.testing.assert_close(found[0], expected[0])
    assert (found[1] - expected[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", BASELINES)
def test_all_that_is_the_baselines_learns_and_the_base_does_not(name, components, references):
    model = build(name, components)
    theirs = {key: value for key, value in model.named_parameters() if value.requires_grad}
    assert theirs and not any(key.startswith("text_encoder") for key in theirs)
    for parameter in theirs.values():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    condition = model.baseline.encode(references, torch.ones(2, 3))
    model.baseline(*inputs(components), condition).square().sum().backward()
    lazy = [key for key, value in theirs.items() if value.grad is None or not value.grad.any()]
    assert not lazy, lazy
    assert all(value.grad is None for key, value in model.named_parameters() if key not in theirs)


@pytest.mark.parametrize("name", BASELINES)
def test_each_granularity_can_be_left_out(name, components):
    model = build(name, components)
    for parameter in model.parameters():
        if parameter.requires_grad and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    method = BaselineMethod(model.baseline, components, {"num_inference_steps": 2, "guidance_scale": 1.5})
    pictures = {name: [render(place, place, place, size=SIZE)] for place, name in enumerate(GRANULARITIES)}
    everything = method.generate(seeds=[3], **pictures)[0]
    for left_out in GRANULARITIES:
        kept = {key: value for key, value in pictures.items() if key != left_out}
        without, off = (
            method.generate(seeds=[3], **kept)[0],
            method.generate(seeds=[3], scales={left_out: 0.0}, **pictures)[0],
        )
        assert np.abs(everything - without).max() > 1e-3
        np.testing.assert_allclose(without, off, atol=1e-4)


def test_hints_are_what_the_peers_read(references):
    hints = hints_of(references)
    assert hints["color"].shape == (2, 3, SIZE, SIZE) and torch.equal(
        hints["color"][..., 0, 0], hints["color"][..., 3, 3]
    )
    assert hints["texture"].shape == hints["shape"].shape == (2, 1, SIZE, SIZE)
    square = torch.zeros(1, 3, SIZE, SIZE)
    square[..., 8:24, 8:24] = 1
    edges = canny(square)
    assert set(edges.unique().tolist()) == {0.0, 1.0} and edges[0, 0, 14:18, 14:18].max() == 0
    assert edges[0, 0, 16, 5:11].max() == 1


def test_a_baseline_is_trained_and_measured(base, folder, tmp_path, capsys):
    data = tmp_path / "held_out"
    for seed in range(33):
        draw(data / f"{seed}.png", seed)
    run, result = tmp_path / "run", tmp_path / "ip.json"
    flags = f"--train_data_dir {folder} --output_dir {run} --init_from {base} --resolution {SIZE} --train_batch_size 2"
    flags += " --max_train_steps 2 --num_crossings 4 --num_rendered 4 --lr_warmup_steps 1 --checkpointing_steps 2"
    main(["train", "ip_adapter", *flags.split()])
    asked = f"--weights {run} --init_from {base} --data {data} --size {SIZE} --quick --triples 2 --steps 2 -o {result}"
    sections = ["--sections", "retrieval_photographic"]
    main(["bench", "ip_adapter", *asked.split(), *sections])
    found = json.loads(result.read_text())
    assert found["settings"]["model"] == "ip_adapter" and "retrieval_photographic" in found
    assert "| **ip_adapter** |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="another method"):
        main(["bench", "controlnet", *asked.split(), *sections])
    with pytest.raises(SystemExit, match="needs the --output_dir"):
        main(["bench", "t2i_adapter", *asked.replace(str(run), str(tmp_path / "none")).split(), *sections])


def test_our_adapter_is_trained_from_nothing_on_the_same_base(base, folder, tmp_path):
    flags = f"--train_data_dir {folder} --output_dir {tmp_path} --init_from {base} --resolution {SIZE} "
    flags += "--train_batch_size 2 --max_train_steps 2 --num_crossings 4 --num_rendered 4 --lr_warmup_steps 1"
    main(["train", "mg_adapter", *flags.split()])
    before, after = (MGPipeline.from_pretrained(place, dtype=torch.float32) for place in (base, tmp_path / "weights"))
    for name in ("unet", "text_encoder"):
        one, other = (getattr(pipe, name).state_dict() for pipe in (before, after))
        assert all(torch.equal(one[key], other[key]) for key in one), name
    one, other = (pipe.mg_adapter.state_dict() for pipe in (before, after))
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_baselines_are_not_trained_on_a_stream(base, folder, tmp_path):
    flags = f"--train_data_dir {folder} --output_dir {tmp_path} --init_from {base} --streaming"
    with pytest.raises(SystemExit, match="Baselines are compared on the same pictures"):
        main(["train", "mg_adapter", *flags.split()])


def test_texture_optimisation_brings_the_statistics_nearer_and_keeps_colors():
    method = GatysMethod(SqueezeNet().eval().requires_grad_(False))
    pictures = {name: [render(place, place, place, size=SIZE)] for place, name in enumerate(GRANULARITIES)}
    made = method.generate(seeds=[0], **pictures)[0]
    assert made.shape == (SIZE, SIZE, 3) and 0 <= made.min() and made.max() <= 1
    assert np.abs(made.mean((0, 1)) - pictures["color"][0].mean((0, 1))).max() < 0.1
    luminance, wanted = torch.rand(1, 1, SIZE, SIZE), torch.rand(1, 1, SIZE // 4, SIZE // 4).repeat(1, 1, 4, 4)
    before, after, aim = (
        gram(method._features(x)["conv1"]) for x in (luminance, method._stylised(luminance, wanted), wanted)
    )
    assert (after - aim).norm() < 0.8 * (before - aim).norm()


def test_texture_optimisation_says_what_it_cannot_do():
    method = GatysMethod(SqueezeNet())
    with pytest.raises(ValueError, match="has no strengths"):
        method.generate(seeds=[0], color=[], texture=[])
    with pytest.raises(ValueError, match="does not edit"):
        method.edit([], [], {}, [])
