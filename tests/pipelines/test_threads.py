"""Calls at work on one UNet at the same time: each makes what it makes alone, or is refused before anything is computed."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch

from mg_diffusion import MGAdapter
from mg_diffusion.pipelines import MGInpaintPipeline, MGPipeline

from .tiny import picture, seeded


STEPS = 3


def beside(pipeline, kind=MGPipeline, **changed):
    """A pipeline for another thread, over the same networks."""
    other = kind(**{**pipeline.components, "scheduler": copy.deepcopy(pipeline.scheduler), **changed})
    other.set_progress_bar_config(disable=True)
    return other


def painted(pipeline, color, **more):
    references = {"color": [color], "shape": picture(3)}
    if isinstance(pipeline, MGInpaintPipeline):
        more |= {"image": picture(4, 16, 16), "mask_image": np.eye(16, dtype=bool)}
    given = {"reference_image": references, "num_inference_steps": STEPS, "output_type": "np", **more}
    return pipeline(generator=seeded(), **given).images


def at_the_same_time(first, second, **more):
    """Pictures of two threads: the second begins within the first, the first ends within the second."""
    second_is_at_work, first_is_done, made, threads = threading.Event(), threading.Event(), {}, []

    def run_second():
        def go_on_when_the_first_is_done(pipe, i, t, tensors):
            second_is_at_work.set()
            first_is_done.wait(20)
            return {}

        try:
            made["second"] = painted(second, "#1020c1", callback_on_step_end=go_on_when_the_first_is_done)
        except (ValueError, RuntimeError) as error:
            made["second"] = error
        second_is_at_work.set()

    def begin_the_second(pipe, i, t, tensors):
        if not threads:
            threads.append(threading.Thread(target=run_second))
            threads[0].start()
            second_is_at_work.wait(20)
        return {}

    try:
        made["first"] = painted(first, "#c11210", callback_on_step_end=begin_the_second, **more)
    finally:
        first_is_done.set()
        threads[0].join()
    return made["first"], made["second"]


def is_stock(unet):
    names = {type(one).__name__ for one in unet.attn_processors.values()}
    return names == {"AttnProcessor2_0"} and not [name for name in vars(unet) if name.startswith("_mg")]


@pytest.mark.parametrize("kind", [MGPipeline, MGInpaintPipeline], ids=["generate", "edit"])
def test_threads_over_one_unet_paint_what_each_paints_alone(make, kind):
    first = make(text=False)
    second = beside(first, kind)
    alone = painted(first, "#c11210"), painted(second, "#1020c1")
    made = at_the_same_time(first, second)
    assert all(np.array_equal(one, other) for one, other in zip(made, alone, strict=True))
    assert is_stock(first.unet) and not [name for name in vars(first.scheduler) if name.startswith("_mg")]


def test_a_call_within_a_callback_changes_nothing(make):
    first = make(text=False)
    second, within = beside(first), []
    alone = painted(first, "#c11210"), painted(second, "#1020c1")

    def paint_another(pipe, i, t, tensors):
        within.append(painted(second, "#1020c1"))
        return {}

    assert np.array_equal(painted(first, "#c11210", callback_on_step_end=paint_another), alone[0])
    assert len(within) == STEPS and all(np.array_equal(one, alone[1]) for one in within)
    assert is_stock(first.unet)


def test_a_call_goes_on_where_the_one_that_attached_fails(make):
    first = make(text=False)
    second, made, threads = beside(first), [], []
    alone = painted(second, "#1020c1")
    is_at_work, has_failed = threading.Event(), threading.Event()

    def go_on(pipe, i, t, tensors):
        is_at_work.set()
        has_failed.wait(20)
        return {}

    def fail(pipe, i, t, tensors):
        work = lambda: made.append(painted(second, "#1020c1", callback_on_step_end=go_on))  # noqa: E731
        threads.append(threading.Thread(target=work))
        threads[0].start()
        is_at_work.wait(20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        painted(first, "#c11210", callback_on_step_end=fail)
    has_failed.set()
    threads[0].join()
    assert np.array_equal(made[0], alone) and is_stock(first.unet)


def test_copies_of_what_is_at_work_are_as_if_it_were_not(make):
    first, copies = make(text=False), []

    def take(pipe, i, t, tensors):
        copies.append((copy.deepcopy(pipe.unet), copy.deepcopy(pipe.scheduler)))
        copies.append((pickle.loads(pickle.dumps(pipe.unet)), pickle.loads(pickle.dumps(pipe.scheduler))))
        return {}

    expected = painted(first, "#c11210", callback_on_step_end=take)
    for unet, scheduler in copies[:2]:
        assert not [one for one in unet.attn_processors.values() if "MG" in type(one).__name__]
        other = beside(first, unet=unet, scheduler=scheduler)
        assert np.array_equal(painted(other, "#c11210"), expected)
        assert is_stock(unet)


def test_one_scheduler_serves_one_thread(make):
    first = make(text=False)
    alone = painted(first, "#c11210")
    made, refused = at_the_same_time(first, beside(first, scheduler=first.scheduler))
    assert isinstance(refused, RuntimeError) and "copy.deepcopy(pipe.scheduler)" in str(refused)
    assert np.array_equal(made, alone)
    assert np.array_equal(painted(first, "#c11210"), alone)


def test_another_kind_of_adapter_waits_for_its_turn(make):
    first = make(text=False)
    adapter = MGAdapter.from_unet(first.unet, first.mg_encoder, num_tokens=3, token_dim=16).eval()
    second = beside(first, mg_adapter=adapter)
    made, refused = at_the_same_time(first, second)
    assert isinstance(refused, ValueError) and "copy.deepcopy(pipe.unet)" in str(refused)
    assert np.isfinite(painted(second, "#1020c1")).all() and is_stock(first.unet)


def test_blocks_that_are_compiled_one_by_one_serve_one_thread(make):
    first = make(text=False)
    first.unet.compile_repeated_blocks(backend="eager")
    alone = painted(first, "#c11210")
    made, refused = at_the_same_time(first, beside(first))
    assert isinstance(refused, RuntimeError) and "unet.compile()" in str(refused)
    assert np.array_equal(made, alone) and is_stock(first.unet)
    torch._dynamo.reset()


def test_many_threads_come_and_go(make):
    first = make(text=False)
    colors = [f"#{40 * index:02x}20c1" for index in range(4)]
    alone, wrong = {color: painted(first, color, num_inference_steps=1) for color in colors}, []

    def work(color):
        own = beside(first)
        for _ in range(5):
            if not np.array_equal(painted(own, color, num_inference_steps=1), alone[color]):
                wrong.append(color)

    threads = [threading.Thread(target=work, args=(color,)) for color in colors]
    [one.start() for one in threads]
    [one.join() for one in threads]
    assert not wrong and is_stock(first.unet)
