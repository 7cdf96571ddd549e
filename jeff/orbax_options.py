"""Options of orbax with which a checkpoint is written and read.

Beside `jeff.stored`, which says what a checkpoint holds: here is who writes and reads.
"""

import jax
import orbax.checkpoint as ocp

__all__ = ["LEAVES", "RECORD", "checkpointer", "handlers", "processes"]

# Names of a checkpoint's two parts, on disk too.
LEAVES, RECORD = "leaves", "metadata"


def processes(one: bool, *, writes: bool = True) -> ocp.options.MultiprocessingOptions:
    """Which processes meet to write and read a checkpoint.

    Args:
      one: this one alone, or all.
      writes: whether anything is written.

    Returns:
      The options of orbax.

    Raises:
      ValueError: if a process other than the first is to write alone.
    """
    if not one:
        return ocp.options.MultiprocessingOptions()
    mine = jax.process_index()
    if mine and writes:
        raise ValueError(
            f"checkpoint: expected arrays that all {jax.process_count()} processes "
            f"hold, got some of process {mine} alone, which orbax does not write; "
            "place them on a mesh of all processes, or keep no checkpoint there"
        )
    return ocp.options.MultiprocessingOptions(
        primary_host=mine,
        active_processes={mine},
        barrier_sync_key_prefix=f"process{mine}",
    )


def checkpointer(one: bool, *, writes: bool = True) -> ocp.Checkpointer:
    """What writes and reads a checkpoint.

    Args:
      one: whether this process does so alone.
      writes: whether anything is written.

    Returns:
      Orbax's checkpointer, to be closed.

    Raises:
      ValueError: as in `processes`.
    """
    options = processes(one, writes=writes)
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=options),
        **handlers(options),  # pyright: ignore[reportArgumentType]
    )
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def handlers(
    options: ocp.options.MultiprocessingOptions,
) -> dict[str, ocp.CheckpointHandler]:
    """What writes and reads the parts of a checkpoint.

    Args:
      options: of `processes`; the handlers that orbax makes by itself do not get them.

    Returns:
      Orbax's handlers by part.
    """
    return {
        LEAVES: ocp.PyTreeCheckpointHandler(multiprocessing_options=options),
        RECORD: ocp.JsonCheckpointHandler(multiprocessing_options=options),
    }
