"""``adapter_config.json`` of the peft library: what it says, applied or refused.

Which modules have factors, and of which rank and scale, follows peft's own matching.
Inits that change the base (PiSSA and its kin) and variants of LoRA with more than two
factors are refused by name.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jeff import files
from jeff_llm.models import fields
from jeff_llm.models.known_fields import Known, check_known, without

__all__ = ["PeftConfig", "read_peft_config"]

_KNOWN = Known(
    applied=(
        *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"),
        *("target_modules", "exclude_modules", "layers_to_transform"),
        *("layers_pattern", "modules_to_save", "trainable_token_indices"),
        *("init_lora_weights", "ensure_weight_tying"),
    ),
    neutral={
        "peft_type": ("LORA",),
        "bias": ("none",),
        **dict.fromkeys(("use_dora", "use_qalora", "lora_bias"), (False,)),
        **dict.fromkeys(("loftq_config", "corda_config", "lora_ga_config"), ({},)),
        **dict.fromkeys(("target_parameters", "layer_replication"), ([],)),
        "alora_invocation_tokens": (None,),
        **dict.fromkeys(("velora_config", "kasa_config", "arrow_config"), (None,)),
        **dict.fromkeys(("monteclora_config", "use_bdlora"), (None,)),
        "megatron_config": (None,),
    },
    harmless={
        "where the file comes from": (
            *("peft_version", "base_model_name_or_path", "revision", "auto_mapping"),
            *("task_type", "inference_mode", "runtime_config"),
        ),
        "training alone": ("lora_dropout", "eva_config"),
        "without effect where its switch is off": (
            *("qalora_group_size", "megatron_core", "enable_lora", "merge_weights"),
        ),
        # peft sets it to false for such kernels, as these all are.
        "kernels of linear modules are [out, in] whatever it says": ("fan_in_fan_out",),
    },
)
# They leave the base as it is, so that the stored factors are all there is.
_PLAIN_INITS = (True, False, "gaussian", "eva", "orthogonal", "mica")
_LINEAR = re.compile(r"\.(self_attn|mlp)\.[a-z]+_proj$")


@dataclasses.dataclass(frozen=True)
class PeftConfig:
    """The fields that change what factors mean.

    Attributes:
      rank: of the factors.
      alpha: numerator of the scale.
      root: the scale is ``alpha / sqrt(rank)``, not ``alpha / rank``.
      ranks: pattern of modules to another rank.
      alphas: pattern of modules to another alpha.
      targets: names of the modules with factors, or one pattern.
      excluded: names of modules without, or one pattern.
      layers: numbers of the layers with factors; all where it is empty.
      layers_pattern: names of the list of layers.
      saved: names of the modules that are stored whole.
      tokens: tokens whose rows of the embedding are trained.
      ties: what is trained of the embedding is trained of a tied head too.
    """

    rank: int
    alpha: float
    root: bool
    ranks: dict[str, int]
    alphas: dict[str, float]
    targets: str | tuple[str, ...]
    excluded: str | tuple[str, ...]
    layers: tuple[int, ...]
    layers_pattern: tuple[str, ...]
    saved: tuple[str, ...]
    tokens: tuple[int, ...]
    ties: bool

    def rank_of(self, module: str) -> int:
        """The rank of a module's factors.

        Args:
          module: its name in the base.

        Returns:
          The rank.
        """
        return self.ranks.get(_pattern(self.ranks, module), self.rank)

    def scale_of(self, module: str) -> float:
        """The factor on the product of a module's factors.

        Args:
          module: its name in the base.

        Returns:
          The scale.
        """
        rank = self.rank_of(module)
        alpha = self.alphas.get(_pattern(self.alphas, module), self.alpha)
        return alpha / (math.sqrt(rank) if self.root else rank)

    def targeted(self, module: str) -> bool:
        """Whether a module has factors.

        Args:
          module: its name in the base, such as ``model.layers.0.mlp.up_proj``.

        Returns:
          The answer that peft's matching gives.
        """
        inside = (rf"(^|.*\.){name}($|\..*)" for name in self.saved)
        if _named(self.excluded, module) or any(re.match(p, module) for p in inside):
            return False
        if self.targets == "all-linear":
            return bool(_LINEAR.search(module))
        if not _named(self.targets, module):
            return False
        exact = isinstance(self.targets, tuple) and module in self.targets
        return exact or not self.layers or self._layer(module) in self.layers

    def _layer(self, module: str) -> int | None:
        for pattern in self.layers_pattern or (r"[^.]*",):
            found = re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", module)
            if found:
                return int(found[1])
        return None


def read_peft_config(file: Path, ignore: Sequence[str] = ()) -> PeftConfig:
    """Read the configuration.

    Args:
      file: an ``adapter_config.json``.
      ignore: fields to leave out.

    Returns:
      Its content.

    Raises:
      ValueError: if it is damaged, or has a field that changes the meaning of the
        factors and is not supported; names the field.
    """
    values = files.parse_json(files.read_bytes(file), str(file))
    if not isinstance(values, dict):
        raise ValueError(f"{file}: expected a JSON object, got {values!r:.100}")
    try:
        return _checked(without(values, ignore))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _checked(values: Mapping[str, Any]) -> PeftConfig:
    check_known(values, _KNOWN)
    init = values.get("init_lora_weights", True)
    if init is not None and not any(
        init == known and type(init) is type(known) for known in _PLAIN_INITS
    ):
        raise ValueError(
            f"init_lora_weights: expected one of {_PLAIN_INITS}, got "
            f"{fields.shown(init)}, which changes the base too; convert the adapters "
            "to plain ones by peft's save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...)"
        )
    layers = values.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) else layers or []
    ranks, alphas = (
        fields.mapping(values, name) for name in ("rank_pattern", "alpha_pattern")
    )
    for pattern in (*ranks, *alphas):
        _check_pattern(pattern, "rank_pattern, alpha_pattern")
    return PeftConfig(
        rank=fields.whole(values, "r"),
        alpha=fields.real(values, "lora_alpha"),
        root=fields.flag(values, "use_rslora"),
        ranks={name: fields.whole(ranks, name) for name in ranks},
        alphas={name: fields.real(alphas, name) for name in alphas},
        # peft's own choice for these families.
        targets=_modules(values, "target_modules", ("q_proj", "v_proj")),
        excluded=_modules(values, "exclude_modules"),
        layers=_numbers("layers_to_transform", layers),
        layers_pattern=_names(values, "layers_pattern"),
        saved=_names(values, "modules_to_save"),
        tokens=_tokens(values.get("trainable_token_indices")),
        ties=fields.flag(values, "ensure_weight_tying"),
    )


def _modules(
    values: Mapping[str, Any], name: str, default: tuple[str, ...] = ()
) -> str | tuple[str, ...]:
    """Names of modules, or a pattern."""
    found = values.get(name)
    if isinstance(found, str):
        _check_pattern(found, name)
        return found
    return default if found is None else _listed(found, name)


def _names(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = values.get(name)
    names = _listed([found] if isinstance(found, str) else found or [], name)
    for pattern in names:
        _check_pattern(pattern, name)
    return names


def _listed(found: Any, name: str) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(x, str) for x in found):
        raise ValueError(f"{name}: expected names of modules, got {found!r:.100}")
    return tuple(found)


def _numbers(name: str, found: Any) -> tuple[int, ...]:
    if not isinstance(found, list) or not all(type(x) is int for x in found):
        raise ValueError(f"{name}: expected whole numbers, got {found!r:.100}")
    return tuple(found)


def _tokens(found: Any) -> tuple[int, ...]:
    if isinstance(found, Mapping):
        others = [name for name in found if not f".{name}".endswith(".embed_tokens")]
        if others or len(found) != 1:
            raise ValueError(
                "trainable_token_indices: expected tokens of embed_tokens alone, got "
                f"those of {list(found)}"
            )
        (found,) = found.values()
    return _numbers("trainable_token_indices", found or [])


def _check_pattern(pattern: str, name: str) -> None:
    """Refuse regular expressions that are wrong, or could take hours.

    Matching time grows with a power of the number of repetitions, and exponentially
    where a repeated group repeats something itself.
    """
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{name}: expected regular expressions, got {pattern!r:.100} ({error})"
        ) from error
    repeated = len(re.findall(r"[*+]|\{\d*,", pattern))
    if len(pattern) > 2000 or repeated > 6 or re.search(r"\)[*+{]", pattern):
        raise ValueError(
            f"{name}: expected short patterns with at most 6 repetitions and none of a "
            f"group, got {pattern!r:.100}; list the modules by name instead"
        )


def _named(names: str | tuple[str, ...], module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _pattern(patterns: Iterable[str], module: str) -> str:
    """The first pattern that a module's name, or the end of it, matches."""
    found = (p for p in patterns if re.match(rf"(.*\.)?({p})$", module))
    return next(found, module)
