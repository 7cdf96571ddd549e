"""Train for a while and print the bits of the parameters; can kill itself midway.

usage: resumable.py WORKDIR [STEP]   kill -9 itself when the log reaches STEP
"""

import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jeff import training


def main(workdir: str, kill_at: int) -> None:
    key = jax.random.key(0)
    x = jax.random.normal(key, (96, 7))
    data = {"x": x, "y": x @ jnp.arange(7.0)}

    def loss(params, batch, key):
        noise = 0.1 * jax.random.normal(key, batch["y"].shape)
        error = batch["x"] @ params["w"] - batch["y"] + noise
        return jnp.mean(error**2), {}

    def validate(state):
        rows = Path(workdir, "metrics.jsonl").read_text().splitlines()
        if kill_at and len(rows) * 6 >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"norm": jnp.linalg.norm(state.params["w"])}

    optimizer = optax.adam(1e-2)
    fit = training.fit(
        training.make_step(loss, optimizer),
        training.init_state({"w": jnp.zeros(7)}, optimizer, key=key),
        training.Shuffled(data, 16, key),
        num_steps=120,
        workdir=workdir,
        checkpoint_every=2,
        validate=validate,
        early_stop=training.EarlyStop("norm", patience=50, mode="max"),
        progress=False,
    )
    rows = [(row["step"], row["loss"], row["norm"]) for row in fit.history]
    print(
        np.asarray(fit.state.params["w"]).tobytes().hex(), fit.step, hash(tuple(rows))
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
