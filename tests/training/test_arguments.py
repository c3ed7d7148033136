"""Contradictions are refused before anything is loaded, and every flag is used."""

import re

import pytest

from mg_diffusion.training import __main__
from mg_diffusion.training.arguments import STAGES, build_parser, parse_args


NEEDED = ["--train_data_dir", "pictures", "--output_dir", "run"]


def flags_of(stage):
    actions = build_parser()._subparsers._group_actions[0].choices[stage]._actions
    return {action.dest for action in actions} - {"help"}


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
        (["base"], "required: --train_data_dir, --output_dir"),
        (["base", *NEEDED, "--colour", "red"], "unrecognized arguments: --colour red"),
        (["vae", *NEEDED, "--text_width", "32"], "unrecognized arguments: --text_width"),
        (["base", *NEEDED, "--mixed_precision", "fp8"], "invalid choice: 'fp8'"),
        (["base", *NEEDED, "--lr_scheduler", "cosinus"], "invalid choice: 'cosinus'"),
        *[
            (["base", *NEEDED, f"--{name}", "0"], f"--{name} must be at least 1, got 0")
            for name in ("train_batch_size", "max_train_steps", "gradient_accumulation_steps", "checkpointing_steps")
            + ("validation_steps", "num_validation_images", "max_train_samples")
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
        (["base", *NEEDED, "--ema_decay", "1.5"], r"--ema_decay must lie in \[0, 1\], got 1.5"),
        (["vae", *NEEDED, "--block_out_channels", "32", "40"], r"must be multiples of 16, got \[32, 40\]"),
        (["base", *NEEDED, "--block_out_channels", "0", "16"], r"must be multiples of 16, got \[0, 16\]"),
        (["base", *NEEDED, "--text_width", "30"], "--text_width must be a multiple of 4, got 30"),
        (["base", *NEEDED, "--composite_share", "0.9"], r"at most 1 in all, got \(0.9, 0.15\)"),
        (["base", *NEEDED, "--rendered_share", "-0.1"], r"at most 1 in all, got \(0.45, -0.1\)"),
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


@pytest.mark.parametrize("stage", STAGES)
def test_every_flag_is_used_and_everything_used_is_a_flag(stage, repository):
    sources = repository / "mg_diffusion" / "training"
    own = {"vae": ["vae.py"], "base": ["base.py", "models.py", "text.py"], "adapter": ["adapter.py"]}[stage]
    text = "".join(
        (sources / name).read_text(encoding="utf-8")
        for name in ["loop.py", "checkpoints.py", "resuming.py", "pictures.py", *own]
    )
    used = set(re.findall(r"\bargs\.([a-z_0-9]+)", text))
    chosen_by = {"stage", "text_only"}  # read by `__main__`
    assert flags_of(stage) | chosen_by == used | chosen_by


def test_a_failing_run_ends_with_its_reason_and_leaves_its_configuration(flags, tmp_path):
    with pytest.raises(SystemExit, match="^error: No split 'train' of pictures"):
        __main__.main(flags("base", tmp_path / "run", train_data_dir=tmp_path / "nowhere"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["training_config.json"]
