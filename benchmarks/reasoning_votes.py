"""All voting rules on 10,000 questions of 40 samples, against a loop over questions.

``python -m benchmarks.reasoning_votes [questions] [samples]``. The peer takes one
question after the other in Python: counters for the majority and the windows, the
authors' package for adaptive consistency where it is installed (else the same decision
with SciPy), sorting for the samples that finish first. It is timed on a part of the
questions and scaled up. Writes a record to benchmarks/results.
"""

import functools
import importlib.util
import json
import statistics
import sys
import time
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from benchmarks import records
from jeff_llm.reasoning import (
    guarantee_simulation,
    voting,
    voting_adaptive,
    voting_parallel,
)

_REPEATS = 5
_PART = 200


def main(questions: int = 10_000, samples: int = 40) -> None:
    """Time both, check that they agree, and write the record."""
    key, long = jax.random.split(jax.random.key(0))
    answer = guarantee_simulation.simulate_answers(questions, samples, key=key)
    length = jax.random.randint(long, answer.shape, 1, 2000).astype(jnp.float32)
    weight = 1 / length
    began = time.perf_counter()
    found = jax.block_until_ready(_ours(answer, length, weight))
    compiled = time.perf_counter() - began
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(_ours(answer, length, weight))
        seconds.append(time.perf_counter() - began)
    part = min(questions, _PART)
    rows = [np.asarray(x[:part]).tolist() for x in (answer, length, weight)]
    decide, peer_name = _decision()
    began = time.perf_counter()
    theirs = [
        _peer(*row, decide) for row in zip(rows[0], rows[1], rows[2], strict=True)
    ]
    peer = (time.perf_counter() - began) * questions / part
    for name in found:
        mine = np.asarray(found[name].answer[:part])
        np.testing.assert_array_equal(mine, [each[name] for each in theirs], name)
    middle = statistics.median(seconds)
    record = {
        "questions": questions,
        "samples": samples,
        "rules": list(found),
        "seconds": {"median": middle, "min": min(seconds), "max": max(seconds)},
        "seconds_with_compilation": compiled,
        "peer": peer_name,
        "peer_seconds": peer,
        "ratio": peer / middle,
    }
    print(json.dumps(record, indent=1))
    records.write("reasoning_votes", record)


def _ours(answer: jax.Array, length: jax.Array, weight: jax.Array) -> dict:
    given: dict[str, Any] = {"length": length}
    return {
        "majority": voting.majority_vote(answer, **given),
        "weighted": voting.confidence_weighted_vote(answer, weight, **given),
        "early_stopping": voting.early_stopping(answer, **given),
        "adaptive": voting_adaptive.adaptive_consistency(answer, **given),
        "certaindex": voting_adaptive.certaindex_stopping(answer, **given),
        "short": voting_parallel.short_m_of_k(answer, finish=3, **given),
        "first_finish": voting_parallel.first_finish(answer, **given),
    }


def _decision():
    """Whether answers are clear enough to stop, by the package if it is here."""
    if importlib.util.find_spec("adaptive_consistency"):
        from adaptive_consistency import AC, BetaStoppingCriteria

        given: Any = BetaStoppingCriteria(0.95)  # its annotation says the class
        rule = AC(stop_criteria=given)
        return rule.should_stop, "a loop with the package AdaptiveConsistency"

    @functools.cache
    def tail(first: int, second: int) -> bool:
        return bool(stats.beta.sf(0.5, first + 1.0, second + 1.0) >= 0.95)

    def should_stop(seen: list[int]) -> bool:
        counts = [n for _, n in Counter(seen).most_common(2)]
        return tail(*(*counts, 0)[:2])

    return should_stop, "a loop with SciPy"


def _peer(answer: list, length: list, weight: list, decide) -> dict[str, int]:
    """What a script would do for one question."""
    votes = [code for code in answer if code >= 0]
    total: dict[int, float] = {}
    for code, one in zip(answer, weight, strict=True):
        if code >= 0:
            total[code] = total.get(code, 0.0) + one
    windows = (answer[start : start + 5] for start in range(0, len(answer), 5))
    agreed = (w[0] for w in windows if len(w) == 5 and len({*w}) == 1 and w[0] >= 0)
    ends = range(1, len(votes) + 1)
    clear = next((n for n in ends if decide(votes[:n])), len(votes))
    sure = next((n for n in ends if n >= 5 and _certain(votes[:n])), len(votes))
    order = sorted(range(len(answer)), key=lambda place: length[place])
    done = [answer[place] for place in order if answer[place] >= 0]
    return {
        "majority": _most(votes),
        "weighted": max(total, key=total.__getitem__) if total else -1,
        "early_stopping": next(agreed, _most(votes)),
        "adaptive": _most(votes[:clear]),
        "certaindex": _most(votes[:sure]),
        "short": _most(done[:3]),
        "first_finish": _most(done[:1]),
    }


def _certain(votes: list[int]) -> bool:
    share = np.array(list(Counter(votes).values())) / len(votes)
    return 1 + (share * np.log(share)).sum() / np.log(len(votes)) >= 0.9


def _most(votes: list[int]) -> int:
    return Counter(votes).most_common(1)[0][0] if votes else -1


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
