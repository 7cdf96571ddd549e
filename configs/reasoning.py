"""Configuration of `train_scripts.reasoning`."""

import dataclasses

from configs import check_asking

__all__ = ["BRANCHES", "PARTS", "PRESETS", "REWARDS", "Config"]

PARTS = ("plane", "simulated", "model", "cities")
BRANCHES = (
    "base",
    "votes",
    "controls",
    "exits",
    "prompts",
    "selected",
    "latent",
)
REWARDS = (
    "correct",
    "arora_zanette",
    "l1_exact",
    "l1_max",
    "o1_pruner",
    "kimi",
    "cosine",
    "soft_overlong",
    "dast",
    "thinkprune",
    "laser",
    "laser_d",
    "alp",
    "gfpo",
    "dler",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a run of the efficient-reasoning script."""

    # Your own traces, JSON lines (also .gz): one sample per line, or one question per
    # line with several samples in the field named by `samples`; or a Hugging Face data
    # set with these columns, hf:NAME, hf:NAME:CONFIG@SPLIT or a saved folder. Empty
    # runs the parts.
    data: str = ""
    # Name of your traces' field that identifies the question.
    question: str = "question"
    # Name of the field with the final answer of a sample.
    answer: str = "answer"
    # Name of the field that says whether the answer is right; may be absent.
    correct: str = "correct"
    # Name of the field with the length of a sample in tokens.
    tokens: str = "tokens"
    # Name of the field with the sample's text; counted where there are no tokens.
    text: str = "text"
    # Name of the field with the rank or time at which a sample finished; may be absent.
    order: str = "order"
    # Name of the field with the samples of a question, a list or a mapping by name;
    # empty where each line is one sample.
    samples: str = ""
    # Maximum share of questions on which a stopping rule may disagree with the vote of
    # all samples, in (0, 1).
    max_disagreement: float = 0.05
    # Probability with which the bound may fail, in (0, 1).
    delta: float = 0.1
    # Share of the questions held out to check the rule, in (0, 1).
    holdout: float = 0.5
    # Simulated logs on which the guarantee is tested.
    draws: int = 1000
    # Parts to run. "plane": every branch on a small model that is trained here;
    # "simulated": the guarantee on made logs; "model": decoding and prompting on a real
    # model; "cities": samples of a real model on questions about cities, analysed like
    # your own traces.
    parts: tuple[str, ...] = ("plane",)
    # Model: asset, GGUF file, directory of safetensors, installed package or hub id.
    model: str = "smollm2"
    # URL of an OpenAI-compatible endpoint to ask in place of `model`; empty for none.
    chat: str = ""
    # Name of the model at that endpoint; its key is read from OPENAI_API_KEY.
    chat_model: str = ""
    # Price of a million tokens read and of a million written, for the cost; 0 if
    # unknown.
    prices: tuple[float, float] = (0.0, 0.0)
    # Most that the endpoint's answers may cost at these prices, over all starts of the
    # run; 0 sets no limit.
    max_cost: float = 0.0
    # Questions for the real model.
    questions: int = 16
    # Questions about cities for the real model.
    cities: int = 300
    # Samples per question for voting.
    votes: int = 40
    # Maximum number of new tokens of a real model's answer.
    max_new_tokens: int = 192
    # Branches to measure on the small model beside those of `rewards`, "base" always.
    branches: tuple[str, ...] = BRANCHES
    # Operations in the small model's questions, some of + - *.
    signs: str = "+-*"
    # Width of the small model's residual stream.
    width: int = 128
    # Layers of the small model.
    num_layers: int = 4
    # Supervised steps of the small model.
    pretrain_steps: int = 1000
    # Steps of reinforcement learning for each reward.
    rl_steps: int = 40
    # Questions per step of reinforcement learning.
    batch_size: int = 16
    # Sampled chains per question in reinforcement learning.
    group_size: int = 8
    # Learning rate of reinforcement learning.
    learning_rate: float = 6e-4
    # Weight of the length in the rewards "arora_zanette" and "alp".
    length_weight: float = 0.3
    # Questions whose samples are selected for fine-tuning.
    tune: int = 400
    # Optimiser steps of that fine-tuning.
    tune_steps: int = 100
    # Optimiser steps of each stage of latent thoughts (Coconut); 0 leaves them out.
    latent_steps: int = 0
    # Length rewards to train with.
    rewards: tuple[str, ...] = ("correct", "arora_zanette", "dler")
    # Test questions of the small model.
    test: int = 500
    # Random seeds of the small model; intervals are over seeds.
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self):
        """Check ranges."""
        choices = {"parts": PARTS, "rewards": REWARDS, "branches": BRANCHES}
        for name, known in choices.items():
            value = getattr(self, name)
            if not set(value) <= set(known) or not value:
                raise ValueError(f"{name}: expected some of {known}, got {value}")
        if "base" not in self.branches:
            raise ValueError(
                f"branches: expected 'base' among them, got {self.branches}"
            )
        if not self.seeds:
            raise ValueError("seeds: expected at least one, got none")
        for name, least in {
            "draws": 1,
            "questions": 1,
            "cities": 4,
            "votes": 2,
            "max_new_tokens": 1,
            "width": 8,
            "num_layers": 1,
            "pretrain_steps": 1,
            "rl_steps": 1,
            "batch_size": 1,
            "group_size": 2,
            "tune": 8,
            "tune_steps": 1,
            "latent_steps": 0,
            "test": 2,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name}: expected at least {least}, got {getattr(self, name)}"
                )
        for name in ("max_disagreement", "delta", "holdout"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: expected a share in (0, 1), got {getattr(self, name)}"
                )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected different ones, got {self.seeds}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(
                f"learning_rate: expected a positive number, got {self.learning_rate}"
            )
        self._check_chat()

    def _check_chat(self):
        check_asking(self)


PRESETS: dict[str, Config] = {
    # One kind of operation, two layers, one seed and the branches that compile fast.
    "demo": Config(
        parts=("plane", "simulated"),
        draws=200,
        votes=16,
        branches=("base", "votes", "prompts"),
        signs="*",
        num_layers=2,
        pretrain_steps=300,
        rl_steps=15,
        rewards=("arora_zanette",),
        test=48,
        seeds=(0,),
    ),
    # The smallest run, to check that everything works.
    "smoke": Config(
        draws=20,
        votes=5,
        branches=("base", "votes", "exits", "prompts"),
        width=32,
        num_layers=1,
        pretrain_steps=3,
        rl_steps=2,
        batch_size=2,
        group_size=2,
        tune=8,
        tune_steps=2,
        latent_steps=1,
        rewards=("arora_zanette",),
        test=4,
        seeds=(0,),
    ),
    # The tables in docs/reasoning.md.
    "full": Config(
        parts=("plane", "simulated"),
        latent_steps=60,
        test=250,
        seeds=(0, 1, 2, 3, 4),
    ),
    # As in the papers: every length reward of the survey, one seed.
    "paper": Config(rewards=REWARDS, test=250, latent_steps=60, seeds=(0,)),
    # A real model alone: decoding and prompting, and votes over its samples.
    "model": Config(parts=("model", "cities")),
    # Your own traces: --data FILE.
    "file": Config(),
}
