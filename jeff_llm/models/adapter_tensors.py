"""The tensors of an ``adapter_model.safetensors``, by what peft does with each.

Every tensor is read once: as a factor, as a module that was trained whole, or as
trained rows of the embedding. What is left belongs to another model and is refused.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jeff_llm.models import decoder, lora
from jeff_llm.models.architectures import SAFETENSORS_RULES
from jeff_llm.models.config import DecoderConfig
from jeff_llm.models.finite import check_finite, check_weights
from jeff_llm.models.peft_config import PeftConfig
from jeff_llm.models.tensors import TensorFile

__all__ = ["EMBEDDING", "MODULES", "PREFIX", "ROWS", "Found", "factor_names"]

PREFIX, EMBEDDING = "base_model.model.", "embedding"
ROWS = f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta"
# Where jeff put trained rows before peft had a place for them.
_OLD_ROWS, _OLD_IDS = "jeff.trained_rows", "jeff.trained_ids"
# The modules' names in transformers, from the same table as the weights.
MODULES = {
    rule.path: rule.name.removesuffix(".weight")
    for rule in SAFETENSORS_RULES
    if rule.name.endswith(".weight")
}
_HEAD = "lm_head"


def factor_names(path: str, module: str) -> tuple[str, str]:
    """Names of a module's factors A and B.

    Args:
      path: leaf of the parameters.
      module: name of the module in transformers.

    Returns:
      The names of the two tensors.
    """
    if path == EMBEDDING:
        stem = f"{PREFIX}{module}.lora_embedding_"
        return f"{stem}A", f"{stem}B"
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


class Found:
    """The tensors that have not been read yet, and the reading of each kind."""

    def __init__(self, file: TensorFile, config: DecoderConfig, peft: PeftConfig):
        """Begin with all tensors.

        Args:
          file: an adapter_model.safetensors.
          config: the decoder that it belongs to.
          peft: the content of adapter_config.json beside it.

        Raises:
          ValueError: if the head of a tied model was trained apart from its embedding.
        """
        self._file, self._config, self._peft = file, config, peft
        self._left = set(file)
        if config.tied:
            self._settle_head()

    def factors(
        self, path: str, module: str, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """A module's factors.

        Args:
          path: leaf of the parameters.
          module: name of the module in transformers.
          shape: of the kernel, [in, out].

        Returns:
          ``(A [in, rank], B [rank, out])``, or None where it has none.

        Raises:
          ValueError: if the configuration says otherwise, or a factor is of another
            shape or not finite.
        """
        names = factor_names(path, module)
        missing = [name for name in names if name not in self._left]
        if len(missing) == 2 and not self._peft.targeted(module):
            return None
        if missing:
            raise ValueError(f"{self._file.path}: missing tensor {missing[0]}")
        if not self._peft.targeted(module):
            raise ValueError(
                f"{self._file.path}: tensor {names[0]!r}: expected factors of modules "
                "that adapter_config.json targets alone, got these, which peft would "
                "not read; the files do not belong together"
            )
        rank = self._peft.rank_of(module)
        a = self._take(names[0], path, (rank, shape[0]))
        b = self._take(names[1], path, (shape[1], rank))
        return a.T, b.T

    def whole(self) -> dict[str, Any]:
        """Parameters that are stored whole.

        Returns:
          Path of a leaf to its array.

        Raises:
          ValueError: if only some layers of a leaf are there, or a module that the
            configuration names is not.
        """
        found = {}
        for rule in SAFETENSORS_RULES:
            leaf = lora.paths(decoder.shapes(self._config)).get(rule.path)
            if leaf is None:
                continue
            layered = "{layer}" in rule.name
            names = [
                self._stored(rule.name.format(layer=layer))
                for layer in range(leaf.shape[0] if layered else 1)
            ]
            present = [name for name in names if name is not None]
            if not present:
                continue
            if len(present) < len(names):
                raise ValueError(
                    f"{self._file.path}: tensor {present[0]!r}: expected this module "
                    "whole in every layer or in none, since layers are one array here"
                )
            shape = leaf.shape[1:] if layered else leaf.shape
            turned = rule.transform == "transpose"
            read = [
                self._take(name, rule.path, shape[::-1] if turned else shape)
                for name in present
            ]
            read = [x.T if turned else x for x in read]
            found[rule.path] = jnp.asarray(np.stack(read) if layered else read[0])
        stored = [MODULES.get(path, "").rpartition(".")[2] for path in found]
        for name in self._peft.saved:
            last = name.rpartition(".")[2]
            if not any(module.endswith(last) for module in stored):
                raise ValueError(
                    f"{self._file.path}: expected the weights of {name!r}, which "
                    "modules_to_save of adapter_config.json names, found none"
                )
        return found

    def rows(self) -> tuple[Any, tuple[int, ...]]:
        """Trained rows of the embedding, and their tokens.

        Returns:
          ``(rows [tokens, width] or None, tokens)``.

        Raises:
          ValueError: if the tokens are not different ones of the vocabulary, or are
            not as many as the rows.
        """
        name, ids = ROWS, self._peft.tokens
        if {_OLD_ROWS, _OLD_IDS} <= self._left:
            name = _OLD_ROWS
            self._left.discard(_OLD_IDS)
            ids = self._file[_OLD_IDS].read().tolist()
        if not ids and name not in self._left:
            return None, ()
        size = self._config.vocab_size
        listed = list(ids) if isinstance(ids, list | tuple) else [ids]
        inside = all(type(token) is int and 0 <= token < size for token in listed)
        if not inside or not 0 < len(listed) == len(set(listed)):
            raise ValueError(
                f"{self._file.path}: expected trained rows of different tokens below "
                f"{size}, got those of {listed[:8]}"
            )
        if name not in self._left:
            raise ValueError(f"{self._file.path}: missing tensor {name}")
        rows = self._take(name, EMBEDDING, (len(listed), self._config.width))
        return jnp.asarray(rows), tuple(listed)

    def check_nothing_left(self, any_read: bool) -> None:
        """Refuse tensors that were not read.

        Args:
          any_read: whether anything was.

        Raises:
          ValueError: naming a tensor of another architecture.
        """
        if self._left or not any_read:
            left = sorted(self._left)
            raise ValueError(
                f"{self._file.path}: expected factors of this decoder's kernels, got "
                f"{left[0] if left else 'none'}"
            )

    def _stored(self, name: str) -> str | None:
        """The name under which a whole parameter is stored, if it is."""
        module, _, kind = name.rpartition(".")
        names = (f"{PREFIX}{name}", f"{PREFIX}{module}.base_layer.{kind}")
        return next((n for n in names if n in self._left), None)

    def _settle_head(self) -> None:
        """Take the head of a tied model, which must be trained as its embedding is."""
        table = f"{PREFIX}{MODULES[EMBEDDING]}"
        a, b = factor_names(EMBEDDING, MODULES[EMBEDDING])
        twins = {
            f"{PREFIX}{_HEAD}.weight": (f"{table}.weight", False),
            f"{PREFIX}{_HEAD}.base_layer.weight": (f"{table}.base_layer.weight", False),
            f"{PREFIX}{_HEAD}.lora_A.weight": (b, True),
            f"{PREFIX}{_HEAD}.lora_B.weight": (a, True),
        }
        for name, (other, turned) in twins.items():
            if name not in self._left:
                continue
            same = other in self._left and np.array_equal(
                self._file[name].read(),
                self._file[other].read().T if turned else self._file[other].read(),
            )
            if not same:
                raise self._apart(name)
            self._left.discard(name)
        saved = any(MODULES[EMBEDDING].endswith(name) for name in self._peft.saved)
        apart = a in self._left or (saved and f"{table}.weight" in self._left)
        if apart and not self._peft.ties:
            raise self._apart(f"{table}.weight")

    def _apart(self, name: str) -> ValueError:
        return ValueError(
            f"{self._file.path}: tensor {name!r}: expected head and embedding trained "
            "as one, since they are one in this model, got one of them trained apart; "
            "train with ensure_weight_tying=True, or merge the adapters with peft"
        )

    def _take(self, name: str, path: str, expected: tuple[int, ...]) -> np.ndarray:
        """A tensor whose shape follows from the leaf's, in float32."""
        what = f"{self._file.path}: tensor {name!r}"
        got = self._file[name].shape
        if got != expected:
            raise ValueError(
                f"{what}: expected shape {expected} for this decoder's {path} "
                f"and the rank r of adapter_config.json, got {got}; they are of "
                "another model, or r is wrong"
            )
        self._left.discard(name)
        array = self._file[name].read()
        check_weights(array.dtype, what)
        check_finite(array, what)
        return np.asarray(array, np.float32)
