"""KV-AdaQuant: a packed key-value cache with more bits for keys than for values.

`init_cache`, `prefill`, `append` and `attend` serve one attention layer of any model;
`MakeCache` makes the cache of jeff's own decoder. `quantize` packs one tensor,
`allocate_bits` divides a budget among layers by their scores, `bounds` limits how far
an error can carry.
"""

from jeff_llm.kv import bounds
from jeff_llm.kv.allocate import (
    allocate_bits,
    allocate_groups,
)
from jeff_llm.kv.attention import Implementation
from jeff_llm.kv.cache import (
    QuantizedCache,
    append,
    attend,
    init_cache,
    nbytes,
    prefill,
)
from jeff_llm.kv.config import CacheConfig, EffectiveBits, effective_bits
from jeff_llm.kv.decoder_cache import DecoderCache
from jeff_llm.kv.make_cache import MakeCache
from jeff_llm.kv.quantize import QuantizedTensor, dequantize, quantize
from jeff_llm.kv.rotation import rotate
from jeff_llm.kv.scores import scores_from_activations, scores_from_weights

__all__ = [
    "CacheConfig",
    "DecoderCache",
    "EffectiveBits",
    "Implementation",
    "MakeCache",
    "QuantizedCache",
    "QuantizedTensor",
    "allocate_bits",
    "allocate_groups",
    "append",
    "attend",
    "bounds",
    "dequantize",
    "effective_bits",
    "init_cache",
    "nbytes",
    "prefill",
    "quantize",
    "rotate",
    "scores_from_activations",
    "scores_from_weights",
]
