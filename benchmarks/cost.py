"""What large runs cost, from the records of the other benchmarks.

``python -m benchmarks.cost`` reads ``benchmarks/results/`` and prints docs/scaling.md's
table of hours. ``--write`` puts it into the page.

Every row is a measured rate times a number of pieces, and memory from sizes that the
code itself gives. It extrapolates: no run of these sizes was made, and reading the data
is not in it. Where a rate was measured on this device alone, so is its row.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import tyro

from benchmarks import records
from jeff import files
from jeff_llm.models.config import DecoderConfig

__all__ = ["Config", "Row", "main", "memory", "rates", "table"]

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
_BEGIN, _END = "<!-- cost -->", "<!-- end of cost -->"
_GIB = 2**30
# Llama 3 70B, as its published config.json has it.
LARGE = DecoderConfig(
    vocab_size=128_256,
    num_layers=80,
    width=8192,
    mlp_width=28_672,
    num_heads=64,
    num_kv_heads=8,
    head_width=128,
    max_positions=8192,
    tied=False,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """What to do with the table."""

    # Put it into docs/scaling.md.
    write: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """A large run.

    Attributes:
      name: what is done.
      pieces: how many of them.
      rate: pieces a second, measured.
      record: where the rate is from.
    """

    name: str
    pieces: float
    rate: float
    record: str

    @property
    def hours(self) -> float:
        """Hours on the device of the record."""
        return self.pieces / self.rate / 3600


def rates(found: dict[str, dict[str, Any]]) -> list[Row]:
    """The rows, one for each system whose rate is known.

    Args:
      found: records of the CPU by module.

    Returns:
      The rows.
    """
    cells, texts = found["wds"]["streamed"]["1000000"], found["anomaly"]["stream"]
    genes, routing = found["genes"], found["routing"]
    patients = genes["patients"]["number"] / genes["all_measures_s"]["compiled"]
    served = max(load["requests_per_second"] for load in found["serving"]["jeff"])
    step = found["decoder"]["medians"]["jeff LoRA step"]
    config = found["decoder"]["config"]
    trained = config["batch_size"] * config["prompt_tokens"] / step
    return [
        Row("sketch 10^8 cells", 1e8, 1e6 / cells["sketch_s"], "wds"),
        Row("score 10^8 cells by the sketch", 1e8, 1e6 / cells["score_s"], "wds"),
        Row(
            "score embeddings of 10^7 texts",
            1e7,
            texts["rows"] / texts["score_s"],
            "anomaly",
        ),
        Row("rank 10^6 patients, 26 measures", 1e6, patients, "genes"),
        Row(
            "1,536 thresholds over logs of 10^6 queries",
            1e6,
            routing["queries"] / routing["seconds"]["median"],
            "routing",
        ),
        Row("answer 10^6 queries, SmolLM2-135M, 16 tokens", 1e6, served, "serving"),
        Row("LoRA over 10^8 tokens, SmolLM2-135M", 1e8, trained, "decoder"),
    ]


def memory(bits: dict[str, float]) -> dict[str, float]:
    """Sizes of a 70B-parameter model.

    Args:
      bits: bytes of a packed cache over those in bfloat16, by widths.

    Returns:
      Numbers by name, in GiB.
    """
    config = LARGE
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_width
    attention = config.width * (heads + config.num_heads * config.head_width)
    layer = attention + 3 * config.width * config.mlp_width
    weights = config.num_layers * layer + 2 * config.vocab_size * config.width
    token = 2 * config.num_layers * config.num_kv_heads * config.head_width * 2
    # LoRA of rank 8 on all linear layers: factors and two moments, float32.
    query = config.num_heads * config.head_width
    keys = config.num_kv_heads * config.head_width
    ends = (
        2 * (config.width + query)
        + 2 * (config.width + keys)
        + 3 * (config.width + config.mlp_width)
    )
    return {
        "parameters, 10^9": weights / 1e9,
        "weights in bfloat16": 2 * weights / _GIB,
        "cache of 131,072 tokens in bfloat16": 131_072 * token / _GIB,
        "cache of 131,072 tokens, K4V2": 131_072 * token * bits["K4V2"] / _GIB,
        "LoRA of rank 8 with Adam": 3 * 4 * 8 * config.num_layers * ends / _GIB,
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """Both tables, in Markdown.

    Args:
      found: records of the CPU by module.

    Returns:
      The text.
    """
    lines = [
        "| run | pieces a second | hours on one machine | machines for one hour | "
        "rate from |",
        "|---|---|---|---|---|",
    ]
    for row in rates(found):
        lines.append(
            f"| {row.name} | {row.rate:,.0f} | {row.hours:,.2f} | "
            f"{math.ceil(row.hours)} | `benchmarks.{row.record}`, "
            f"{found[row.record]['device']} |"
        )
    lines += ["", "| a 70B-parameter model (Llama 3's shape) | GiB |", "|---|---|"]
    sizes = memory(found["kv"]["bytes over bfloat16"])
    count = sizes.pop("parameters, 10^9")
    lines += [f"| {name} | {size:,.1f} |" for name, size in sizes.items()]
    lines.append(f"\nIt has {count:.1f} billion parameters.")
    return "\n".join(lines) + "\n"


def main(config: Config) -> None:
    """Print the tables, and write them into the page.

    Args:
      config: settings.
    """
    found = {name: each for name, each in records.load() if "cpu" in each["device"]}
    text = table(found)
    print(text)
    if config.write:
        page = files.read_text(PAGE)
        head, _, rest = page.partition(_BEGIN)
        _, _, tail = rest.partition(_END)
        files.write_text(PAGE, f"{head}{_BEGIN}\n\n{text}\n{_END}{tail}")


if __name__ == "__main__":
    main(tyro.cli(Config))
