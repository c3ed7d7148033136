"""Which of diffusers' tests do not apply to our classes, and why. docs/upstream-tests.md lists them."""

_LOADING = (
    "expects an OSError for missing weights; our `from_pretrained` raises a ValueError that names the folder and the "
    "remedy. That variants load is tested with the pipelines"
)

_PROMPT = (
    "looks the pipeline up in `diffusers.pipelines` and reads the names of what `encode_prompt` returns out of its source; "
    "the same is tested in tests/pipelines/test_pipeline_mg.py"
)

NOT_APPLICABLE = {
    "TestGeneration::test_encode_prompt_works_in_isolation": _PROMPT,
    "TestInpainting::test_encode_prompt_works_in_isolation": _PROMPT,
    "TestEncoder::test_from_save_pretrained_variant": _LOADING,
    "TestAdapter::test_from_save_pretrained_variant": _LOADING,
    "TestEncoderLayerwiseCasting::test_layerwise_casting_training": (
        "takes the batch size from one tensor among the inputs; the encoder reads several, by granularity"
    ),
    "TestHaar::test_sharded_checkpoints_with_parallel_loading": "it stores one number, which cannot be split into shards",
}
