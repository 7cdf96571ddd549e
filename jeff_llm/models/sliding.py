"""Sliding windows of a ``config.json``: which layers see how many tokens."""

from collections.abc import Mapping
from typing import Any

from jeff_llm.models import fields

__all__ = ["read_sliding"]


def read_sliding(
    values: Mapping[str, Any], num_layers: int
) -> tuple[int | None, tuple[bool, ...] | None]:
    """Read the window, and the layers that have it if not all do.

    Args:
      values: the fields of ``config.json``; missing ones have the defaults of the
        families' classes in transformers.
      num_layers: layers of the model.

    Returns:
      ``(window in tokens or None, for each layer whether it has it, or None for all)``.

    Raises:
      ValueError: if the fields contradict each other or the family; names the field.
    """
    family = values["model_type"]
    window = values.get("sliding_window", None if family == "llama" else 4096)
    qwen = family in {"qwen2", "qwen3"}
    used = fields.flag(values, "use_sliding_window", not qwen)
    if not qwen:
        _check_layer_types(values, num_layers, window)
    if window is None or (qwen and not used):
        return None, None
    if family == "llama":
        raise ValueError(
            f"sliding_window: expected none in a llama model, got {window!r:.100}"
        )
    window = fields.whole({"sliding_window": window}, "sliding_window")
    if not used:
        raise ValueError(
            "use_sliding_window: expected true beside a sliding_window of a mistral "
            f"model, whose class has no such switch, got false and {window}; set "
            "sliding_window to null for full attention"
        )
    if not qwen:
        return window, None
    layers = _sliding_layers(values, num_layers)
    if not any(layers):
        return None, None
    return window, None if all(layers) else layers


def _sliding_layers(values: Mapping[str, Any], num_layers: int) -> tuple[bool, ...]:
    if not values.get("layer_types"):
        first = values.get("max_window_layers", 28)
        # 0 gives every layer the window, so this is no size.
        if first != 0 or isinstance(first, bool):
            first = fields.whole(values, "max_window_layers", 28)
        return tuple(layer >= first for layer in range(num_layers))
    return _layer_types(values, num_layers)


def _layer_types(values: Mapping[str, Any], num_layers: int) -> tuple[bool, ...]:
    """For each layer whether ``layer_types`` says that it has the window."""
    kinds = values["layer_types"]
    if not isinstance(kinds, list | tuple) or len(kinds) != num_layers:
        raise ValueError(
            f"layer_types: expected a list of {num_layers} kinds, got {kinds!r:.100}"
        )
    known = ("full_attention", "sliding_attention")
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"layer_types: expected {known}, got {kind!r:.100}")
    return tuple(kind == "sliding_attention" for kind in kinds)


def _check_layer_types(values: Mapping[str, Any], num_layers: int, window: Any) -> None:
    """Refuse kinds of layers that the family's class in transformers does not have."""
    if not values.get("layer_types"):
        return
    every = window is not None
    if set(_layer_types(values, num_layers)) != {every}:
        kind = "sliding_attention" if every else "full_attention"
        raise ValueError(
            f"layer_types: expected {kind} in every layer of a {values['model_type']} "
            f"model with sliding_window {window!r:.100}, got others; transformers "
            "does not read the field in this family"
        )
