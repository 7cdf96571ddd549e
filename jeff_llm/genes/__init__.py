"""Gene prioritisation: from a patient's phenotypes to a ranked list of genes."""

from jeff_llm.genes.ranking import Phenotypes, Ranker, Ranking, by_score, rank_many

__all__ = ["Phenotypes", "Ranker", "Ranking", "by_score", "rank_many"]
