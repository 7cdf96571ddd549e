"""A decoder with its parameters and its tokenizer, in one structure."""

import dataclasses
from typing import NamedTuple

import jax
from jaxtyping import PyTree

from jeff import digests
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.tokenizer import Tokenizer

__all__ = ["LanguageModel"]


class LanguageModel(NamedTuple):
    """A language model.

    It has no hidden state: ``model._replace(params=...)`` is the same model with other
    parameters, such as fine-tuned ones or kernels with LoRA's factors.

    Attributes:
      config: sizes and options of the decoder.
      params: its parameters, nested dictionaries of arrays.
      tokenizer: between text and token ids; None where only ids are used.
      name: names the model in caches and results.
      end_ids: tokens that end an answer by the model's own files, beside those of the
        tokenizer.
    """

    config: DecoderConfig
    params: PyTree
    tokenizer: Tokenizer | None
    name: str = "model"
    end_ids: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens that the model expects.

        Args:
          text: the text.

        Returns:
          Token ids.

        Raises:
          ValueError: if the model has no tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError(
                "prompt: expected token ids, since the model has no tokenizer, got text"
            )
        return self.tokenizer.encode(text)

    def digest(self) -> str:
        """What the model is, beside its name: for caches of its answers.

        Another precision, quantised kernels, merged or trained factors, another chat
        template and another setting of the decoder give another digest.

        Returns:
          A digest in hexadecimal. It reads all parameters once.
        """
        # A setting that a later version adds, at its default, changes nothing.
        settings = {
            field.name: repr(value)
            for field in dataclasses.fields(self.config)
            if (value := getattr(self.config, field.name)) != field.default
        }
        tokenizer = self.tokenizer
        said = tokenizer and [tokenizer.chat_template, tokenizer.named_templates]
        leaves = jax.tree_util.tree_leaves_with_path(self.params)
        arrays = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        whole = [settings, digests.array_digests(arrays), said, self.end_ids]
        return digests.json_digest(whole)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: the tokenizer's, then those of the files."""
        own = () if self.tokenizer is None else self.tokenizer.stop_ids
        return tuple(dict.fromkeys((*own, *self.end_ids)))
