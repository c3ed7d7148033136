"""The card of a run tells what the run was, its curves are drawn, and its lines of code work."""

import errno
import json
import re
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from pipelines.tiny import tiny_components

from mg_diffusion import MGPipeline
from mg_diffusion.training import __main__ as command
from mg_diffusion.training import report
from mg_diffusion.training.arguments import defaults_of, parse_args
from mg_diffusion.training.curves import draw_curves, smooth
from mg_diffusion.training.disk import WriteError
from mg_diffusion.training.report import main, write_report
from mg_diffusion.training.run_files import read_run


@pytest.fixture(scope="module")
def finished(flags, tmp_path_factory):
    """A run of stage base by its command, with what it leaves."""
    output = tmp_path_factory.mktemp("finished") / "my-run"
    options = {"max_train_steps": 1, "gradient_accumulation_steps": 2, "no-validation_at_start": None}
    command.main([*flags("base", output, **options), "--validation_at_start"])
    return output


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def code_of(text):
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


def write_run(folder, stage="base", records=(), environment=None, **config):
    """The files of a run as they lie there after it, without having run."""
    (folder / "weights").mkdir(parents=True)
    config = {**defaults_of(stage), "stage": stage, "resolution": 64, **config}
    (folder / "training_config.json").write_text(json.dumps(config))
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if environment:
        (folder / "environment.json").write_text(json.dumps(environment))
    return folder


LOG = [{"step": step, "loss": 1 / step, "grad_norm": 2 / step, "elapsed": step / 2} for step in range(20, 1220, 20)]


def test_a_run_ends_with_a_card_curves_and_the_last_grid(finished):
    weights = finished / "weights"
    text = (weights / "README.md").read_text()
    assert front_matter(text) == {
        "library_name": "diffusers",
        "tags": ["diffusers", "mg-diffusion", "text-to-image", "image-to-image", "reference-conditioned"],
    }
    assert "stage `base`, at 32 px: 1 steps, 4\nsamples" in text
    assert re.search(r"`val_loss_t0-199` \| [\d.]+ \(before training\) \| [\d.]+ \(step 1\)", text)
    assert "| `--gradient_accumulation_steps` | 2 |" in text and "--learning_rate" not in text
    assert f"| torch | {torch.__version__} |" in text and "CPU cores" in text
    assert (
        str(finished.parent) not in text and "train_data_dir" not in text and "{" not in text.replace('= {"color', "")
    )
    assert (weights / "grid.png").read_bytes() == (finished / "grid-000001.png").read_bytes()
    assert (finished / "grid-000000.png").is_file()
    assert PIL.Image.open(weights / "curves.png").size == (1650, 440)
    images = set(re.findall(r"!\[.*?\]\((.*?)\)", text))
    assert images == {"curves.png", "grid.png"}


def test_the_first_validation_is_that_of_the_untrained_weights(finished):
    records = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "val_loss" in record] == [0, 1]
    assert [record["step"] for record in records if "loss" in record] == [1]


def test_the_lines_of_the_card_make_a_picture(finished, tmp_path, monkeypatch):
    code = code_of((finished / "weights" / "README.md").read_text())
    for name in ("texture", "shape"):
        PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished / "weights", tmp_path / "path" / "to" / "weights")
    code = code.replace("reference_image=references", "reference_image=references, num_inference_steps=2")
    names = {}
    exec(code, names)
    assert names["image"].size == (32, 32)


def test_the_lines_of_an_adapters_card_attach_it_to_its_base(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", "adapter", LOG[:1])
    code = code_of(write_report(run).read_text())
    components = tiny_components(tmp_path)
    for name in ("mg_encoder", "mg_adapter"):
        components[name].save_pretrained(tmp_path / "path" / "to" / "weights" / name)
    MGPipeline(**{**components, "mg_encoder": None, "mg_adapter": None}).save_pretrained(tmp_path / "path/to/the/base")
    monkeypatch.chdir(tmp_path)
    for name in ("texture", "shape"):
        PIL.Image.new("RGB", (32, 32), "red").save(f"{name}.png")
    names = {}
    exec(code.replace("reference_image=references", "reference_image=references, num_inference_steps=2"), names)
    assert isinstance(names["image"], PIL.Image.Image) and type(names["pipe"]) is MGPipeline


def test_the_lines_of_a_vaes_card_load_it(flags, tmp_path, monkeypatch):
    run = tmp_path / "run"
    command.main(flags("vae", run, block_out_channels="16 16", latent_channels=4, max_train_steps=1))
    text = (run / "weights" / "README.md").read_text()
    assert "# An autoencoder\n" in text and "above their reconstructions" in text and "`val_psnr`" in text
    shutil.copytree(run / "weights", tmp_path / "path" / "to" / "weights")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code_of(text), names)
    assert names["vae"].config.latent_channels == 4
    axes = draw_curves(read_run(run)).axes
    assert axes[1].get_title() == "PSNR of held-out pictures, dB" and len(axes[1].lines) == 1


def test_a_base_without_references_says_so(tmp_path):
    text = write_report(write_run(tmp_path, records=LOG[:1], text_only=True)).read_text()
    assert "# A miniature Stable Diffusion\n" in text and "stage `base --text_only`" in text
    assert "reference_image" not in text and front_matter(text)["tags"] == ["diffusers", "mg-diffusion"]


def test_a_model_and_data_of_the_hub_are_named(tmp_path):
    environment = {"base_model": "someone/sd", "processes": 4, "device": "NVIDIA X", "versions": {"torch": "2"}}
    pushed = {"push_to_hub": True, "hub_model_id": "me/it", "dataset_name": "someone/pictures"}
    chosen = {"pretrained_model_name_or_path": "someone/sd", "train_batch_size": 8}
    run = write_run(tmp_path, "adapter", LOG, environment, **pushed, **chosen)
    text = write_report(run).read_text()
    found = front_matter(text)
    assert (found["base_model"], found["base_model_relation"]) == ("someone/sd", "adapter")
    assert found["datasets"] == ["someone/pictures"] or found["datasets"] == "someone/pictures"
    assert 'base, adapter = "someone/sd", "me/it"' in text and "--base someone/sd --adapter me/it" in text
    assert "4 x NVIDIA X" in text and f"{1200 * 8 * 4:,}\nsamples, 0:10:00 h" in text
    assert "| `--pretrained_model_name_or_path` | someone/sd |" in text and "hub_model_id" not in text
    text = write_report(write_run(tmp_path / "split", "vae", LOG, environment, split_batches=True)).read_text()
    assert f"{1200 * 32:,}\nsamples" in text  # --train_batch_size is that of all processes then
    environment["base_model"] = "someone/mini"
    text = write_report(write_run(tmp_path / "other", "base", LOG, environment)).read_text()
    assert front_matter(text)["base_model_relation"] == "finetune"


def test_places_on_this_machine_are_cut_to_a_name(tmp_path):
    (tmp_path / "secret-user" / "sd").mkdir(parents=True)
    place = str(tmp_path / "secret-user" / "sd")
    run = write_run(tmp_path / "run", "adapter", LOG[:1], pretrained_model_name_or_path=place, cache_dir=place)
    text = write_report(run).read_text()
    assert (
        "| `--pretrained_model_name_or_path` | sd |" in text and "secret-user" not in text and "cache_dir" not in text
    )


def test_a_resumed_run_overwrites_what_it_repeats_and_its_time_counts(tmp_path):
    log = [{"step": 20, "loss": 9.0, "elapsed": 10.0}, {"step": 40, "loss": 9.0, "elapsed": 20.0}]
    log += [{"step": 40, "val_loss": 3.0}, {"step": 60, "loss": 9.0, "elapsed": 30.0}]
    log += [{"step": 40, "loss": 5.0, "elapsed": 4.0}, {"step": 60, "loss": 6.0, "elapsed": 8.0}]
    run = read_run(write_run(tmp_path, records=log))
    assert run.series("loss") == ([20, 40, 60], [9.0, 5.0, 6.0])
    assert run.series("val_loss") == ([40], [3.0])
    assert run.seconds == 38.0 and run.samples == 60 * 32


def test_damaged_lines_are_left_out_and_named(tmp_path, capsys):
    run = write_run(tmp_path, records=LOG[:2])
    with open(run / "log.jsonl", "a") as log:
        log.write('{"step": 60, "lo\n[]\n{"loss": 3}\n{"step": 80, "loss": 0.5}\n')
    write_report(run)
    assert capsys.readouterr().err == "log.jsonl: lines [3, 4, 5] are damaged and were left out.\n"
    assert read_run(run).series("loss")[0] == [20, 40, 80]


def test_curves_show_what_was_logged(tmp_path):
    buckets = {f"val_loss_t{low}-{low + 199}": low + 1.0 for low in range(0, 1000, 200)}
    log = [{"step": 0, "val_loss": 2.0, **buckets}, *LOG, {"step": 1200, "val_loss": 1.0, **buckets}]
    loss, validation, gradient = draw_curves(read_run(write_run(tmp_path, records=log))).axes
    np.testing.assert_allclose(loss.lines[0].get_data(), [range(20, 1220, 20), [r["loss"] for r in LOG]])
    np.testing.assert_allclose(loss.lines[1].get_ydata(), smooth([r["loss"] for r in LOG]))
    assert [line.get_label() for line in validation.lines] == [n.removeprefix("val_loss_") for n in buckets] + ["mean"]
    np.testing.assert_allclose(validation.lines[-1].get_data(), [[0, 1200], [2.0, 1.0]])
    np.testing.assert_allclose(gradient.lines[0].get_ydata(), [r["grad_norm"] for r in LOG])
    assert set(gradient.lines[1].get_ydata()) == {1.0}


def test_without_held_out_pictures_the_curves_say_so(tmp_path):
    run = write_run(tmp_path, records=LOG)
    text = write_report(run).read_text()
    assert "No grid was drawn." in text and "Versions and hardware were not recorded." in text
    assert [note.get_text() for note in draw_curves(read_run(run)).axes[1].texts] == ["no held-out pictures"]


def test_smoothing_keeps_a_constant_and_the_length():
    assert smooth([3.0] * 50) == [3.0] * 50
    assert smooth([1.0, 5.0]) == [1.0, 5.0]
    noisy = np.random.default_rng(0).normal(size=200)
    assert np.std(smooth(list(noisy))) < 0.5 * np.std(noisy)


def test_the_command_rewrites_the_card(finished, capsys):
    card = finished / "weights" / "README.md"
    before = card.read_text()
    card.write_text("lost")
    main([str(finished)])
    assert card.read_text() == before and capsys.readouterr().out == f"{card}\n"


@pytest.mark.parametrize(
    "prepare, message",
    [
        (lambda run: None, "holds no run with a checkpoint, for training_config.json, log.jsonl, weights is missing"),
        (
            lambda run: shutil.rmtree(write_run(run, records=LOG) / "weights"),
            "for weights is missing.*after its first",
        ),
        (lambda run: write_run(run), r"log.jsonl' has no readable record"),
        (
            lambda run: (write_run(run, records=LOG) / "training_config.json").write_text("{}"),
            r"training_config.json' names the stage None, not \('vae', 'base', 'adapter', 'detail', 'distill'\)",
        ),
    ],
)
def test_what_is_no_run_has_no_card(tmp_path, prepare, message):
    prepare(tmp_path / "run")
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main([str(tmp_path / "run")])


def test_only_the_main_process_reports(tmp_path, monkeypatch):
    class Other:
        is_main_process = False

    monkeypatch.setattr(report, "PartialState", Other)
    report.finish(tmp_path / "nowhere")


def test_a_card_for_which_there_is_no_room(tmp_path, monkeypatch):
    run = write_run(tmp_path, "vae", LOG[:1])

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report, "write_report", fail)
    with pytest.raises(WriteError, match="The card could not be written to .*--resume_from_checkpoint latest"):
        report.finish(run)


@pytest.mark.parametrize(
    "stage, start",
    [
        ("vae", []),
        ("base", []),
        ("base", ["--init_from", "mg-bazaar"]),
        ("adapter", ["--pretrained_model_name_or_path", "c"]),
        ("detail", []),
    ],
)
def test_defaults_are_those_of_the_parser(stage, start):
    needed = ["--train_data_dir", "a", "--output_dir", "b", *start]
    given = {"stage", "train_data_dir", "output_dir", "pretrained_model_name_or_path", "init_from"}
    parsed = {name: value for name, value in vars(parse_args([stage, *needed])).items() if name not in given}
    defaults = defaults_of(stage, is_fine_tuning="--init_from" in start)
    assert parsed == {name: value for name, value in defaults.items() if name not in given}


def test_the_card_of_a_fine_tuned_run_tells_the_flags_that_were_given(tmp_path):
    given = ["base", "--train_data_dir", "a", "--output_dir", "b", "--init_from", "mg-bazaar", "--ema_decay", "0.9"]
    config = vars(parse_args(given)) | {"seed": 3}
    text = write_report(write_run(tmp_path, config.pop("stage"), LOG[:1], **config)).read_text()
    assert re.findall(r"\| `--(\w+)` \|", text) == ["ema_decay", "seed"]
