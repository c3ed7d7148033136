"""Encoders, adapters and pipelines go to other processes."""

import copy
import multiprocessing
import pickle

import pytest
import torch

from mg_diffusion import MGEncoder, MGPipeline


@pytest.fixture
def views():
    encoder = MGEncoder(sample_size=64)
    return encoder, encoder.views(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))


def vector(encoder, views):
    with torch.no_grad():
        return encoder(views)["shape"][0]["vector"]


@pytest.mark.parametrize(
    "copied", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy], ids=["pickle", "deepcopy"]
)
def test_an_encoder_and_its_copy_give_the_same_before_and_after_it_was_used(views, copied):
    encoder, views = views
    other = copied(encoder)
    expected = vector(encoder, views)
    assert torch.equal(vector(other, views), expected)
    again = copied(encoder)
    assert torch.equal(vector(again, views), expected) and torch.equal(vector(encoder, views), expected)


def count_pictures(pipe, queue):
    queue.put(len(pipe(num_inference_steps=1, height=64, width=64).images))


def test_a_pipeline_goes_to_a_spawned_process():
    pipe = MGPipeline.from_pretrained("hub_cards/mg-bazaar")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=count_pictures, args=(pipe, queue))
    process.start()
    assert queue.get(timeout=120) == 1
    process.join()
