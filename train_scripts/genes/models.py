"""The rankers of candidate sets, and the cases that each ranks."""

import dataclasses
from collections.abc import Callable
from functools import cached_property

import numpy as np

from configs.genes import Config
from jeff import assets
from jeff_llm.genes import biased, embedding, options, stored
from jeff_llm.genes.cases import Case
from jeff_llm.genes.prioritise import OntologyRanker
from jeff_llm.genes.profile_texts import ProfileTexts
from jeff_llm.genes.ranking import Ranker
from jeff_llm.models import encoder, weights
from jeff_llm.models.language_model import LanguageModel
from train_scripts.genes import data, gpt4o
from train_scripts.genes.data import World
from train_scripts.running import machines
from train_scripts.running.seeds import seed_key

__all__ = [
    "MOST",
    "ORDERED",
    "SLOW",
    "SLOW_PERMUTATIONS",
    "SLOW_SIZE",
    "Rankers",
]

# Rankers whose answer can depend on the order of the list.
ORDERED = ("biased", "smollm2_list")
# Rankers that take a model's time: one seed, fewer cases, shorter lists and fewer
# permutations.
SLOW = ("smollm2", "smollm2_list")
SLOW_SIZE, SLOW_PERMUTATIONS = 10, 3
# Longest lists: a text is read per gene, and a list has one label per gene.
MOST = {"smollm2": 50, "smollm2_list": len(options.LABELS)}
_PURPOSE = 8


class Rankers:
    """Rankers by name, made when first asked for.

    Attributes:
      names: the rankers that can be had: stored rankings need the shared data.
      cases: cases that each ranks; their gene is one that HPO knows.
      clusters: gene of each case, as a number.
      others: cases that no ranker is measured on, but for stored rankings; all if there
        are no more.
    """

    def __init__(self, config: Config, world: World):
        """Choose the cases.

        Args:
          config: settings of the run.
          world: release of HPO.
        """
        self.config, self.world = config, world
        source = data.phenopackets(_all(config), world)
        known = [case for case in source.cases if case.gene in world.gene_place]
        some = data.spread(known, config.candidate_cases)
        few = data.spread(known, min(config.model_cases, config.candidate_cases))
        self.cases: dict[str, list[Case]] = {
            name: few if name in SLOW else some
            for name in config.rankers
            if name != "gpt4o"
        }
        taken = {id(case) for case in some}
        self.others = [case for case in known if id(case) not in taken] or known
        self._stored: Ranker | None = None
        if "gpt4o" in config.rankers:
            self._find_stored(known)
        self.names = tuple(name for name in config.rankers if name in self.cases)
        self.clusters = {
            name: np.unique([str(case.gene) for case in cases], return_inverse=True)[1]
            for name, cases in self.cases.items()
        }
        self._ontology = OntologyRanker(world.hpo, tables=world.tables)
        self._made: dict[str, Ranker] = {}

    def ranker(self, name: str, seed: int) -> Ranker:
        """Find a ranker.

        Args:
          name: one of `names`.
          seed: of the simulated ranker's noise.

        Returns:
          The ranker.
        """
        if name == "biased":
            return self._biased(seed)
        makers: dict[str, Callable[[], Ranker]] = {
            "combined": lambda: self._ontology,
            "gpt4o": self._gpt4o,
            "minilm": self._minilm,
            "smollm2": self._pointwise,
            "smollm2_list": self._listed,
        }
        if name not in self._made:
            self._made[name] = makers[name]()
        return self._made[name]

    def _biased(self, seed: int) -> Ranker:
        config = self.config
        names = self.world.hpo.annotations.genes
        popularity = dict(zip(names, self.world.popularity.tolist(), strict=True))
        return biased.Biased(
            self._ontology,
            popularity=popularity,
            position_bias=config.position_bias,
            popularity_bias=config.popularity_bias,
            noise=config.noise,
            key=seed_key(seed, _PURPOSE),
        )

    def _pointwise(self) -> Ranker:
        texts = ProfileTexts(self.world.hpo, num_terms=8)
        return options.PointwiseRanker(self._model, *options.pointwise_texts(texts))

    def _listed(self) -> Ranker:
        texts = ProfileTexts(self.world.hpo, num_terms=4, num_diseases=1, symbol=True)
        return options.OptionRanker(
            self._model, options.option_prompt(texts, describe=True)
        )

    @cached_property
    def _model(self) -> LanguageModel:
        return weights.load("smollm2", mesh=machines.mesh())

    def _minilm(self) -> Ranker:
        model = encoder.load("minilm", mesh=machines.mesh())
        return embedding.TermMatchRanker(model.encode, self.world.hpo, name="minilm")

    def _gpt4o(self) -> Ranker:
        if self._stored is None:
            raise ValueError("gpt4o: expected stored rankings, found none")
        return self._stored

    def _find_stored(self, known: list[Case]) -> None:
        try:
            path = assets.shared_file("gpt4o_gene_rankings/rankings.csv.gz")
        except FileNotFoundError:
            return
        rankings = stored.read_rankings(path)
        both = [c for c in known if stored.case_key(c.source) in rankings.answers]
        self._stored = gpt4o.stored_ranker(self.world, rankings, both)
        self.cases["gpt4o"] = both


def _all(config: Config) -> Config:
    """The same run with all cases, since each ranker chooses its own."""
    return dataclasses.replace(config, cases=0)
