"""Configuration of `train_scripts.genes`."""

import dataclasses

from configs import check_asking

__all__ = ["DISTRACTORS", "PARTS", "PRESETS", "RANKERS", "Config"]

PARTS = ("phenobrain", "genome", "gpt4o", "solvability", "candidates")
RANKERS = ("combined", "minilm", "smollm2", "smollm2_list", "biased", "gpt4o")
DISTRACTORS = ("random", "phenotype", "annotations")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a run of the gene-prioritisation script."""

    # Your own patients: a phenopacket (JSON), a folder of them, or JSON lines; empty
    # runs the parts.
    data: str = ""
    # One patient's terms in place of a file, separated by commas; a minus before a term
    # says that it was looked for and not found.
    terms: str = ""
    # File with the candidate genes, one symbol or identifier per line; empty ranks all
    # genes of HPO.
    candidates: str = ""
    # Folder with another release of HPO (hp.obo, phenotype.hpoa,
    # genes_to_phenotype.txt); empty takes the pinned one.
    hpo: str = ""
    # Folder for results in PhEval's format; empty for none.
    pheval: str = ""
    # Ontology measure for your own patients (jeff_llm.genes.scoring.MEASURES).
    measure: str = "combined"
    # Genes to show and explain per patient.
    top: int = 10
    # URL of an OpenAI-compatible endpoint that ranks the best `shortlist` genes again,
    # by divide and conquer; empty for none.
    chat: str = ""
    # Name of the model at that endpoint; its key is read from OPENAI_API_KEY.
    chat_model: str = ""
    # Price of a million tokens read and of a million written, to state the cost before
    # the first call; 0 if unknown.
    prices: tuple[float, float] = (0.0, 0.0)
    # Most that the endpoint's answers may cost at these prices, over all starts of the
    # run; 0 sets no limit.
    max_cost: float = 0.0
    # Genes that the endpoint ranks again, the best by the ontology.
    shortlist: int = 25
    # Parts to run. "phenobrain": public cases of another origin; "genome": phenopackets
    # against all genes, with and without each case's own paper; "gpt4o": stored
    # rankings of GPT-4o, alone and fused; "solvability": is the top gene right;
    # "candidates": sets of candidates, their order, and what divide and conquer mends.
    # Without shared data, cases drawn from HPO's annotations stand in.
    parts: tuple[str, ...] = PARTS
    # Cases per source; 0 for all.
    cases: int = 0
    # Ontology measures to compare; empty for all.
    measures: tuple[str, ...] = ()
    # Sizes of the candidate sets.
    sizes: tuple[int, ...] = (5, 10, 25, 50, 100)
    # How the wrong candidates are drawn.
    distractors: tuple[str, ...] = ("random",)
    # Rankers of the candidate sets. "minilm" compares names of terms; "smollm2" scores
    # each gene's profile as a continuation of the patient's terms, "smollm2_list" all
    # profiles in one list; "biased" is simulated; "gpt4o" are stored rankings.
    rankers: tuple[str, ...] = RANKERS
    # Cases whose candidate sets are ranked.
    candidate_cases: int = 200
    # Cases whose candidate sets the local language model ranks.
    model_cases: int = 16
    # Size of the set on which the strategies are compared.
    strategy_size: int = 50
    # Genes in a group of divide and conquer.
    group_size: int = 5
    # Genes of a group that go on to the next round.
    keep: int = 2
    # Numbers of shuffled repetitions whose points are joined.
    permutations: tuple[int, ...] = (1, 3, 9)
    # Position bias of the simulated ranker: what a gene loses each time its place in
    # the list is e times as far down, in nats.
    position_bias: float = 2.0
    # Popularity bias of the simulated ranker, in nats per standard deviation of the
    # logarithm of the citations.
    popularity_bias: float = 1.0
    # Noise of the simulated ranker, in nats for each e-fold length of the list.
    noise: float = 0.5
    # Share of wrong answers among those given, that the threshold may allow.
    max_error: float = 0.2
    # Probability with which that bound may fail, in (0, 1).
    delta: float = 0.1
    # Resamples of a bootstrap interval.
    resamples: int = 2000
    # Random seeds of candidate sets, shuffles and simulated cases.
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self):
        """Check ranges."""
        choices = {"parts": PARTS, "rankers": RANKERS, "distractors": DISTRACTORS}
        for name, known in choices.items():
            value = getattr(self, name)
            if not set(value) <= set(known) or not value:
                raise ValueError(f"{name}: expected some of {known}, got {value}")
        if self.data and self.terms:
            raise ValueError("terms: expected either `data` or `terms`, got both")
        for name in ("sizes", "permutations", "seeds"):
            value = getattr(self, name)
            least = {"sizes": 2, "permutations": 1, "seeds": 0}[name]
            if not value or min(value) < least or len(set(value)) < len(value):
                raise ValueError(
                    f"{name}: expected different numbers of at least {least}, "
                    f"got {value}"
                )
        for name, least in {
            "top": 1,
            "shortlist": 2,
            "cases": 0,
            "candidate_cases": 4,
            "model_cases": 1,
            "strategy_size": 2,
            "group_size": 2,
            "keep": 1,
            "resamples": 1,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name}: expected at least {least}, got {getattr(self, name)}"
                )
        for name in ("max_error", "delta"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: expected a share in (0, 1), got {getattr(self, name)}"
                )
        self._check_ranking()

    def _check_ranking(self):
        if self.keep >= self.group_size:
            raise ValueError(
                f"keep: expected less than group_size={self.group_size}, "
                f"got {self.keep}"
            )
        if not all(0 <= each < float("inf") for each in (*self.prices, self.noise)):
            raise ValueError(
                "prices, noise: expected finite numbers of at least 0, got "
                f"{self.prices} and {self.noise}"
            )
        check_asking(self)
        if self.chat and not (self.data or self.terms):
            raise ValueError(
                "chat: expected `data` or `terms` beside it, got neither; the parts "
                "use local models"
            )


PRESETS: dict[str, Config] = {
    # The best measures on all shared cases, and the simulated ranker alone.
    "demo": Config(
        measures=(
            "resnik_one_way",
            "combined",
            "naive_bayes",
            "icto",
            "jiang_conrath_one_way",
            "information_coefficient_both_ways",
        ),
        cases=200,
        rankers=("combined", "biased"),
        sizes=(5, 25, 100),
        candidate_cases=40,
        permutations=(1, 3),
        resamples=500,
        seeds=(0,),
    ),
    # The smallest run, to check that everything works.
    "smoke": Config(
        measures=("resnik_one_way", "combined"),
        cases=24,
        rankers=("combined", "biased"),
        sizes=(5, 10),
        candidate_cases=4,
        strategy_size=10,
        permutations=(1, 2),
        resamples=20,
        seeds=(0,),
    ),
    # The tables in docs/genes.md.
    "full": Config(),
    # Every kind of distractor, and sets as large as the paper's largest.
    "paper": Config(
        distractors=DISTRACTORS,
        parts=("candidates",),
        sizes=(5, 10, 25, 50, 100),
        rankers=("combined", "minilm", "biased"),
    ),
    # Your own patients: --data FILE, or --terms HP:0001250,HP:0001263.
    "file": Config(),
}
