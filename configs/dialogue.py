"""Configuration of `train_scripts.dialogue`."""

import dataclasses

from configs import check_asking

__all__ = ["ARMS", "DATA_SETS", "PARTS", "PRESETS", "Config"]

PARTS = ("rules", "heads", "arms")
DATA_SETS = ("medqa", "simulated")
ARMS = ("untuned", "multiple_choice", "monologue", "dialogue")
ROUNDS = ("one", "several")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a run of the dialogue script."""

    # Your own questions: JSON lines with vignette, question, options and answer, or a
    # Hugging Face data set with these columns, hf:NAME, hf:NAME:CONFIG@SPLIT or a saved
    # folder; empty runs the parts.
    data: str = ""
    # Language of your questions, ISO 639-1, for the ends of sentences.
    language: str = "en"
    # Address of an OpenAI-compatible endpoint whose model is tested on the mazes.
    chat: str = ""
    # Name of the model at the endpoint.
    chat_model: str = ""
    # Items that the model at the endpoint is tested on; 0 takes all that the rules get.
    chat_items: int = 50
    # Most tokens of its answer, thoughts included.
    chat_tokens: int = 512
    # Prices of a million tokens read and of a million written, for the cost.
    prices: tuple[float, float] = (0.0, 0.0)
    # Most that the endpoint's answers may cost at these prices, over all starts of the
    # run; 0 sets no limit.
    max_cost: float = 0.0
    # Requests to the endpoint at a time.
    concurrency: int = 8
    # Let the endpoint's model write the dialogues of your questions in its own words;
    # each is checked fact by fact.
    rewrite: bool = False
    # Model that is tuned and tested: any that the runtime loads. With `data`, empty
    # tests none.
    model: str = "smollm2"
    # Parts of a run without `data`.
    parts: tuple[str, ...] = PARTS
    # Questions of a run without `data`; "medqa" needs JEFF_DATA.
    data_sets: tuple[str, ...] = DATA_SETS
    # Forms of the same items that the model is tuned on in a run without `data`.
    arms: tuple[str, ...] = ARMS
    # Numbers of distractors.
    noise: tuple[int, ...] = (0, 1, 3, 5)
    # Whether all sentences are chosen at once, or one a turn.
    rounds: tuple[str, ...] = ROUNDS
    # Fewest and most sentences of evidence of an item that is tested.
    evidence: tuple[int, int] = (2, 10)
    # Simulated questions to make.
    simulated: int = 600
    # Share of the items that is trained on; the others are tested.
    split: float = 0.6
    # Items that rules and heads are tested on; 0 takes all.
    test_items: int = 200
    # Items on which the language model chooses by number.
    model_items: int = 12
    # Items on which it chooses by the likelihood of the sentences, in one round; not
    # with `data`.
    text_items: int = 32
    # Most words of an item that the language model is tested on.
    model_words: int = 90
    # Optimiser steps of each tuned arm.
    num_steps: int = 30
    # Packed rows of a step.
    batch_size: int = 2
    # Tokens of a packed row.
    max_tokens: int = 512
    # Peak learning rate of the factors.
    learning_rate: float = 2e-3
    # Rank and scale of LoRA.
    rank: int = 8
    alpha: float = 32.0
    # Optimiser steps of each head over MiniLM.
    head_steps: int = 200
    # Learning rate of the heads.
    head_learning_rate: float = 1e-3
    # Resamples of a bootstrap interval.
    resamples: int = 1000
    # Random seeds of split, mazes and training; with `data`, only the first is used.
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self):
        """Check ranges."""
        for name, known in {
            "parts": PARTS,
            "data_sets": DATA_SETS,
            "arms": ARMS,
            "rounds": ROUNDS,
        }.items():
            value = getattr(self, name)
            if not value or not set(value) <= set(known):
                raise ValueError(f"{name}: expected some of {known}, got {value}")
        if "untuned" not in self.arms:
            raise ValueError(
                "arms: expected untuned among them, since most of the paper's gain is "
                f"over multiple-choice tuning, got {self.arms}"
            )
        different = len(set(self.noise)) == len(self.noise)
        if not self.noise or min(self.noise) < 0 or not different:
            raise ValueError(
                f"noise: expected different numbers from 0, got {self.noise}"
            )
        if not 1 <= self.evidence[0] <= self.evidence[1]:
            raise ValueError(
                f"evidence: expected fewest and most, from 1, got {self.evidence}"
            )
        if not 0 < self.split < 1:
            raise ValueError(f"split: expected a share in (0, 1), got {self.split}")
        for name in ("learning_rate", "head_learning_rate", "alpha"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(
                    f"{name}: expected a positive number, got {getattr(self, name)}"
                )
        for name, least in {
            "chat_items": 0,
            "chat_tokens": 1,
            "concurrency": 1,
            "simulated": 1,
            "test_items": 0,
            "model_items": 1,
            "text_items": 1,
            "model_words": 1,
            "num_steps": 1,
            "batch_size": 1,
            "max_tokens": 16,
            "rank": 1,
            "head_steps": 1,
            "resamples": 1,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name}: expected at least {least}, got {getattr(self, name)}"
                )
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise ValueError(f"seeds: expected different numbers, got {self.seeds}")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds: expected at least 0, got {self.seeds}")
        self._check_own()

    def _check_own(self):
        if self.rewrite and not (self.data and self.chat):
            raise ValueError("rewrite: expected `data` and `chat` beside it")
        check_asking(self)


PRESETS: dict[str, Config] = {
    # Simulated questions: rules, heads, and the untuned model on a few items.
    "demo": Config(
        data_sets=("simulated",),
        arms=("untuned",),
        noise=(0, 3),
        simulated=300,
        test_items=80,
        model_items=4,
        text_items=8,
        num_steps=4,
        head_steps=150,
        resamples=200,
        seeds=(0,),
    ),
    # The smallest run, to check that everything works.
    "smoke": Config(
        data_sets=("simulated",),
        arms=("untuned", "dialogue"),
        noise=(0, 3),
        simulated=60,
        test_items=16,
        model_items=2,
        text_items=2,
        model_words=70,
        num_steps=1,
        batch_size=1,
        max_tokens=256,
        head_steps=10,
        resamples=20,
        seeds=(0,),
    ),
    # The tables in docs/dialogue.md.
    "full": Config(),
    # The paper's question alone: four arms by the number of the sentence, one seed.
    "paper": Config(parts=("rules", "arms"), data_sets=("medqa",), seeds=(0,)),
    # Your own questions: --data items.jsonl.
    "file": Config(model=""),
}
