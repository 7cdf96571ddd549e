"""The cache that a script is told to use, such as ``--kv 4,2``."""

from jeff_llm import kv
from jeff_llm.generate.decoding import MakeCache
from jeff_llm.models.cache import init_cache
from jeff_llm.models.config import DecoderConfig

__all__ = ["cache_of"]


def cache_of(widths: str, config: DecoderConfig) -> MakeCache:
    """A factory of caches.

    Args:
      widths: bits of keys and values, such as "4,2"; empty for a plain cache.
      config: the decoder's configuration, whose heads the groups must fit.

    Returns:
      What `jeff_llm.generate` takes as ``make_cache``.

    Raises:
      ValueError: if they are not two numbers, or a width is not supported.
    """
    if not widths:
        return init_cache
    parts = [part.strip() for part in widths.split(",")]
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(
            f"kv: expected bits of keys and values such as 4,2, got {widths!r}"
        )
    keys, values = map(int, parts)
    layout = kv.CacheConfig(
        key_bits=keys, value_bits=values, group_size=min(64, config.head_width)
    )
    # Here, and not at the first prompt.
    layout.check_heads(config.head_width)
    return kv.MakeCache(layout)
