"""What the record of each benchmark says about its peers.

A function per benchmark: record in, comparisons out. Goals are those of the
specifications; where there is none, the ratio alone is shown.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.comparisons import Comparison

__all__ = ["READINGS", "read"]

Record = dict[str, Any]


def read(name: str, record: Record) -> list[Comparison]:
    """The comparisons of a record.

    Args:
      name: the benchmark's module.
      record: what it measured.

    Returns:
      The comparisons, none for a benchmark without a peer.

    Raises:
      ValueError: if there is no such benchmark.
    """
    if name not in READINGS:
        raise ValueError(f"name: expected one of {sorted(READINGS)}, got {name!r}")
    return READINGS[name](record)


def _over(peer: Sequence[float], ours: Sequence[float]) -> tuple[float, ...]:
    """Ratios of repetitions that took turns."""
    return tuple(one / other for one, other in zip(peer, ours, strict=True))


def yodo(record: Record) -> list[Comparison]:
    """The line of models against the same in PyTorch."""
    seconds, found, levels = (
        record["seconds"],
        record["ratios"],
        record["config"]["num_levels"],
    )
    both = [
        a + b
        for a, b in zip(seconds["jeff_train"], seconds["jeff_levels"], strict=True)
    ]
    apart = [levels * each for each in seconds["torch_fixed"]]
    floor = found["floor of training (its products at the matrix rate) / jeff"]
    rows = [
        Comparison(
            "training",
            "PyTorch",
            _over(seconds["torch_train"], seconds["jeff_train"]),
            2.0,
            floor,
        ),
        Comparison(
            f"{levels} levels of all people",
            "PyTorch",
            _over(seconds["torch_levels"], seconds["jeff_levels"]),
            1.0,
        ),
        Comparison(
            f"training and {levels} levels",
            f"{levels} fixed models in PyTorch",
            _over(apart, both),
            70.0,
        ),
    ]
    cold = "first training, empty compilation cache: torch / jeff"
    if cold in found:
        rows.append(
            Comparison("first training, compiled", "PyTorch", (found[cold],), 1.2)
        )
    return rows


def decoder(record: Record) -> list[Comparison]:
    """SmolLM2 against transformers."""
    seconds, config, typical = (
        record["seconds"],
        record["config"],
        record["medians"],
    )
    rows, new = config["batch_size"], config["new_tokens"]

    def decoding(side: str, batch: int) -> list[float]:
        first = statistics.median(seconds[f"{side}_batch{batch}_tokens1"])
        return [
            (whole - first) / new
            for whole in seconds[f"{side}_batch{batch}_tokens{new + 1}"]
        ]

    def one(what: str, name: str, sides: list[list[float]], goal: float) -> Comparison:
        floor = record["floors"][name] / typical[f"jeff {name}"]
        return Comparison(what, "transformers", _over(*sides), goal, floor)

    whole = [seconds[f"{side}_batch{rows}_tokens1"] for side in ("torch", "jeff")]
    found = [one(f"reading, batch {rows}", "prefill", whole, 1.2)]
    for batch, goal in ((1, 2.0), (rows, 1.3)):
        sides = [decoding(side, batch) for side in ("torch", "jeff")]
        name = f"decode, batch {batch}"
        found.append(one(f"writing, batch {batch}", name, sides, goal))
    lora = [seconds[f"{side}_lora"] for side in ("torch", "jeff")]
    found.append(one("a step of LoRA", "LoRA step", lora, 1.3))
    start = record["ratios torch / jeff"].get("start-up")
    if start is not None:
        found.append(
            Comparison("import, load, first token", "transformers", (start,), 1.0)
        )
    return found


def laptop(record: Record) -> list[Comparison]:
    """One prompt at a time, packed weights, against llama.cpp and float32."""
    seconds, tokens = record["seconds"], record["config"]["new_tokens"]

    def writing(side: str) -> list[float]:
        first = statistics.median(seconds[side]["first"])
        return [(each - first) / tokens for each in seconds[side]["all"]]

    packed, plain = writing("jeff packed"), writing("jeff")
    reading = {side: each["first"] for side, each in seconds.items()}
    rows = [
        Comparison("writing, packed", "jeff in float32", _over(plain, packed), 2.5),
        Comparison(
            "reading, packed",
            "jeff in float32",
            _over(reading["jeff"], reading["jeff packed"]),
            1.0,
        ),
    ]
    if "llama.cpp" in seconds:
        theirs = writing("llama.cpp")
        rows += [
            Comparison("writing, packed", "llama.cpp", _over(theirs, packed), 1 / 1.5),
            Comparison(
                "reading, packed",
                "llama.cpp",
                _over(reading["llama.cpp"], reading["jeff packed"]),
            ),
        ]
    return rows


def long_context(record: Record) -> list[Comparison]:
    """Long prompts against transformers, time and memory."""
    found = {(row["side"], row["tokens"]): row for row in record["rows"]}
    rows = []
    for (side, tokens), ours in found.items():
        if side == "jeff K4V2" and tokens == 32_768:
            what = f"peak memory of K4V2, {tokens} tokens"
            rows.append(Comparison(what, "6 GB", (6e9 / ours["peak_bytes"],), 1.0))
        peer = found.get(("transformers", tokens))
        if side != "jeff" or peer is None:
            continue
        times = [row["prefill_seconds"] for row in (peer, ours)]
        held = ours["weights_bytes"] + ours["cache_bytes"]
        # What the process held before any prompt, its libraries, is no part of it.
        over = ours["peak_bytes"] - ours["bytes_before"] + ours["weights_bytes"]
        rows += [
            Comparison(f"reading {tokens} tokens", "transformers", _over(*times), 1.0),
            Comparison(
                f"peak memory, {tokens} tokens",
                "transformers",
                (peer["peak_bytes"] / ours["peak_bytes"],),
            ),
            Comparison(
                f"the same without libraries, {tokens} tokens",
                "weights and cache",
                (held / over,),
                1 / 1.3 if tokens == 8192 else None,
            ),
        ]
    return rows


def kv(record: Record) -> list[Comparison]:
    """Attention over a packed cache on a CPU."""
    rows = []
    for row in record["rows"]:
        runs = {
            side: [run["mean"] for run in found]
            for side, found in row["processes"].items()
        }
        peers = {"dequantised": "dequantised at once", "quanto": "optimum-quanto"}
        rows += [
            Comparison(
                f"a step of K4V2 at {row['tokens']} tokens",
                peer,
                _over(runs[side], runs["packed"]),
                1.0,
            )
            for side, peer in peers.items()
            if side in runs
        ]
    return rows


def kv_gpu(record: Record) -> list[Comparison]:
    """Attention over a packed cache on a GPU, against cuDNN's in bfloat16."""
    rows = []
    for row in record["rows"]:
        batch, tokens, sides = row["batch"], row["tokens"], row["sides"]
        if not {"packed", "cudnn"} <= set(sides):
            continue
        seconds = sides["packed"]["seconds"]
        copy = row["packed_bytes"] / record["copy_bytes_per_second"]
        rows.append(
            Comparison(
                f"a step of K4V2, batch {batch}, {tokens} tokens",
                "cuDNN in bfloat16",
                (sides["cudnn"]["seconds"] / seconds,),
                3.0 if (batch, tokens) == (8, 32_768) else None,
                copy / seconds,
            )
        )
    return rows


def gre(record: Record) -> list[Comparison]:
    """Edits against a plain PyTorch loop."""
    seconds, config, steps = record["seconds"], record["config"], record["steps"]
    what = f"{config['edits']} edits of {config['dataset']}"
    rows = [
        Comparison(what, "PyTorch", _over(seconds["torch"], seconds["jeff"]), 10.0),
        Comparison(
            "a step that rewires five parts",
            "Adam alone",
            (steps["adam"] / steps["gre+5"],),
            1 / 1.5,
        ),
    ]
    if "cold" in record:
        cold = [record["cold"][side] for side in ("torch", "jeff")]
        rows.append(Comparison(f"{what}, compiled", "PyTorch", _over(*cold), 2.0))
    return rows


def wds(record: Record) -> list[Comparison]:
    """Two passes over cells."""
    rates = record["cells_per_second"]
    return [
        Comparison("both passes", peer, _over(rates["memory"], rates[side]), goal)
        for side, peer, goal in (
            ("numpy", "the paper's code in numpy", 20.0),
            ("geosketch", "geosketch", None),
        )
    ]


def _one_peer(what: str, goal: float | None = None) -> Callable[..., list[Comparison]]:
    """Repetitions of jeff, and one of a peer that takes long."""

    def found(record: Record) -> list[Comparison]:
        ours = record["seconds"]
        ratios = [record["peer_seconds"] / ours[k] for k in ("min", "median", "max")]
        return [Comparison(what, record["peer"], tuple(ratios), goal)]

    return found


def reasoning(record: Record) -> list[Comparison]:
    """A step of reinforcement learning."""
    seconds = record["seconds"]
    return [
        Comparison(
            "a step of reinforcement learning",
            record["peer"],
            _over(seconds["peer"], seconds["jeff"]),
            record["goal"],
        )
    ]


def genes(record: Record) -> list[Comparison]:
    """Similarities of patients and diseases."""
    return [Comparison("similarities a second", "hpo3", (record["hpo3"]["ratio"],))]


def anomaly(record: Record) -> list[Comparison]:
    """Exact detectors over embeddings, against PyOD."""
    return [
        Comparison(
            f"{name}, fit and score",
            "PyOD",
            tuple(record[part][k] for k in ("ratio_min", "ratio", "ratio_max")),
        )
        for part, name in (("knn", "k nearest neighbours"), ("lof", "LOF"))
    ]


def serving(record: Record) -> list[Comparison]:
    """Answers a second for clients that ask together."""
    theirs = {row["clients"]: row for row in record["transformers serve"]}
    return [
        Comparison(
            f"tokens a second, clients: {row['clients']}",
            "transformers serve",
            (row["tokens_per_second"] / theirs[row["clients"]]["tokens_per_second"],),
        )
        for row in record["jeff"]
        if row["clients"] in theirs
    ]


def checkpoint(record: Record) -> list[Comparison]:
    """Saving and restoring with digests, against plain orbax."""
    return [
        Comparison(f"{what}, {size}", "orbax", (1 / found[f"{what}_over_orbax"],))
        for size, found in record["medians"].items()
        for what in ("save", "restore")
    ]


READINGS: dict[str, Callable[[Record], list[Comparison]]] = {
    "yodo": yodo,
    "gre": gre,
    "wds": wds,
    "kv": kv,
    "kv_gpu": kv_gpu,
    "decoder": decoder,
    "laptop": laptop,
    "long_context": long_context,
    "routing": _one_peer("all settings of routing"),
    "reasoning": reasoning,
    "reasoning_votes": _one_peer("seven rules of voting"),
    "genes": genes,
    "anomaly": anomaly,
    "serving": serving,
    "checkpoint": checkpoint,
    # Accuracy, not time: its table is in the results.
    "gre_accuracy": lambda record: [],
}
