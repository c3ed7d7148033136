"""Prompts of a call: checks, and one for each sample."""

from types import SimpleNamespace

import torch

from ..arrays import whole_number


def listed(prompt: str | list[str] | None, batch_size: int) -> list[str] | None:
    """A prompt for all samples as a list of one for each."""
    return [prompt] * batch_size if isinstance(prompt, str) else prompt


def check_prompt(prompt: str | list[str], name: str) -> None:
    """Raise a ValueError for what is no text or list of texts, or holds half a character, which no tokenizer reads."""
    texts = prompt if isinstance(prompt, list) else [prompt]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"`{name}` must be a string or a list of strings, got {prompt!r}.")
    # As Python has them of bytes of a command line that are no UTF-8, and of escapes of JSON.
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise ValueError(f"`{name}` holds what is no character in UTF-8: {prompt!a}. Type it anew.")


class Prompts:
    """Checks of prompts, whatever reads them."""

    def check_prompts(self, given: SimpleNamespace, batch_size: int) -> None:
        """Raise a ValueError for prompts of another type or number, given twice, or given without a text encoder."""
        self.check_clip_skip(given)
        self.check_tokenizers(given)
        for name in ("prompt", "prompt_2", "negative_prompt", "negative_prompt_2"):
            embeds_name = f"{name.removesuffix('_2')}_embeds"
            text, embeds = getattr(given, name, None), getattr(given, embeds_name)
            if text is not None and embeds is not None:
                raise ValueError(f"Pass `{name}` or `{embeds_name}`, not both.")
            if text is not None and self.text_encoder is None:
                raise ValueError(f"This pipeline has no text encoder, so `{name}` has no effect. Leave it out.")
            if text is not None:
                check_prompt(text, name)
            count = len(text) if isinstance(text, list) else None if embeds is None else embeds.shape[0]
            if count is not None and (count != batch_size or count == 0):
                raise ValueError(f"`{name}` is given for {count} samples, but this call has {batch_size}.")

    @property
    def embeds_width(self) -> int | str:
        """Channels of the text that the UNet reads; a word where its blocks read several, or another network stands between."""
        width = self.unet.config.cross_attention_dim
        return width if isinstance(width, int) and self.unet.config.encoder_hid_dim is None else "channels"

    def check_tokenizers(self, given: SimpleNamespace) -> None:
        """Raise a ValueError for a text encoder that has text to read, if only an empty one, and no tokenizer for it."""
        needs_negative = self.do_classifier_free_guidance and given.negative_prompt_embeds is None
        if given.prompt_embeds is not None and not needs_negative:
            return
        for name in ("tokenizer", "tokenizer_2"):
            encoder = name.replace("tokenizer", "text_encoder")
            if getattr(self, encoder, None) is not None and getattr(self, name) is None:
                raise ValueError(
                    f"The component `{encoder}` needs `{name}`, which this pipeline was made without. Pass both, or `None` for both."
                )

    def check_clip_skip(self, given: SimpleNamespace) -> None:
        """Raise a ValueError for a `clip_skip` that leaves no layer of the text encoders."""
        if given.clip_skip is None:
            return
        encoders = [getattr(self, name, None) for name in ("text_encoder", "text_encoder_2")]
        layers = [one.config.num_hidden_layers for one in encoders if one is not None]
        most = min(layers, default=0) - int(hasattr(self, "text_encoder_2"))  # SDXL always skips one
        skipped = whole_number(given.clip_skip)
        if skipped is None or not 0 <= skipped or (layers and skipped > most):
            raise ValueError(
                f"`clip_skip` is how many layers of the text encoder are skipped, an integer from 0 to {most} here; got "
                f"{given.clip_skip!r}. Leave it out to skip none."
            )
        given.clip_skip = skipped

    def check_embeds(
        self, prompt_embeds: torch.Tensor | None, negative_prompt_embeds: torch.Tensor | None, needs_negative: bool
    ) -> None:
        """Raise a ValueError for embeds that do not go together, or that lack the negative ones guidance needs."""
        if negative_prompt_embeds is not None and prompt_embeds is None and self.text_encoder is None:
            raise ValueError("`negative_prompt_embeds` need `prompt_embeds` where there is no text encoder.")
        if prompt_embeds is not None and negative_prompt_embeds is None:
            if needs_negative:
                raise ValueError("Guidance with `prompt_embeds` and no text encoder needs `negative_prompt_embeds`.")
        elif prompt_embeds is not None and prompt_embeds.shape != negative_prompt_embeds.shape:
            raise ValueError(
                f"`prompt_embeds` and `negative_prompt_embeds` must have the same shape, got "
                f"{tuple(prompt_embeds.shape)} and {tuple(negative_prompt_embeds.shape)}."
            )

    def prompts_of(self, given: SimpleNamespace, batch_size: int) -> list[str | None] | None:
        """A prompt for each sample: "" where there is none, `None` where there is no text encoder or embeds are given."""
        if given.prompt_embeds is not None:
            return None
        blank = "" if self.text_encoder is not None else None
        return (
            [blank] * batch_size
            if given.prompt is None
            else [given.prompt]
            if isinstance(given.prompt, str)
            else given.prompt
        )
