"""Test the reasoning script on its small model: whole, interrupted, and its claims."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.reasoning import PARTS, PRESETS, REWARDS, Config
from jeff_llm.reasoning import arithmetic
from jeff_llm.reasoning.policy import Rollout
from train_scripts.reasoning import branches, claims, plane, reinforce, small
from train_scripts.reasoning import run as reasoning
from train_scripts.reasoning.summary import BASE, Line, Report
from train_scripts.running import results

TINY = Config(
    width=32,
    num_layers=1,
    pretrain_steps=3,
    rl_steps=2,
    batch_size=2,
    group_size=2,
    test=4,
    votes=3,
    tune=8,
    tune_steps=2,
    latent_steps=1,
    rewards=("correct", "l1_max"),
    seeds=(0,),
)
PLOTS = ["01_plane.png", "02_scores.png", "03_budgets.png"]


@pytest.fixture(scope="module", autouse=True)
def few_examples():
    """Worked solutions for three steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, "_EXAMPLES", 64)
        yield


def count_calls(monkeypatch, *, fail_at=None):
    """Names of the branches that are measured; one of them may be interrupted."""
    names, measure = [], branches.measure

    def counted(bench, branch):
        names.append((bench.seed, branch))
        if len(names) == fail_at:
            raise KeyboardInterrupt
        return measure(bench, branch)

    monkeypatch.setattr(branches, "measure", counted)
    return names


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return reasoning.run(TINY, folder, preset="tiny", progress=False), folder


def test_every_branch_is_in_the_result(whole) -> None:
    result, folder = whole
    assert results.read(folder / "result.json") == result
    assert result.system == "reasoning" and result.preset == "tiny"
    assert sorted(path.name for path in folder.glob("*.png")) == PLOTS
    assert all((folder / name).stat().st_size > 5_000 for name in PLOTS)
    table = (folder / "table.md").read_text()
    for name in (
        BASE,
        "vote of 3",
        "adaptive consistency",
        "no wait",
        "wait x1",
        "no thinking",
        "DEER",
        "think if unsure",
        "valve 1",
        "latent (Coconut)",
        "RL, correct",
        "RL, l1_max, greedy",
    ):
        assert f"| {name} |" in table
        assert 0 <= result.metrics[f"{name}|accuracy"] <= 1
        assert result.metrics[f"{name}|tokens"] > 0
    assert result.metrics["vote of 3|samples"] == 3
    # Every row of the table belongs to a branch that was measured, and none is missing.
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == len(branches.branch_names(TINY))


def test_claims_of_one_seed_are_open(whole) -> None:
    """One seed has no interval, so nothing that is a mean over seeds is decided."""
    result, _ = whole
    assert len(result.claims) >= 6
    assert {claim.holds for claim in result.claims} <= {True, False, None}
    assert any("RL, l1_max" in claim.claim for claim in result.claims)
    assert not any("RL, correct:" in claim.claim for claim in result.claims)
    assert all(claim.holds is None for claim in result.claims)


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, monkeypatch) -> None:
    config = dataclasses.replace(TINY, latent_steps=0, rewards=("l1_max",))
    names = [(0, name) for name in branches.branch_names(config)]
    with monkeypatch.context() as patch:
        calls = count_calls(patch)
        unbroken = reasoning.run(config, tmp_path / "whole", progress=False)
        assert calls == names
    with monkeypatch.context() as patch:
        calls = count_calls(patch, fail_at=4)
        with pytest.raises(KeyboardInterrupt):
            reasoning.run(config, tmp_path / "parts", progress=False)
        assert calls == names[:4]
    with monkeypatch.context() as patch:
        calls = count_calls(patch)
        resumed = reasoning.run(config, tmp_path / "parts", progress=False)
        assert calls == names[3:]
    assert resumed.metrics == unbroken.metrics and resumed.claims == unbroken.claims
    for name in ("metrics.jsonl", "table.md"):
        first, second = (tmp_path / each / name for each in ("whole", "parts"))
        assert first.read_bytes() == second.read_bytes()


def made_points(**changes: dict[str, object]) -> dict[str, Line]:
    """Points of three seeds by which every claim holds, with some of them changed."""
    noise = np.array([-0.001, 0.0, 0.001])
    given = {
        BASE: ("base", 0.9, 60.0, 1.0),
        "shortest third": ("base", 0.85, 40.0, 1.0),
        "middle third": ("base", 0.92, 60.0, 1.0),
        "longest third": ("base", 0.915, 80.0, 1.0),
        "vote of 40": ("votes", 0.97, 2400.0, 40.0),
        "early stopping (ESC)": ("votes", 0.97, 600.0, 10.0),
        "adaptive consistency": ("votes", 0.97, 300.0, 5.0),
        "wait x4": ("controls", 0.9, 90.0, 1.0),
        "valve 0": ("selected", 0.9, 80.0, 1.0),
        "valve 1": ("selected", 0.9, 40.0, 1.0),
        "RL, kimi": ("rl:kimi", 0.92, 25.0, 1.0),
    }
    points = {
        name: Line(branch, *(value + noise for value in values))
        for name, (branch, *values) in given.items()
    }
    for name, fields in changes.items():
        arrays = {field: np.asarray(value, float) for field, value in fields.items()}
        points[name] = points[name]._replace(**arrays)
    return points


def decided(points: dict[str, Line]) -> dict[str, bool | None]:
    """Outcome of each claim by the first words of its sentence."""
    report = Report(Config(rewards=("correct", "kimi")), points)
    return {each.claim: each.holds for each in claims.claims(report)}


def outcome(found: dict[str, bool | None], words: str) -> bool | None:
    (holds,) = (holds for claim, holds in found.items() if words in claim)
    return holds


WIDE = [0.5, 0.9, 1.0]


def test_every_claim_holds_where_it_should() -> None:
    found = decided(made_points())
    assert len(found) == 8 and set(found.values()) == {True}


@pytest.mark.parametrize(
    ("words", "changes", "holds"),
    [
        ("RL, kimi:", {"RL, kimi": {"accuracy": [0.8, 0.81, 0.82]}}, False),
        ("RL, kimi:", {"RL, kimi": {"tokens": [35.0, 35.5, 36.0]}}, False),
        ("RL, kimi:", {"RL, kimi": {"accuracy": WIDE}}, None),
        ("(ESC):", {"early stopping (ESC)": {"samples": [18.0, 18.0, 18.2]}}, False),
        ("(ESC):", {"early stopping (ESC)": {"accuracy": [0.95, 0.95, 0.951]}}, False),
        ("(ESC):", {"early stopping (ESC)": {"accuracy": WIDE}}, None),
        ("consistency:", {"adaptive consistency": {"samples": [9, 16, 23]}}, None),
        ("consistency:", {"adaptive consistency": {"samples": [39, 40, 40]}}, False),
        (
            "best branch",
            {
                "RL, kimi": {"accuracy": [0.5, 0.5, 0.5]},
                "valve 1": {"tokens": [70.0, 71.0, 72.0]},
            },
            False,
        ),
        (
            "best branch",
            {
                "RL, kimi": {"tokens": [5.0, 80.0, 85.0]},
                "valve 1": {"tokens": [70.0, 71.0, 72.0]},
            },
            None,
        ),
        ("Longer is", {"longest third": {"accuracy": [0.95, 0.951, 0.952]}}, False),
        ("Longer is", {"shortest third": {"accuracy": [0.93, 0.931, 0.932]}}, False),
        ("Longer is", {"longest third": {"accuracy": WIDE}}, None),
        ("by force", {"wait x4": {"accuracy": [0.93, 0.931, 0.932]}}, False),
        ("by force", {"wait x4": {"accuracy": WIDE}}, None),
        ("Short correct", {"valve 1": {"accuracy": [0.8, 0.81, 0.82]}}, False),
        ("Short correct", {"valve 1": {"tokens": [81.0, 81.0, 81.5]}}, False),
        ("Short correct", {"valve 1": {"accuracy": WIDE}}, None),
        ("cheapest", {"valve 1": {"tokens": [25.0, 25.0, 60.0]}}, None),
        ("cheapest", {"valve 1": {"tokens": [24.999, 25.0, 25.001]}}, False),
    ],
)
def test_a_claim_by_hand(words, changes, holds) -> None:
    assert outcome(decided(made_points(**changes)), words) is holds


@pytest.mark.parametrize("accuracy", [0.0, np.nan])
@pytest.mark.parametrize("seed", [0, 2])
def test_a_base_that_solves_nothing_decides_nothing(accuracy, seed) -> None:
    base = np.array([0.9, 0.9, 0.9])
    base[seed] = accuracy
    found = decided(made_points(**{BASE: {"accuracy": base}}))
    assert len(found) >= 5 and set(found.values()) == {None}


def test_a_missing_number_does_not_decide() -> None:
    """NaN in one method leaves its claim open, and the others as they are."""
    found = decided(made_points(**{"RL, kimi": {"accuracy": [0.9, np.nan, 0.9]}}))
    assert outcome(found, "RL, kimi:") is None
    assert outcome(found, "(ESC):") is True


def test_a_seed_is_trained_once_and_rows_are_paired(tmp_path, monkeypatch) -> None:
    """Seeds on made points: one bench each, and a resumed run repeats none."""
    config = Config(rewards=("correct", "kimi"), seeds=(0, 1, 2))
    made = made_points() | {"RL, correct": made_points()[BASE]}
    of_branch = {"RL, correct": "rl:correct", BASE: "base"}
    benches, measured = [], []

    def make_bench(config, seed, folder, *, progress):
        benches.append(seed)
        return branches.Bench(config, seed, folder, None, None, None)

    def measure(bench, branch):
        measured.append((bench.seed, branch))
        if len(measured) == 12:
            raise KeyboardInterrupt
        return {
            name: branches.Point(*(float(x[bench.seed]) for x in line[1:]))
            for name, line in made.items()
            if of_branch.get(name, line.branch) == branch
        }

    monkeypatch.setattr(branches, "make_bench", make_bench)
    monkeypatch.setattr(branches, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        plane.compare(config, tmp_path)
    part = plane.compare(config, tmp_path)
    assert benches == [0, 1, 1, 2]
    assert len(measured) == 1 + 3 * len(branches.branch_names(config))
    assert part.numbers["RL, kimi|tokens"] == pytest.approx(25)
    assert part.numbers["RL, kimi|tokens_std"] == pytest.approx(0.001)
    assert {claim.holds for claim in part.claims} == {True}


# Samples of a question: right and short, right and long, wrong, and cut.
SHORT, LONG, WRONG, CUT = range(4)


def made_rollout() -> tuple[Rollout, dict[str, jax.Array], jax.Array]:
    """Two questions with the four kinds of samples each."""
    limit, target = reinforce._LIMIT, reinforce.TARGET
    length = np.tile([target - 4, 2 * target + 8, target, limit], 2)
    tokens = np.full((8, limit), arithmetic.encode("1")[0])
    for row, digit in zip(range(8), "77307732", strict=True):
        if row % 4 != CUT:
            end = arithmetic.encode(f">{digit}$")
            tokens[row, length[row] - 3 : length[row]] = end
    finished = np.tile([True, True, True, False], 2)
    context = {
        "answer": jnp.full(8, 7),
        "reference_length": jnp.full(8, 60.0),
        "reference_correct": jnp.full(8, 0.5),
    }
    zeros = jnp.zeros(tokens.shape)
    rollout = Rollout(
        jnp.asarray(tokens), zeros, jnp.asarray(length), jnp.asarray(finished)
    )
    return rollout, context, jnp.repeat(jnp.arange(2), 4)


@pytest.mark.parametrize("name", REWARDS)
def test_a_reward_teaches_short_right_answers(name) -> None:
    """As the compiled step calls it: finite, and a short right answer gains most."""
    rollout, context, group = made_rollout()
    config = dataclasses.replace(TINY, group_size=4)
    reward_fn = reinforce._reward(name, config)
    advantage_fn = reinforce._advantage(name, config)

    @jax.jit
    def judge(rollout, step):
        reward, measured = reward_fn(rollout, context, group, step)
        advantage = advantage_fn(reward, rollout.length, group)
        if name == "dler":  # all groups have spread here
            advantage, kept = advantage
            measured |= {"kept": kept.mean()}
        return reward, advantage, measured

    for step in range(config.rl_steps):
        reward, advantage, measured = judge(rollout, jnp.asarray(step))
        assert reward.shape == advantage.shape == (8,)
        assert jnp.isfinite(reward).all() and jnp.isfinite(advantage).all()
        assert float(measured["correct"]) == 0.5
        assert float(measured.get("kept", 1)) == 1
    for first in (0, 4):
        each = advantage[first : first + 4]
        assert float(each[SHORT]) > float(each[WRONG])
        assert float(each[SHORT]) > float(each[CUT])
        if name == "correct":
            assert float(each[SHORT]) == float(each[LONG])
        else:
            assert float(each[SHORT]) > float(each[LONG])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("parts", ("plain",), "parts: expected some of .*, got .*plain"),
        ("parts", (), "parts: expected some of"),
        ("rewards", ("short",), "rewards: expected some of .*, got .*short"),
        ("seeds", (), "seeds: expected at least one, got none"),
        ("seeds", (1, 1), r"seeds: expected different ones, got \(1, 1\)"),
        ("votes", 1, "votes: expected at least 2, got 1"),
        ("group_size", 1, "group_size: expected at least 2, got 1"),
        ("tune", 7, "tune: expected at least 8, got 7"),
        ("latent_steps", -1, "latent_steps: expected at least 0, got -1"),
        ("delta", 0.0, r"delta: expected a share in \(0, 1\), got 0.0"),
        ("holdout", float("nan"), "holdout: expected a share"),
        ("learning_rate", 0.0, "learning_rate: expected a positive number, got 0.0"),
        ("learning_rate", float("nan"), "learning_rate: expected a positive number"),
        ("chat", "http://localhost:1", "chat: expected `chat` and `chat_model` toget"),
    ],
)
def test_bad_settings(field, value, message) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**{field: value})


def test_two_votes_have_no_thirds(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, votes=2)
    with pytest.raises(ValueError, match=r"votes: expected at least 3 .*, got 2"):
        reasoning.run(config, tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_presets_name_what_exists() -> None:
    for preset in PRESETS.values():
        assert set(preset.parts) <= set(PARTS) and set(preset.rewards) <= set(REWARDS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.jsonl"):
        reasoning.run(Config(data=str(tmp_path / "nothing.jsonl")), tmp_path)
