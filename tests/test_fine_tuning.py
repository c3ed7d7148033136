"""The page about fine-tuning: its commands can be given, its figures are those of the results, its benchmark runs."""

import json
import re
import shlex
import shutil

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import torch
from tiny_repository import SIZE, draw

from benchmarks.fine_tuning import __main__ as command
from benchmarks.fine_tuning import pictures
from benchmarks.pages import FINE_TUNING_PAGE, rewritten
from mg_diffusion import cli
from mg_diffusion.loading import embedded_model, many_steps_unet
from mg_diffusion.pipelines.components import reads_guidance
from mg_diffusion.training.arguments import FINE_TUNING, build_parser, parse_args
from mg_diffusion.training.base import load_base


PAGE = FINE_TUNING_PAGE.read_text(encoding="utf-8")


def commands(start):
    """The arguments of the page's commands that begin so, lines joined."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in blocks.splitlines()]
    found = [words for words in lines if start in words]
    return [words[words.index(start) + 1 :] for words in found]


def test_the_training_commands_of_the_page_can_be_given():
    given = commands("mg_diffusion.training")
    assert len(given) == 2
    whole, lora = (parse_args(words) for words in given)
    assert whole.init_from == lora.init_from == "mg-bazaar"
    assert whole.lora_rank is None and lora.lora_rank == 16
    for args in (whole, lora):
        assert args.train_data_dir == "my-pictures"
        changed = {name for name, value in FINE_TUNING.items() if getattr(args, name) != value}
        assert changed <= ({"learning_rate"} if args is lora else set())


def test_the_other_commands_of_the_page_can_be_given():
    given = [words for words in commands("mg-diffusion") if words[0] != "data"]
    assert {words[0] for words in given} == {"generate", "bench", "export"}
    for words in given:
        assert cli.build_parser().parse_args(words).command == words[0]


def test_fine_tuning_has_defaults_of_its_own_which_flags_overrule():
    needed = ["base", "--train_data_dir", "p", "--output_dir", "r"]
    usual, tuned = (vars(parse_args([*needed, *more])) for more in ([], ["--init_from", "mg-bazaar"]))
    assert {name: tuned[name] for name in FINE_TUNING} == FINE_TUNING
    assert all(usual[name] != value for name, value in FINE_TUNING.items())
    given = parse_args([*needed, "--init_from", "mg-bazaar", "--max_train_steps", "3000"])
    assert given.max_train_steps == 3000 and given.train_batch_size == FINE_TUNING["train_batch_size"]
    assert vars(build_parser().parse_args(needed))["learning_rate"] == 1e-3


def test_the_embedded_default_has_a_name_to_start_from(shipped):
    assert reads_guidance(shipped.unet)  # distilled: training goes on from what it learned from
    found, expected = load_base("mg-bazaar")["unet"].state_dict(), many_steps_unet(embedded_model()).state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_page_has_the_figures_of_the_results():
    """If this fails, run `python -m benchmarks.pages`."""
    assert rewritten(PAGE, FINE_TUNING_PAGE) == PAGE


@pytest.fixture
def drawn_glyphs(monkeypatch):
    """What a font would give, without one."""

    def glyphs(font_file):
        for number in range(6):
            glyph = PIL.Image.new("RGBA", (60, 40 + number))
            PIL.ImageDraw.Draw(glyph).ellipse((5, 5, 50, 35), fill=(40 * number, 90, 200, 255))
            yield f"thing number {number}", glyph

    monkeypatch.setattr(pictures, "glyphs", glyphs)


def test_the_folder_is_the_same_every_time(drawn_glyphs, tmp_path):
    for name in ("one", "other"):
        assert pictures.draw_folder("any.ttf", tmp_path / name, held_out=2) == {"train": 4, "val": 2}
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 8
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes() for file in files)
    lines = [json.loads(line) for line in (tmp_path / "one" / "val" / "metadata.jsonl").read_text().splitlines()]
    assert all(line["file_name"] == line["text"].replace(" ", "-") + ".png" for line in lines)
    seen = [np.asarray(PIL.Image.open(tmp_path / "one" / file)) for file in files if file.suffix == ".png"]
    assert all(one.shape == (128, 128, 3) and one.std() > 5 for one in seen)


def test_what_is_no_such_font_is_refused(tmp_path):
    (tmp_path / "text.ttf").write_text("no font")
    with pytest.raises(SystemExit, match="error: .*text.ttf' cannot be read as a font .* fonts-noto-color-emoji"):
        command.main(["pictures", "--font", str(tmp_path / "text.ttf"), "-o", str(tmp_path / "out")])


@pytest.fixture
def finished(model, tmp_path):
    """The folder of a run, as training leaves it: the weights are those it started from."""
    for split in ("train", "val"):
        for number in range(32):
            draw(tmp_path / "data" / split / f"{number}.png", seed=number)
    run = tmp_path / "run"
    shutil.copytree(model, run / "weights")
    flags = ["base", "--train_data_dir", str(tmp_path / "data"), "--output_dir", str(run), "--init_from", str(model)]
    args = parse_args([*flags, "--resolution", str(SIZE), "--num_validation_images", "4"])
    (run / "training_config.json").write_text(json.dumps(vars(args)))
    records = [{"step": step, "loss": 1 / step} for step in (20, 40)] + [{"step": 40, "val_loss": 0.5}]
    (run / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return run


def test_before_and_after_are_judged_alike(finished, tmp_path, monkeypatch):
    from benchmarks.fine_tuning import measure
    from mg_diffusion.mg_bench.sections import Sizes

    sizes = Sizes(rendered_pool=32, synthetic_triples=4, synthetic_seeds=1, photographic_triples=4, edits=2)
    monkeypatch.setattr(measure, "FULL", sizes)
    command.main(["measure", str(finished), "-o", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    before, after = found["models"]["before"], found["models"]["run"]
    # The same weights: the same figures.
    assert all(before[key] == after[key] for key in ("held_out", "retrieval", "edits_psnr"))
    assert set(before["held_out"]) == {"val_loss", *(f"val_loss_t{t}-{t + 199}" for t in range(0, 1000, 200))}
    assert before["retrieval"]["pictures"]["triples"] == 4 and found["pictures"] == 32
    assert after["flags"]["max_train_steps"] == FINE_TUNING["max_train_steps"]
    with PIL.Image.open(tmp_path / "found.png") as grid, PIL.Image.open(tmp_path / "found_curves.png") as curves:
        assert grid.height == 5 * (SIZE + 4) and curves.width > 600


@pytest.mark.parametrize(
    "missing, message", [("weights", "holds no finished run"), ("init_from", "is no run of fine-tuning")]
)
def test_what_is_no_finished_run_is_refused(finished, missing, message):
    if missing == "weights":
        shutil.rmtree(finished / "weights")
    else:
        (finished / "training_config.json").write_text(json.dumps({"init_from": None}))
    with pytest.raises(SystemExit, match=f"error: .*run' {message}"):
        command.main(["measure", str(finished)])
