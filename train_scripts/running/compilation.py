"""How the scripts compile: programs are kept, and those of short runs made quickly."""

import importlib.util
import os
from importlib.metadata import entry_points

__all__ = ["compile_quickly", "use_compilation_cache"]

# Of LLVM, whose default is 3. Products of matrices are library calls at any level.
_QUICKLY = "--xla_backend_optimization_level=1"


def use_compilation_cache() -> None:
    """Cache compiled programs in the asset cache, for later processes."""
    import jax

    from jeff.assets import cache_dir

    # JAX skips programs that compile in under a second by default; the scripts compile
    # many of these.
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def compile_quickly() -> bool:
    """Spend less on optimising programs; for runs that compile as long as they compute.

    On a machine without an accelerator and where ``XLA_FLAGS`` is not set. XLA reads
    its flags when the first device is asked for: later than that nothing changes.

    Returns:
      Whether the flag is set by this call.
    """
    # The flag is one for all backends, and an accelerator would lose by it.
    accelerator = importlib.util.find_spec("libtpu") or entry_points(
        group="jax_plugins"
    )
    if accelerator or "XLA_FLAGS" in os.environ:
        return False
    os.environ["XLA_FLAGS"] = _QUICKLY
    return True
