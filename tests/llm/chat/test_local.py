"""Test a local model: batching must not change the answers.

The model here is made up: a token is a letter, and the next one depends on the prompt,
the row's key and its temperature, as in `jeff_llm.generate`, whose place it takes.
"""

import asyncio
import sys
import threading
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jeff_llm
from jeff_llm.chat import Local, Request, ask, conversation

END, LONGEST = 0, 60


class Sampling(NamedTuple):
    temperature: Any = 1.0
    top_k: Any = None
    top_p: Any = None
    min_p: Any = None


class Generation(NamedTuple):
    tokens: jax.Array
    lengths: jax.Array
    finished: jax.Array
    log_probs: jax.Array


class Letters:
    """A token is a letter: a is 1 and so on; a template of a line for each turn."""

    def apply_chat_template(
        self, messages: list[dict[str, str]], add_generation_prompt: bool
    ) -> str:
        assert add_generation_prompt
        lines = [f"{m['role'][0]}{m['content']}" for m in messages]
        return "".join(lines) + "a"

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens, "the template has them already"
        return [ord(letter) - 96 for letter in text]

    def decode(self, ids: list[int]) -> str:
        assert all(isinstance(each, int) for each in ids)
        return "".join(chr(96 + each) for each in ids)


class Tiny:
    """A language model by name, and what was asked of it: the calls of `generate`."""

    name = "tiny"

    def __init__(self) -> None:
        self.tokenizer = Letters()
        self.calls: list[tuple[int, int, Sampling]] = []
        self.threads: set[int] = set()
        self.running = 0


def row(prompt, sampling: Sampling, index: int, steps: int, key):
    """One row's letters and log-probabilities, which depend on nothing else."""
    logits = jnp.sin(jnp.arange(27.0) * (1 + sum(prompt) % 7)) * 2
    log_probs = jax.nn.log_softmax(logits)
    if key is None:
        order = np.asarray(jnp.argsort(-logits))
        tokens = [int(order[step % 5]) for step in range(steps)]
    else:
        temperature = sampling.temperature[index]
        tokens = np.asarray(
            jax.random.categorical(key, logits / temperature, shape=(LONGEST,))
        ).tolist()[:steps]
    return tokens, [float(log_probs[token]) for token in tokens]


def fake_generate(model, prompts, *, max_new_tokens, sampling, keys):
    model.running += 1
    assert model.running == 1, "one batch at a time"
    model.calls.append((len(prompts), max_new_tokens, sampling))
    model.threads.add(threading.get_ident())
    try:
        if long := [prompt for prompt in prompts if len(prompt) > LONGEST]:
            raise ValueError(f"prompts: expected at most {LONGEST}, got {len(long[0])}")
        assert keys is None or keys.shape == (len(prompts),)
        rows = [
            row(prompt, sampling, i, max_new_tokens, None if keys is None else keys[i])
            for i, prompt in enumerate(prompts)
        ]
    finally:
        model.running -= 1
    lengths, finished = [], []
    for tokens, _ in rows:
        finished.append(END in tokens)
        lengths.append(tokens.index(END) + 1 if END in tokens else len(tokens))
    return Generation(
        jnp.array([tokens for tokens, _ in rows]),
        jnp.array(lengths),
        jnp.array(finished),
        jnp.array([log_probs for _, log_probs in rows]),
    )


@pytest.fixture(autouse=True)
def generate(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("jeff_llm.generate")
    module.generate, module.Sampling = fake_generate, Sampling  # pyright: ignore
    monkeypatch.setitem(sys.modules, "jeff_llm.generate", module)
    monkeypatch.setattr(jeff_llm, "generate", module, raising=False)
    return module


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests sent together share a batch, however busy the machine is."""
    monkeypatch.setattr("jeff_llm.chat.local._GATHER_SECONDS", 0.25)


def request(text: str = "abc", **fields: Any) -> Request:
    return Request(conversation(text), **fields)


MIXED = [
    request("abc", max_tokens=5),
    request("abcd", max_tokens=30, temperature=0.7, seed=3, logprobs=True),
    request("hello", max_tokens=9, temperature=1.0, seed=4),
    request("hello", max_tokens=9, temperature=1.0, seed=5),
    request("hello", max_tokens=30, temperature=1.0),
    request("hello", max_tokens=30, temperature=2.0, top_p=0.9, seed=6),
    request("xyz", max_tokens=17, logprobs=True),
    request("b", max_tokens=30, temperature=1.3, seed=2**32 - 1, stop=("q", "r")),
]


@pytest.mark.usefixtures("patient")
def test_answers_are_equal_alone_and_in_a_batch():
    alone = [ask(Local(Tiny(), batch_size=1), each) for each in MIXED]
    model = Tiny()
    together = ask(Local(model), MIXED)
    assert together == alone == ask(Local(model), MIXED[::-1])[::-1]
    # Greedy rows, rows drawn out of all tokens, and one that is drawn out of some.
    assert sorted(size for size, _, _ in model.calls) == [1, 1, 2, 2, 5, 5]
    assert together[2] != together[3], "another seed is another answer"
    assert together[4] == ask(
        Local(Tiny()), request("hello", max_tokens=30, temperature=1.0, seed=0)
    )


@pytest.mark.usefixtures("patient")
def test_how_rows_are_drawn():
    model = Tiny()
    ask(Local(model), MIXED)
    calls = {int(size): (steps, sampling) for size, steps, sampling in model.calls}
    assert calls[2] == (17, Sampling(temperature=0.0))
    steps, sampling = calls[5]
    assert steps == 30
    assert sampling.temperature.tolist() == pytest.approx([0.7, 1.0, 1.0, 1.0, 1.3])
    assert sampling.top_p is None
    assert calls[1][1].top_p.tolist() == pytest.approx([0.9])


def test_the_key_of_a_row_is_that_of_its_seed():
    """The seed's own key, whatever the batch; 2^32 - 1 is a seed too."""
    asked = [request(temperature=1.0, seed=s, max_tokens=4) for s in (7, 2**32 - 1)]
    for each, answer in zip(asked, ask(Local(Tiny()), asked), strict=True):
        sampling = Sampling(temperature=jnp.ones(1))
        prompt = Letters().encode("uabca", add_special_tokens=False)
        tokens, _ = row(prompt, sampling, 0, 4, jax.random.key(np.uint32(each.seed)))
        kept = tokens[: tokens.index(END)] if END in tokens else tokens
        assert answer.text == Letters().decode(kept)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, generate: types.ModuleType):
    """Make `generate` write given letters, "." being the end."""

    def script(text: str) -> None:
        tokens = [END if letter == "." else ord(letter) - 96 for letter in text]

        def written(model, prompts, *, max_new_tokens, sampling, keys):
            kept = tokens[:max_new_tokens]
            return Generation(
                jnp.array([kept]),
                jnp.array([len(kept)]),
                jnp.array([END in kept]),
                -jnp.arange(1.0, len(kept) + 1)[None],
            )

        monkeypatch.setattr(generate, "generate", written)

    return script


@pytest.mark.parametrize(
    ("written", "fields", "text", "reason", "count"),
    [
        ("abc.", {}, "abc", "stop", 4),
        ("abcd", {"max_tokens": 3}, "abc", "length", 3),
        ("abc.", {"max_tokens": 4}, "abc", "stop", 4),
        ("abc.", {"max_tokens": 3}, "abc", "length", 3),
        ("abcdef", {"stop": ("de",)}, "abc", "stop", 5),
        ("abcdef", {"stop": ("ef", "bc")}, "a", "stop", 3),
        ("abcabc", {"stop": ("ca",)}, "ab", "stop", 4),
        ("abcdef", {"stop": ("x",)}, "abcdef", "length", 6),
        ("abc.", {"stop": ("a",)}, "", "stop", 1),
        (".", {}, "", "stop", 1),
    ],
)
def test_where_an_answer_ends(written, fields, text, reason, count, scripted):
    scripted(written)
    answer = ask(Local(Tiny()), request(logprobs=True, **fields))
    assert (answer.text, answer.finish_reason) == (text, reason)
    assert answer.completion_tokens == count
    assert answer.log_probs == tuple(-float(i) for i in range(1, count + 1))
    assert answer.prompt_tokens == len("uabca")
    assert (answer.model, answer.cost, answer.cached) == ("tiny", 0.0, False)


def test_log_probs_are_not_there_unless_asked_for(scripted):
    scripted("abc.")
    assert ask(Local(Tiny()), request()).log_probs is None


@pytest.mark.usefixtures("patient")
def test_a_prompt_that_is_too_long_fails_alone():
    model = Tiny()
    requests = [request("ab"), request("a" * 99), request("cd")]
    first, error, last = ask(Local(model), requests)
    assert [first, last] == ask(Local(Tiny()), [requests[0], requests[2]])
    assert str(error) == f"prompts: expected at most {LONGEST}, got 101"
    assert [size for size, _, _ in model.calls] == [3, 1, 1, 1]
    with pytest.raises(ValueError, match="expected at most 60"):
        ask(Local(model), requests[1])


@pytest.mark.usefixtures("patient")
def test_an_error_of_the_model_itself_is_that_of_the_whole_batch(monkeypatch, generate):
    """It is not tried again row by row; and the next batch is served."""
    calls, inner = [], generate.generate

    def broken(*args, **options):
        calls.append(args)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return inner(*args, **options)

    monkeypatch.setattr(generate, "generate", broken)
    local = Local(Tiny())
    errors = ask(local, [request("a"), request("b")])
    assert [repr(error) for error in errors] == ["RuntimeError('out of memory')"] * 2
    assert len(calls) == 1
    assert ask(local, request("a")).text


@pytest.mark.usefixtures("patient")
def test_a_batch_is_no_larger_than_allowed():
    model = Tiny()
    ask(Local(model, batch_size=3), [request(max_tokens=2)] * 8, concurrency=8)
    assert [size for size, _, _ in model.calls] == [3, 3, 2]
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        Local(model, batch_size=0)


def test_the_event_loop_goes_on_while_the_model_works(monkeypatch, generate):
    inner, started, may_go_on = generate.generate, threading.Event(), threading.Event()

    def slow(*args, **options):
        started.set()
        assert may_go_on.wait(10), "the loop was blocked"
        return inner(*args, **options)

    monkeypatch.setattr(generate, "generate", slow)

    async def both():
        answer = asyncio.ensure_future(Local(Tiny()).answer(request()))
        while not started.is_set():
            await asyncio.sleep(0.001)
        may_go_on.set()
        return await answer

    assert asyncio.run(both()).text


def test_a_request_that_is_given_up_is_not_answered(monkeypatch, generate):
    """One that waits leaves; what is with the model already is finished, unheard."""
    inner, started, may_go_on = generate.generate, threading.Event(), threading.Event()

    def slow(*args, **options):
        started.set()
        assert may_go_on.wait(10)
        return inner(*args, **options)

    monkeypatch.setattr(generate, "generate", slow)
    model = Tiny()

    async def give_up():
        local = Local(model, batch_size=1)
        tasks = [
            asyncio.ensure_future(local.answer(request(t))) for t in ("a", "b", "c")
        ]
        while not started.is_set():
            await asyncio.sleep(0.001)
        tasks[0].cancel()
        tasks[1].cancel()
        await asyncio.sleep(0)
        may_go_on.set()
        assert (await tasks[2]).text
        assert tasks[0].cancelled() and tasks[1].cancelled()

    asyncio.run(give_up())
    assert len(model.calls) == 2


@pytest.mark.usefixtures("patient")
def test_many_threads_share_one_model():
    model = Tiny()
    local = Local(model)
    requests = [request(max_tokens=3, temperature=1.0, seed=s) for s in range(24)]
    found: dict[int, list] = {}

    def work(index: int) -> None:
        found[index] = ask(local, requests[index::4])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = ask(Local(Tiny()), requests)
    assert found == {index: expected[index::4] for index in range(4)}
    assert sum(size for size, _, _ in model.calls) == 24
    assert max(size for size, _, _ in model.calls) == 8


def test_repr_names_the_model():
    assert repr(Local(Tiny())) == "Local('tiny', batch_size=8)"
