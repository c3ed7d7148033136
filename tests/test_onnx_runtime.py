"""Networks computed by ONNX Runtime give what torch gives, and torch does what a graph cannot; needs the extra `onnx`."""

import copy
import importlib.util
import pickle

import pytest
import torch

from mg_diffusion import onnx_runtime
from mg_diffusion.loading import load_pipeline
from mg_diffusion.pipelines import MGPipeline


missing = [name for name in onnx_runtime.NEEDED if importlib.util.find_spec(name) is None]
with_runtime = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}; pip install '.[onnx]'")
REFERENCES = {"color": ["#c81e1e", "#f5deb3"]}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where graphs are kept: of this test alone."""
    monkeypatch.setattr(onnx_runtime, "cached_assets_path", lambda *place: tmp_path / "graphs")
    (tmp_path / "graphs").mkdir()
    return tmp_path / "graphs"


def painted(pipe, **more):
    given = {"reference_image": REFERENCES, "num_inference_steps": 2, "output_type": "pt", **more}
    return pipe(generator=torch.Generator().manual_seed(0), **given).images


def pair(model):
    pipes = [load_pipeline(MGPipeline, str(model), device="cpu", runtime=one) for one in ("torch", "onnxruntime")]
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
    return pipes


@with_runtime
def test_pictures_are_those_of_torch_and_graphs_are_kept(model, cache):
    by_torch, by_onnx = pair(model)
    for more in ({}, {"reference_image": None, "num_images_per_prompt": 2}):
        torch.testing.assert_close(painted(by_onnx, **more), painted(by_torch, **more), atol=1e-4, rtol=0)
    kept = {one.name for one in cache.iterdir()}
    assert len(by_onnx.unet.forward.graphs) == len(kept) == 2 and None not in by_onnx.unet.forward.graphs.values()
    assert all((cache / name / "graph.onnx").is_file() for name in kept)

    again = pair(model)[1]
    again.unet.forward.load = counted = Counting(again.unet.forward.load)
    painted(again)
    assert counted.places == [cache / one for one in kept if (cache / one) in counted.places] and counted.places


class Counting:
    """Loads as before, and notes from where."""

    def __init__(self, load):
        self.load, self.places = load, []

    def __call__(self, place):
        self.places.append(place)
        return self.load(place)


@with_runtime
def test_other_weights_are_another_graph(model):
    by_torch, by_onnx = pair(model)
    before = painted(by_onnx)
    for pipe in (by_torch, by_onnx):
        with torch.no_grad():
            pipe.unet.conv_out.weight.mul_(-1.5)
    after = painted(by_onnx)
    assert (after - before).abs().max() > 1e-2
    torch.testing.assert_close(after, painted(by_torch), atol=1e-4, rtol=0)


@with_runtime
def test_weights_that_change_without_a_version_are_another_graph(model):
    """As merged LoRAs do."""
    by_torch, by_onnx = pair(model)
    painted(by_onnx)
    for pipe in (by_torch, by_onnx):
        pipe.unet.conv_out.weight.data += 0.05
    torch.testing.assert_close(painted(by_onnx), painted(by_torch), atol=1e-4, rtol=0)


@with_runtime
def test_what_is_hooked_already_is_refused(model):
    by_torch, _ = pair(model)
    by_torch.unet.forward = lambda *args, **kwargs: None
    with pytest.raises(ValueError, match="before `enable_model_cpu_offload`"):
        onnx_runtime.use_onnx_runtime(by_torch)


def test_a_device_that_is_no_cpu_is_refused_before_anything_is_loaded():
    with pytest.raises(ValueError, match="computes on a CPU, and the device is 'meta'.*`device=\"cpu\"`"):
        load_pipeline(MGPipeline, "nobody/no-such-model", device="meta", runtime="onnxruntime")


@pytest.mark.parametrize(("place", "named"), [("meta", "on meta"), (torch.bfloat16, "in bfloat16")])
def test_networks_out_of_reach_are_refused_and_later_moves_told(model, place, named):
    pipe = load_pipeline(MGPipeline, str(model), device="cpu")
    pipe.unet.to(place)
    with pytest.raises(ValueError, match=f"on a CPU in float32, and UNet2DConditionModel of the pipeline is {named}"):
        onnx_runtime.use_onnx_runtime(pipe)
    assert "forward" not in pipe.unet.__dict__
    pipe = load_pipeline(MGPipeline, str(model), device="cpu")
    unet, config = pipe.unet, pipe.unet.config
    unet.forward = onnx_runtime.OnnxForward(unet)
    unet.to(place)
    sample = torch.zeros(1, config.in_channels, 8, 8).to(place)
    text = torch.zeros(1, 2, config.cross_attention_dim).to(place)
    with torch.no_grad(), pytest.warns(UserWarning, match=f"UNet2DConditionModel is {named} by now") as told:
        unet(sample, 1, text), unet(sample, 1, text)
    assert len(told) == 1 and not unet.forward.graphs


@with_runtime
@pytest.mark.parametrize("part", ["graph.onnx", "graph.onnx.data"])
def test_a_damaged_graph_is_told_and_made_anew(model, cache, part):
    by_torch, by_onnx = pair(model)
    painted(by_onnx)
    (kept,) = cache.iterdir()
    if not (kept / part).exists():
        pytest.skip("small graphs hold their weights themselves")
    whole = (kept / part).read_bytes()
    (kept / part).write_bytes(whole[: len(whole) // 3])
    again = pair(model)[1]
    with pytest.warns(UserWarning, match="is damaged and is made anew"):
        made = painted(again)
    torch.testing.assert_close(made, painted(by_torch), atol=1e-4, rtol=0)
    assert None not in again.unet.forward.graphs.values() and (kept / part).stat().st_size == len(whole)


@with_runtime
def test_torch_does_what_a_graph_cannot(model):
    by_torch, by_onnx = pair(model)
    changes = (
        lambda pipe: pipe.unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4),
        lambda pipe: pipe.unet.up_blocks[0].register_forward_hook(lambda *given: None),
        lambda pipe: pipe.unet.train(),
    )
    for change in changes:
        copies = [MGPipeline(**{**one.components, "unet": copy.deepcopy(one.unet)}) for one in (by_torch, by_onnx)]
        for one in copies:
            one.set_progress_bar_config(disable=True)
            change(one)
        assert torch.equal(*(painted(one) for one in copies)) and not copies[1].unet.forward.graphs
    sample = torch.zeros(1, by_onnx.unet.config.in_channels, 8, 8, requires_grad=True)
    text = torch.zeros(1, 2, by_onnx.unet.config.cross_attention_dim)
    by_onnx.unet(sample, 1, text).sample.sum().backward()
    assert sample.grad is not None and not by_onnx.unet.forward.graphs


@with_runtime
def test_copies_and_pickles_compute_by_themselves(model):
    unet = pair(model)[1].unet
    for one in (copy.deepcopy(unet), pickle.loads(pickle.dumps(unet))):
        assert one.forward.network is one and one.forward.stock.__self__ is one


@with_runtime
def test_what_cannot_be_exported_torch_computes(model, monkeypatch):
    by_torch, by_onnx = pair(model)
    monkeypatch.setattr(onnx_runtime, "export", lambda *given: 1 / 0)
    with pytest.warns(UserWarning, match="could not be exported for ONNX Runtime, torch computes it"):
        found = painted(by_onnx)
    assert torch.equal(found, painted(by_torch))


def test_what_is_missing_is_named(model, monkeypatch):
    monkeypatch.setattr(onnx_runtime, "NEEDED", ("onnxruntime_of_nobody",))
    with pytest.raises(ValueError, match=r"needs onnxruntime_of_nobody: pip install 'mg-diffusion\[onnx\]'"):
        load_pipeline(MGPipeline, str(model), device="cpu", runtime="onnxruntime")
    with pytest.raises(ValueError, match='`runtime` must be "torch" or "onnxruntime", got \'tensorrt\''):
        load_pipeline(MGPipeline, str(model), runtime="tensorrt")
