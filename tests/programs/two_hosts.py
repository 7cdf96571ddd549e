"""One of two processes of a mesh: each holds half a batch and sees the whole gap.

Run as ``two_hosts.py PROCESS PORT WORKDIR`` with two forced CPU devices; prints JSON.
"""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jeff import checkpoint, sharding, training
from jeff.fairness import gaps

ROWS = 64


def batch() -> dict[str, np.ndarray]:
    """The global batch; the groups are spread unevenly over its halves."""
    rng = np.random.default_rng(0)
    group = rng.random(ROWS) < np.linspace(0.1, 0.9, ROWS)
    prob = rng.random(ROWS) * np.where(group, 1.0, 0.6)
    return {"prob": prob.astype(np.float32), "group": group}


def main(process: int, port: str, workdir: str) -> None:
    """Join the other process, compute, print what this process sees."""
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
    mesh = sharding.make_mesh(fsdp=2)
    half = slice(process * ROWS // 2, (process + 1) * ROWS // 2)
    local = {name: array[half] for name, array in batch().items()}
    data = sharding.shard_batch(local, mesh)
    split = P(("data", "fsdp"))
    mapped = jax.shard_map(
        partial(gaps.demographic_parity_gap, axis_name=("data", "fsdp")),
        mesh=mesh,
        in_specs=(split, split),
        out_specs=P(),
    )
    weights = np.arange(8, dtype=np.float32).reshape(4, 2)
    params = sharding.shard_params({"w": weights}, mesh, [("w", P("fsdp"))])
    copied = sharding.replicate(weights, mesh)
    seen = {
        "devices": jax.device_count(),
        "rows": data["prob"].shape[0],
        "jit": jax.jit(gaps.demographic_parity_gap)(data["prob"], data["group"]),
        "shard_map": jax.jit(mapped)(data["prob"], data["group"]),
        "gradient": multihost_utils.process_allgather(
            jax.jit(jax.grad(mapped))(data["prob"], data["group"]), tiled=True
        ).tolist(),
        "local": gaps.demographic_parity_gap(
            *(jnp.asarray(local[name]) for name in ("prob", "group"))
        ),
        "product": jax.jit(lambda a, b: jnp.sum(a["w"] * b))(params, copied),
        "shard": params["w"].addressable_data(0).shape,
    }
    seen["checkpoint"] = checkpoints(params, Path(workdir).parent / "split")
    seen["trained"] = train(local, mesh, workdir)
    seen["alone"] = train(batch(), None, None)
    # One more that another number of devices goes on with, and one of theirs.
    folder = Path(workdir).parent
    train(local, mesh, str(folder / "handed over"), (10,))
    seen["taken over"] = train(local, mesh, str(folder / "handed here"), (20,))
    try:
        train(batch(), None, str(folder / f"own {process}"), (10,))
    except ValueError as error:
        seen["refused"] = str(error)
    print(json.dumps(seen, default=float))


def checkpoints(params: dict[str, jax.Array], folder: Path) -> list[str]:
    """Restore numbers that are split over the processes, then others in their place."""
    checkpoint.save(folder / "first", params)
    checkpoint.save(folder / "second", {"w": params["w"] + 1})
    found = [str(float(checkpoint.restore(folder / "first", params)["w"].sum()))]
    if jax.process_index() == 0:
        # The digests of the first belong to no number of the second.
        shutil.rmtree(folder / "second" / "metadata")
        shutil.copytree(folder / "first" / "metadata", folder / "second" / "metadata")
    multihost_utils.sync_global_devices("damaged")
    try:
        checkpoint.restore(folder / "second", params)
    except checkpoint.DamagedError as error:
        found.append(str(error).rpartition(", but ")[2].partition(";")[0])
    return found


def train(
    rows: dict[str, np.ndarray],
    mesh: Mesh | None,
    workdir: str | None,
    stops: tuple[int, ...] = (10, 20),
) -> float:
    """Fit one number to the batch, stopping on the way; half of the rows a process."""
    optimizer = optax.sgd(0.5)

    def loss(shift, data, key):
        prob = jax.nn.sigmoid(shift * data["group"] + data["prob"])
        return gaps.demographic_parity_gap(prob, data["group"]), {}

    state = training.init_state(jnp.float32(1.0), optimizer, key=jax.random.key(0))
    options = {"chunk_steps": 5, "progress": False, "workdir": workdir}
    if mesh:
        state = sharding.replicate(state, mesh)
        options["batch_sharding"] = sharding.batch_sharding(mesh)
    step = training.make_step(loss, optimizer)
    for stop in stops if workdir else stops[-1:]:
        fit = training.fit(step, state, lambda _: rows, num_steps=stop, **options)
    return float(fit.state.params)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
