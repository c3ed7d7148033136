"""Refuse to run the source of a pipeline as remote code: what runs alone is its bundle, which leaves this out."""

SENTENCE = (
    "This is the source of a pipeline, a module among others, and no file to load alone. Give `custom_pipeline` a folder "
    "that `save_pretrained` or `mg-diffusion export` wrote, such as hub_cards/mg-bazaar, or a file in it."
)
if __name__.startswith("diffusers_modules."):
    raise ImportError(SENTENCE)
