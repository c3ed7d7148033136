"""Contradictions are refused before anything is loaded."""

import re

import pytest
from accelerate.state import AcceleratorState

from mg_diffusion.training import __main__
from mg_diffusion.training.arguments import parse_args


NEEDED = ["--train_data_dir", "pictures", "--output_dir", "run"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "the following arguments are required: stage"),
        (["lora", *NEEDED], "invalid choice: 'lora'"),
        (["adapter", *NEEDED], "required: --pretrained_model_name_or_path"),
        (
            ["adapter", *NEEDED, "--pretrained_model_name_or_path", "b", "--cache_latents"],
            "--cache_latents needs --cache_dir",
        ),
        (["base"], "required: --output_dir"),
        (["base", "--output_dir", "run"], "one of the arguments --train_data_dir --dataset_name is required"),
        (["base", *NEEDED, "--dataset_name", "a"], "--dataset_name: not allowed with argument --train_data_dir"),
        (["base", *NEEDED, "--dataset_config_name", "a"], "--dataset_config_name .* needs --dataset_name"),
        (["base", *NEEDED, "--max_skipped_share", "1.1"], r"--max_skipped_share must lie in \[0, 1\], got 1.1"),
        (["base", *NEEDED, "--max_skipped_share", "-0.1"], r"--max_skipped_share must lie in \[0, 1\], got -0.1"),
        (["base", *NEEDED, "--max_image_pixels", "178956971"], "must be at most 178956970, got 178956971"),
        (["base", *NEEDED, "--streaming_window", "9"], "--streaming_window needs --streaming"),
        (["base", *NEEDED, "--samples_per_picture", "9"], "--samples_per_picture needs --streaming"),
        (["base", *NEEDED, "--streaming", "--max_train_samples", "9"], "--max_train_samples contradicts --streaming"),
        (
            ["vae", *NEEDED, "--streaming", "--dataloader_num_workers", "1"],
            "num_workers contradicts --streaming: each",
        ),
        (
            ["adapter", *NEEDED, "--pretrained_model_name_or_path", "b", "--cache_latents", "--cache_dir", "c"]
            + ["--streaming"],
            "--cache_latents contradicts --streaming: its windows pass by",
        ),
        (["base", *NEEDED, "--colour", "red"], "unrecognized arguments: --colour red"),
        (["vae", *NEEDED, "--text_width", "32"], "unrecognized arguments: --text_width"),
        (["base", *NEEDED, "--mixed_precision", "fp8"], "invalid choice: 'fp8'"),
        (["base", *NEEDED, "--lr_scheduler", "cosinus"], "invalid choice: 'cosinus'"),
        *[
            (["base", *NEEDED, f"--{name}", "0"], f"--{name} must be at least 1, got 0")
            for name in ("train_batch_size", "max_train_steps", "gradient_accumulation_steps", "checkpointing_steps")
            + ("validation_steps", "num_validation_images", "max_train_samples", "min_image_size", "max_image_pixels")
            + ("streaming_window", "samples_per_picture")
        ],
        *[
            (["base", *NEEDED, f"--{name}", "-1"], f"--{name} must be at least 0, got -1")
            for name in ("checkpoints_total_limit", "dataloader_num_workers", "lr_warmup_steps", "num_crossings")
        ],
        (
            ["base", *NEEDED, "--overwrite_output_dir", "--resume_from_checkpoint", "latest"],
            "--overwrite_output_dir contradicts --resume_from_checkpoint",
        ),
        (["vae", *NEEDED, "--latent_channels", "0"], "--latent_channels must be at least 1"),
        (["base", *NEEDED, "--resolution", "60"], "multiple of 8 and at least 32, got 60"),
        (["base", *NEEDED, "--resolution", "24"], "multiple of 8 and at least 32, got 24"),
        *[
            (["base", *NEEDED, f"--{name}", value], f"--{name} must be above 0, got {value}")
            for name in ("learning_rate", "adam_epsilon", "max_grad_norm", "snr_gamma")
            for value in ("0.0", "-1.0", "nan", "inf")
        ],
        *[
            (["vae", *NEEDED, f"--{name}", value], rf"--{name} must be at least 0, got {value}")
            for name, value in (("adam_weight_decay", "-0.1"), ("kl_weight", "-1.0"), ("detail_weight", "nan"))
        ],
        *[
            (["vae", *NEEDED, "--seed", seed], rf"--seed must be from 0 to 2\*\*32 - 1, got {seed}")
            for seed in ("-1", str(2**32), str(2**64))
        ],
        *[
            (["base", *NEEDED, f"--{name}", value], f"--{name} must be a finite number, got {value}")
            for name in ("composite_share", "rendered_share")
            for value in ("nan", "inf")
        ],
        (["vae", *NEEDED, "--kl_weight", "inf"], "--kl_weight must be a finite number, got inf"),
        *[
            (["base", *NEEDED, f"--{name}", ""], f"--{name} must not be empty")
            for name in ("output_dir", "train_data_dir", "cache_dir", "init_from")
        ],
        (["vae", *NEEDED, "--adam_beta1", "1.0"], r"--adam_beta1 must lie in \[0, 1\), got 1.0"),
        (["vae", *NEEDED, "--adam_beta2", "-0.5"], r"--adam_beta2 must lie in \[0, 1\), got -0.5"),
        (["vae", *NEEDED, "--snr_gamma", "5"], "unrecognized arguments: --snr_gamma"),
        (
            ["vae", *NEEDED, "--max_train_steps", "100", "--lr_warmup_steps", "200"],
            "--lr_warmup_steps 200 is longer than --max_train_steps 100",
        ),
        (
            ["vae", *NEEDED, "--lr_scheduler", "constant", "--lr_warmup_steps", "200"],
            "--lr_warmup_steps contradicts --lr_scheduler constant; choose constant_with_warmup",
        ),
        *[
            (["base", *NEEDED, "--text_only", f"--{name}", value], f"--{name} contradicts --text_only")
            for name, value in (("num_crossings", "12000"), ("num_rendered", "4000"), ("cache_dir", "c"))
            + (("composite_share", "0.45"), ("rendered_share", "0.15"))
        ],
        (["base", *NEEDED, "--ema_decay", "1.5"], r"--ema_decay must lie in \[0, 1\], got 1.5"),
        (["vae", *NEEDED, "--block_out_channels", "32", "40"], r"must be multiples of 16, got \[32, 40\]"),
        (["base", *NEEDED, "--block_out_channels", "0", "16"], r"must be multiples of 16, got \[0, 16\]"),
        (["base", *NEEDED, "--text_width", "30"], "--text_width must be a multiple of 4, got 30"),
        (["base", *NEEDED, "--composite_share", "0.9"], r"at most 1 in all, got \(0.9, 0.15\)"),
        (["base", *NEEDED, "--rendered_share", "-0.1"], r"at most 1 in all, got \(0.45, -0.1\)"),
        (["base", *NEEDED, "--report_to", "mlflow"], "invalid choice: 'mlflow'"),
        (["base", *NEEDED, "--tracker_project_name", " "], "--tracker_project_name must not be empty"),
        (["base", *NEEDED, "--hub_model_id", "a/b"], "--hub_model_id needs --push_to_hub"),
        (["base", *NEEDED, "--hub_private_repo"], "--hub_private_repo needs --push_to_hub"),
        (["base", *NEEDED, "--num_crossings", "0"], "--composite_share 0.45 needs --num_crossings"),
        (["base", *NEEDED, "--num_rendered", "0"], "--rendered_share 0.15 needs --num_rendered"),
        *[
            (["base", *NEEDED, f"--{name}", value, "--init_from", "b"], f"--{name} contradicts --init_from")
            for name, value in (("vae", "a"), ("block_out_channels", "48"), ("text_width", "128"))
        ],
    ],
)
def test_contradictions_are_refused_with_their_reason(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_args(arguments)
    assert ended.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_kind_without_share_needs_no_pool():
    args = parse_args(["base", *NEEDED, "--num_crossings", "0", "--composite_share", "0"])
    assert args.num_crossings == 0


def test_what_is_left_out_contradicts_nothing():
    """Defaults that a choice makes meaningless are no contradiction: nobody asked for them."""
    args = parse_args(["vae", *NEEDED, "--lr_scheduler", "constant", "--max_train_steps", "100"])
    assert args.lr_warmup_steps == 200
    assert parse_args(["base", *NEEDED, "--text_only"]).num_crossings == 12000


def test_half_precision_without_a_gpu_is_refused_before_anything_is_loaded(flags, tmp_path, monkeypatch):
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with pytest.raises(SystemExit, match="^error: --mixed_precision fp16 needs a GPU"):
        __main__.main(flags("vae", tmp_path / "run", mixed_precision="fp16"))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stage, widths", [("vae", [32, 64]), ("base", [48, 96, 160])])
def test_defaults_are_resolved(stage, widths):
    args = parse_args([stage, *NEEDED])
    assert (args.stage, args.train_data_dir, args.output_dir) == (stage, "pictures", "run")
    assert args.block_out_channels == widths and args.resolution == 64 and args.seed == 0
    assert args.resume_from_checkpoint is None and args.report_to is None and args.mixed_precision == "no"


def test_an_adapter_is_trained_at_the_resolution_of_its_base():
    args = parse_args(["adapter", *NEEDED, "--pretrained_model_name_or_path", "b"])
    assert args.resolution is None  # until the base is known


def test_a_pipeline_to_start_from_brings_its_own_widths():
    """The configuration of the run must not claim others."""
    args = parse_args(["base", *NEEDED, "--init_from", "b"])
    assert (args.vae, args.block_out_channels, args.text_width) == (None, None, None)


@pytest.mark.parametrize("stage, cache", [("vae", None), ("base", "run/cache")])
def test_a_stream_has_its_windows_and_a_place_for_what_they_share(stage, cache):
    args = parse_args([stage, *NEEDED, "--streaming"])
    assert (args.streaming_window, args.samples_per_picture, getattr(args, "cache_dir", None)) == (2000, 16, cache)
    args = parse_args([stage, *NEEDED])
    assert (args.streaming_window, args.samples_per_picture, getattr(args, "cache_dir", None)) == (None, None, None)


def test_a_failing_run_ends_with_its_reason_and_leaves_its_configuration(flags, tmp_path):
    with pytest.raises(SystemExit, match="^error: No split 'train' of pictures"):
        __main__.main(flags("base", tmp_path / "run", train_data_dir=tmp_path / "nowhere"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["training_config.json"]


@pytest.mark.parametrize(
    ("data", "changed", "message"),
    [
        ("pictures", {"output_dir": "pictures/train"}, "--output_dir .* lies in --train_data_dir"),
        ("pictures", {"output_dir": "pictures"}, "--output_dir .* lies in --train_data_dir"),
        ("link", {"output_dir": "pictures/run/my-train"}, "--output_dir .* lies in --train_data_dir"),
        (
            "pictures",
            {"output_dir": "run", "cache_dir": "pictures/train/cache"},
            "--cache_dir .* lies in --train_data_dir",
        ),
        ("pictures/train", {"output_dir": "pictures/train/run"}, "--output_dir .* lies in --train_data_dir"),
        ("pictures", {"output_dir": "file"}, "--output_dir names a folder, and .*file' is a file"),
        ("pictures", {"output_dir": "file/run"}, "--output_dir names a folder, and .*file' is a file"),
        ("pictures", {"output_dir": "run", "cache_dir": "file"}, "--cache_dir names a folder, and .*file' is a file"),
    ],
)
def test_folders_that_cannot_be_are_refused_before_anything_is_written(tmp_path, capsys, data, changed, message):
    (tmp_path / "pictures" / "train").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "pictures")
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    given = [part for name, place in changed.items() for part in (f"--{name}", str(tmp_path / place))]
    with pytest.raises(SystemExit):
        __main__.main(["base", "--train_data_dir", str(tmp_path / data), *given])
    assert re.search(message, capsys.readouterr().err)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_beside_the_splits_is_no_data(tmp_path):
    (tmp_path / "train").mkdir()
    parse_args(["vae", "--train_data_dir", str(tmp_path), "--output_dir", str(tmp_path / "run" / "mine")])
