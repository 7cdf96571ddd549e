"""Registry of jeff's ten systems, in the order of every list."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["SYSTEMS", "System", "show"]


@dataclass(frozen=True)
class System:
    """One published method, with its package, script and data.

    Attributes:
      name: key in `SYSTEMS`, as in ``python -m train_scripts run NAME``.
      title: name of the method for display.
      paper: title of the paper, with its arXiv number or venue.
      module: package that implements the method.
      script: training script that runs it.
      summary: description of the method in one sentence.
      assets: names in `jeff.assets.ASSETS` that the script needs.
      own: a command that runs it on a user's own data.
      shared: folders below ``$JEFF_DATA`` that the script uses if they exist; without
        them it runs on its assets or on simulated data.
      timed: its claims compare times, so that nothing else should run beside it.
    """

    name: str
    title: str
    paper: str
    module: str
    script: str
    summary: str
    own: str
    assets: tuple[str, ...]
    shared: tuple[str, ...]
    timed: bool = False


_HPO = ("hpo", "hpo_annotations", "hpo_genes")
_CITIES = ("cities", "countries")
_MINILM = ("minilm", "minilm_tokenizer")

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System(
            name="yodo",
            title="YODO",
            paper="You Only Debias Once: Towards Flexible Accuracy-Fairness Trade-offs "
            "at Inference Time",
            module="jeff.fairness",
            script="train_scripts.yodo",
            summary="One training finds a line of models from an accurate end to a "
            "fair end; the level is chosen at inference.",
            own="python -m train_scripts.yodo --data people.csv --outcome hired "
            "--sensitive woman",
            assets=("adult", "german"),
            shared=("tabular",),
            timed=True,
        ),
        System(
            name="gre",
            title="GRE",
            paper="Gradient Rewiring for Editable Graph Neural Network Training "
            "(arXiv 2410.15556, NeurIPS 2024)",
            module="jeff_graph.editing",
            script="train_scripts.gre",
            summary="Corrects a trained graph network on single nodes while the "
            "training loss, to first order, does not rise.",
            own="python -m train_scripts.gre --data graph.npz",
            assets=(),
            shared=("graphs",),
            timed=True,
        ),
        System(
            name="wds",
            title="Gene-gene interactions",
            paper="Weighted Diversified Sampling for Efficient Data-Driven Single-Cell "
            "Gene-Gene Interaction Discovery (arXiv 2410.15616)",
            module="jeff_graph.cells",
            script="train_scripts.wds",
            summary="Scores gene pairs by a Transformer's attention over cells, and "
            "finds in two passes the 1% of the cells that suffices.",
            own="python -m train_scripts.wds --data cells.h5ad --label disease",
            assets=("pbmc",),
            shared=(),
        ),
        System(
            name="kv",
            title="KV-AdaQuant",
            paper="Quantize What Counts (arXiv 2502.15075)",
            module="jeff_llm.kv",
            script="train_scripts.kv",
            summary="A quantised KV cache with more bits for keys than for values, at "
            "one budget of memory.",
            own="python -m train_scripts.kv --data text.txt",
            assets=("smollm2", *_CITIES),
            shared=("gsm8k", "norms"),
        ),
        System(
            name="routing",
            title="Uncertainty routing",
            paper="Confident or Seek Stronger (arXiv 2502.04428)",
            module="jeff_llm.confidence",
            script="train_scripts.routing",
            summary="Sends the questions that a small model is unsure of to a large "
            "one, with thresholds that carry over to unseen data sets.",
            own="python -m train_scripts.routing --data logs.jsonl",
            assets=("smollm2", *_CITIES),
            shared=("routing_mirage",),
        ),
        System(
            name="selfref",
            title="Self-REF",
            paper="Learning to Route LLMs with Confidence Tokens (arXiv 2410.13284, "
            "ICML 2025)",
            module="jeff_llm.confidence",
            script="train_scripts.selfref",
            summary="Teaches a model to say with a token of its own whether its answer "
            "is to be trusted; then routes or declines by it.",
            own="python -m train_scripts.selfref --data questions.jsonl",
            assets=("smollm2", *_CITIES),
            shared=("mmlu_med",),
        ),
        System(
            name="reasoning",
            title="Efficient reasoning",
            paper="Stop Overthinking (arXiv 2503.16419)",
            module="jeff_llm.reasoning",
            script="train_scripts.reasoning",
            summary="The survey's branches (length rewards, decoding controls, voting, "
            "prompts), compared on one axis of tokens.",
            own="python -m train_scripts.reasoning --data traces.jsonl",
            assets=("smollm2", *_CITIES),
            shared=("compressed_cot", "gsm8k"),
        ),
        System(
            name="anomaly",
            title="AD-LLM",
            paper="AD-LLM (arXiv 2412.11142, ACL Findings 2025)",
            module="jeff_llm.anomaly",
            script="train_scripts.anomaly",
            summary="Language models that detect anomalous texts, augment the normal "
            "ones, and choose the detector.",
            own="python -m train_scripts.anomaly --data normal.txt --score new.txt",
            assets=("smollm2", *_MINILM, "hpo"),
            shared=("adbench_table", "banking77", "clinc150", "sms_spam"),
        ),
        System(
            name="genes",
            title="Gene prioritisation",
            paper="Survey and improvement strategies for gene prioritization with LLMs "
            "(arXiv 2501.18794)",
            module="jeff_llm.genes",
            script="train_scripts.genes",
            summary="Ranks the gene that causes a rare disease from the patient's "
            "phenotypes, with less bias of position and popularity.",
            own="python -m train_scripts.genes --data phenopackets/",
            assets=(*_HPO, "hgnc", "mondo", *_MINILM, "smollm2"),
            shared=(
                "gene_citations",
                "gpt4o_gene_rankings",
                "phenobrain_public",
                "phenopackets",
            ),
        ),
        System(
            name="dialogue",
            title="Dialogue tuning",
            paper="Dialogue is Better Than Monologue (arXiv 2501.17860)",
            module="jeff_llm.clinic",
            script="train_scripts.dialogue",
            summary="Tunes on doctor-patient dialogues, and tests the choice of "
            "evidence over several rounds and among distracting sentences.",
            own="python -m train_scripts.dialogue --data questions.jsonl",
            assets=("smollm2", *_MINILM, "hpo", "hpo_annotations"),
            shared=("medqa",),
        ),
    )
}


def show(console: "Console") -> None:
    """Print the ten systems, and which of their data is on this machine.

    Args:
      console: where to print; needs 80 columns.
    """
    from rich.table import Table

    from jeff import assets

    try:
        folder, fault = assets.data_dir(), None
    except NotADirectoryError as error:
        folder, fault = None, str(error)
    table = Table("System", "Method", "Data and weights")
    table.columns[0].no_wrap = True
    missing_assets, missing_shared = False, False
    for system in SYSTEMS.values():
        fetched = {name: assets.status(name) is not None for name in system.assets}
        shared = {
            f"{name}/": bool(folder and (folder / name).is_dir())
            for name in system.shared
        }
        missing_assets |= not all(fetched.values())
        missing_shared |= not all(shared.values())
        table.add_row(*_row(system, fetched | shared))
    console.print(table)
    hints = ["To run one: python -m train_scripts run SYSTEM [PRESET]"]
    if missing_assets:
        hints += ["To fetch a missing name: python -m jeff.assets NAME"]
    if missing_shared:
        hints += [
            "A name with a slash is a folder of shared data, which is optional: set "
            "JEFF_DATA to the folder that holds it"
        ]
    if fault:
        hints += [fault]
    for hint in hints:
        console.print(hint, markup=False, highlight=False)


def _row(system: System, present: dict[str, bool]) -> tuple[str, str, str]:
    """Table cells of a system; ``present`` maps a data name to whether it is here."""
    here = [name for name, found in present.items() if found]
    missing = [name for name, found in present.items() if not found]
    lines = [
        f"{label}: {', '.join(names)}"
        for label, names in (("here", here), ("missing", missing))
        if names
    ]
    return system.name, system.title, "\n".join(lines)
