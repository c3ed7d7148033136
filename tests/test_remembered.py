"""Views of references and sketches that were made before."""

import copy
import pickle

import pytest
import torch

from mg_diffusion import MGPipeline
from mg_diffusion.encoder.remembered import Remembered


@pytest.fixture
def counted():
    """A function of tensors, and how often it ran."""
    runs = []

    def double(one, scale=2.0):
        runs.append(one)
        return one * scale

    return double, runs


def test_the_same_content_is_computed_once_whatever_holds_it(counted):
    (double, runs), remembered = counted, Remembered()
    one = torch.rand(3, 4)
    first = remembered(double, one)
    assert torch.equal(remembered(double, one.clone()), first) and len(runs) == 1
    assert torch.equal(remembered(double, one.t().contiguous().t()), first) and len(runs) == 1


@pytest.mark.parametrize(
    "other",
    [
        lambda one: (one + 1,),
        lambda one: (one.double(),),
        lambda one: (one.reshape(4, 3),),
        lambda one: (one, 3.0),
        lambda one: (one.bfloat16(),),
    ],
    ids=["content", "type", "shape", "argument", "half"],
)
def test_what_differs_is_computed_anew(counted, other):
    (double, runs), remembered = counted, Remembered()
    one = torch.rand(3, 4)
    remembered(double, one)
    given = other(one)
    assert torch.equal(remembered(double, *given), given[0] * (given[1] if len(given) > 1 else 2.0)) and len(runs) == 2


def test_what_was_used_least_recently_is_forgotten_first(counted):
    (double, runs), remembered = counted, Remembered(most_bytes=2 * 4 * 10)
    a, b, c = (torch.full((10,), float(n)) for n in range(3))
    for one in (a, b, a, c, a):
        remembered(double, one)
    assert len(runs) == 3
    remembered(double, b)
    assert len(runs) == 4
    remembered(double, torch.zeros(1000))
    assert sum(one.nbytes for one in remembered.results.values()) <= 80


def test_gradients_and_inference_mode_are_not_mixed_up(counted):
    (double, _), remembered = counted, Remembered()
    one = torch.rand(3, requires_grad=True)
    remembered(double, one).sum().backward()
    assert torch.equal(one.grad, torch.full((3,), 2.0)) and not remembered.results
    plain = one.detach()
    with torch.inference_mode():
        remembered(double, plain)
    assert not remembered(double, plain).is_inference()


def test_copies_and_pickles_are_empty(counted):
    remembered = Remembered(1234)
    remembered(counted[0], torch.rand(3))
    for other in (copy.deepcopy(remembered), pickle.loads(pickle.dumps(remembered))):
        assert not other.results and other.most_bytes == 1234


def test_a_call_with_the_same_references_gives_the_same_picture_without_looking_again(monkeypatch):
    pipe = MGPipeline.from_pretrained("hub_cards/mg-bazaar")
    pipe.set_progress_bar_config(disable=True)
    rng = torch.Generator().manual_seed(0)
    pictures = [torch.rand(3, 80, 96, generator=rng) for _ in range(3)]
    references = dict(zip(("color", "texture", "shape"), pictures, strict=True))
    looked = []
    views = type(pipe.mg_encoder).views
    monkeypatch.setattr(
        type(pipe.mg_encoder), "views", lambda self, *given, **named: looked.append(1) or views(self, *given, **named)
    )

    def paint(**changed):
        options = {"height": 128, "width": 128, "num_inference_steps": 2, "output_type": "pt"}
        generator = torch.Generator().manual_seed(0)
        return pipe(reference_image={**references, **changed}, generator=generator, **options).images

    first = paint()
    assert len(looked) == 3
    assert torch.equal(paint(), first) and len(looked) == 3
    other = paint(shape=pictures[0])
    assert len(looked) == 4 and not torch.equal(other, first)
