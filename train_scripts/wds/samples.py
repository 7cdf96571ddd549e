"""Sample a few cells out of many: densities and sampling methods."""

import jax
import jax.numpy as jnp
import numpy as np

from configs.wds import Config
from jeff_graph.cells import rivals, stream, wds
from jeff_graph.cells.sampling import Sample, sample
from jeff_graph.cells.weights import Weights
from train_scripts.running import machines
from train_scripts.running.seeds import seed_key
from train_scripts.wds.data import Cells

__all__ = ["at_most", "densities", "pick"]

# Number of principal components used by k-centre and geosketch.
_COMPONENTS = 20


def densities(config: Config, cells: Cells, seed: int) -> np.ndarray:
    """Density of each cell, computed in two passes; NaN for a cell without genes.

    Args:
      config: settings of the run.
      cells: cells of the run.
      seed: seed of the hashes.

    Returns:
      One number per cell.
    """
    number = len(cells.prepared.genes)
    params = wds.hash_parameters(seed_key(seed, 0), number, config.hashes)
    mesh, chunks = machines.mesh(), cells.prepared.chunks()
    sketch = (
        stream.sketch_cells(chunks, params)
        if mesh is None
        else stream.sketch_on_mesh(chunks, params, mesh)
    )
    return stream.score_cells(cells.prepared.chunks(), params, sketch)


def at_most(num_cells: int, most: int, seed: int) -> np.ndarray:
    """Choose all cells, or ``most`` cells uniformly at random if there are more.

    Args:
      num_cells: number of cells.
      most: maximum number of cells to choose.
      seed: seed of the draw.

    Returns:
      Indices in ascending order.
    """
    if num_cells <= most:
        return np.arange(num_cells)
    drawn = rivals.uniform(num_cells, most, key=seed_key(seed, 5))
    return np.sort(np.asarray(drawn))


def pick(
    config: Config,
    cells: Cells,
    weights: Weights,
    way: str,
    number: int,
    key: jax.Array,
) -> Sample:
    """Pick cells with one sampling method.

    Args:
      config: settings of the run.
      cells: cells of the run.
      weights: weights of the diversified sampler.
      way: one of `configs.wds.SAMPLERS`.
      number: number of cells to pick.
      key: random key.

    Returns:
      The sample. Methods without known inclusion probabilities weight cells equally.

    Raises:
      ValueError: if ``number`` exceeds the number of cells.
    """
    if way == "wds":
        return sample(weights.log_weight, number, key=key, estimand=config.estimand)
    if way == "uniform":
        return sample(jnp.zeros(len(weights.log_weight)), number, key=key)
    rows = _components(cells)
    if way == "k-centre":
        chosen = rivals.k_centre(jnp.asarray(rows), number, key=key)
    else:
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        chosen = jnp.asarray(rivals.geosketch_cells(rows, number, seed=seed))
    even = jnp.full(number, 1 / number)
    return Sample(chosen, number * even, even, jnp.asarray(float(number)))


def _components(cells: Cells) -> np.ndarray:
    rows = cells.prepared.take(np.arange(cells.prepared.num_cells))
    most = min(cells.prepared.num_cells, len(cells.prepared.genes)) - 1
    return rivals.principal_components(rows, min(_COMPONENTS, most))
