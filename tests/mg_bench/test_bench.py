"""MG-Bench as a whole, on a very small untrained model: every section runs and says what it should."""

import json
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from tiny_repository import SIZE, save_tiny_repository

from mg_diffusion import MGInpaintPipeline, MGPipeline
from mg_diffusion.mg_bench.drawing import picture_grid, plots
from mg_diffusion.mg_bench.methods import PipelineMethod
from mg_diffusion.mg_bench.pools import Pool, read_pool, rendered_pool
from mg_diffusion.mg_bench.run import reconstructor, run_bench
from mg_diffusion.mg_bench.sections import NEEDS, SECTIONS, Bench, Sizes, halves, photographic_triples


SMALL = Sizes(
    rendered_pool=33,
    synthetic_triples=2,
    synthetic_seeds=2,
    photographic_triples=5,
    cases=2,
    response_triples=2,
    strengths=(0.0, 0.5, 1.0),
    diversity_triples=2,
    diversity_seeds=2,
    edits=3,
)


def mean_colors(pictures):
    return np.stack([picture.reshape(-1, 3).mean(0) for picture in pictures])


@pytest.fixture(scope="module")
def pipes(tmp_path_factory):
    pipe = MGPipeline.from_pretrained(save_tiny_repository(tmp_path_factory.mktemp("model")))
    return pipe, MGInpaintPipeline(**pipe.components)


@pytest.fixture
def bench(pipes):
    settings = {"num_inference_steps": 2, "height": SIZE, "width": SIZE}
    scales = {"color": 1.0, "texture": 1.0, "shape": 1.0}
    return Bench(
        PipelineMethod(*pipes, settings, scales),
        rendered_pool(SMALL.rendered_pool, SIZE, 0),
        Pool(rendered_pool(34, SIZE, 1).pictures, "pictures"),
        SMALL,
        seed=0,
        batch_size=4,
        training=rendered_pool(5, SIZE, 2).pictures,
        features=mean_colors,
        reconstruct=reconstructor(pipes[0].vae),
    )


def test_all_sections_run_and_are_reported(bench, tmp_path, capsys):
    output = tmp_path / "bench.json"
    result = run_bench(bench, model="tiny", sections=list(SECTIONS), output=output, pictures=tmp_path)
    assert set(result) == {"settings", *SECTIONS}
    assert json.loads(output.read_text()) == json.loads(json.dumps(result))
    assert {path.name for path in tmp_path.glob("*.png")} == {"grid.png", "failures.png", "pairs.png", "plots.png"}
    printed = capsys.readouterr().out
    for words in (
        "| **tiny** |",
        "| the true answer |",
        "color moves",
        "rank correlation",
        "Telea",
        "Diversity",
        "| AUC |",
    ):
        assert words in printed
    assert result["editing_fidelity"]["method"]["exactness"]["pixels"] == 0
    assert result["editing_control"]["exactness"]["pixels"] == 0
    assert result["retrieval_synthetic"]["reference_lines"]["oracle"]["pairwise"]["color"]["mean"] > 0.9
    assert set(result["quality"]) >= {"samples", "reconstructions", "real"}


def test_pictures_go_through_the_autoencoder(pipes):
    picture = rendered_pool(1, SIZE, 5).pictures[0]
    np.testing.assert_allclose(
        reconstructor(pipes[0].vae)(picture), picture, atol=1e-4
    )  # the Haar codec loses nothing


def test_copies_of_references_are_not_nearer_to_real_pictures_than_others(bench):
    """Quality is judged against photographs that are no references, or copying would seem better than real pictures."""
    sources = {place for triple in photographic_triples(bench) for place in triple.values()}
    real, other = halves(bench)
    assert sources <= set(other) and not sources & set(real)


def test_a_model_without_text_is_measured(pipes, bench):
    components = {**pipes[0].components, "text_encoder": None, "tokenizer": None}
    method = PipelineMethod(MGPipeline(**components), MGInpaintPipeline(**components), bench.method.settings, {})
    picture = bench.rendered.pictures
    assert method.generate(seeds=[3], color=[picture[0]], shape=[picture[2]])[0].shape == (SIZE, SIZE, 3)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[4:20, 4:20] = True
    assert method.edit([picture[1]], [mask], {}, [3])[0].shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("name, needs", NEEDS.items())
def test_a_section_knows_what_it_needs(bench, name, needs):
    for need in needs:
        if need not in SECTIONS:
            setattr(bench, need, None)
    assert SECTIONS[name](bench) is None


def test_a_section_can_be_run_again_alone(bench, tmp_path):
    output = tmp_path / "a.json"
    run_bench(bench, model="tiny", sections=["editing_fidelity"], output=output, pictures=None)
    result = run_bench(bench, model="tiny", sections=["editing_control"], output=output, pictures=None)
    assert set(result) == {"settings", "editing_fidelity", "editing_control"}
    bench.seed = 1
    again = {"model": "tiny", "sections": ["editing_control"], "output": output, "pictures": None}
    before = output.read_bytes()
    with pytest.raises(ValueError, match="There is a file at .*a.json' already.*--force"):
        run_bench(bench, **again)
    assert output.read_bytes() == before
    result = run_bench(bench, **again, force=True)
    assert set(result) == {"settings", "editing_control"}


def test_what_is_missing_is_left_out(bench, tmp_path):
    bench.features = bench.training = None
    sections = ["quality", "diversity", "memorisation", "editing_fidelity"]
    result = run_bench(bench, model="tiny", sections=sections, output=tmp_path / "a.json", pictures=None)
    assert set(result) == {"settings", "editing_fidelity"}


def test_the_oracle_has_the_factors_but_another_piece_of_the_texture():
    pool = rendered_pool(4, SIZE, 3)
    again = pool.oracle({"color": 2, "texture": 2, "shape": 2})
    assert again.shape == (SIZE, SIZE, 3)
    assert 0.01 < np.abs(again - pool.pictures[2]).mean() < 0.2
    assert not np.array_equal(again, pool.oracle({"color": 2, "texture": 2, "shape": 2}, phase=1))


def test_gray_of_16_bits_is_scaled_and_numbers_without_a_white_are_refused(tmp_path):
    for index in range(32):
        PIL.Image.fromarray(np.full((8, 8), 1000 * index, np.uint16)).save(tmp_path / f"{index:02d}.png")
    pool = read_pool(str(tmp_path), None, 4)
    assert np.abs(pool.pictures[31] - 31_000 / 65_535).max() < 1 / 255
    PIL.Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="float.tif' cannot be read as a picture: its mode is F. Nobody knows"):
        read_pool(str(tmp_path), None, 4)


def test_strengths_reach_the_pipeline(bench):
    picture = bench.rendered.pictures
    references = {"color": [picture[0]], "texture": [picture[1]], "shape": [picture[2]]}
    on, off = (bench.method.generate(seeds=[3], scales={"color": value}, **references)[0] for value in (1.0, 0.0))
    without = bench.method.generate(seeds=[3], texture=[picture[1]], shape=[picture[2]])[0]
    assert np.abs(on - off).max() > 1e-3
    np.testing.assert_allclose(off, without, atol=1e-5)


def test_nothing_to_plot_is_no_plot():
    assert plots({"settings": {}}) is None


def test_a_grid_has_a_row_for_each_name():
    pictures = list(np.random.default_rng(0).random((3, 8, 10, 3)))
    image = picture_grid([("color", pictures), ("output", pictures[:2])])
    assert image.size == (84 + 3 * 14, 2 * 12)


def test_the_evaluation_package_is_an_entry_to_the_bench():
    found = subprocess.run(
        [sys.executable, "-m", "mg_diffusion.evaluation", "--help"], capture_output=True, text=True, check=True
    )
    assert "--quick" in found.stdout and "bench" in found.stdout
