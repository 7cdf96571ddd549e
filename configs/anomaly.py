"""Configuration of `train_scripts.anomaly`."""

import dataclasses

from configs import check_asking

__all__ = ["DATA_SETS", "PARTS", "PRESETS", "PYOD", "Config"]

PARTS = ("table", "false_alarms", "augment", "select")
DATA_SETS = ("sms_spam", "banking77", "clinc150", "pydoc")
PYOD = (
    "ECOD",
    "IForest",
    "LOF",
    "KNN",
    "OCSVM",
    "LUNAR",
    "AutoEncoder",
    "VAE",
    "DeepSVDD",
)
DETECTORS = ("knn", "lof", "mahalanobis")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a run of the anomaly script."""

    # Your own normal texts: JSON lines, CSV, a text per line, or a Hugging Face data
    # set (hf:NAME, hf:NAME:CONFIG@SPLIT or a saved folder); empty runs the
    # parts.
    data: str = ""
    # Your own texts to score, in one of the same formats; "-" reads lines from the
    # standard input.
    score: str = ""
    # Folder of a detector that an earlier run fitted, in place of `data`.
    detector: str = ""
    # Field of the JSON lines, or column of the CSV, with the text; empty takes "text",
    # or the only one.
    column: str = ""
    # Share of normal texts that may be flagged.
    level: float = 0.05
    # Share of false alarms among the flagged texts of one `score` file, by
    # Benjamini-Hochberg.
    false_discoveries: float = 0.1
    # Detector of your own texts: "knn", "lof" or "mahalanobis".
    method: str = "knn"
    # What the detector sees: "minilm" for meaning, "characters" for style; the scores
    # of several are fused.
    views: tuple[str, ...] = ("minilm", "characters")
    # What the normal texts are and what anomalies would be, a noun phrase each ("a
    # personal text message", "a spam message"); empty if you do not know. With both,
    # the scorers below are fused with the views.
    normal: str = ""
    # The same for the anomalous texts.
    anomalous: str = ""
    # Zero-shot scorers of your own texts: "similarity" of MiniLM to the descriptions,
    # "likelihood" after them by SmolLM2 (about 20 texts a second on two cores).
    scorers: tuple[str, ...] = ("similarity",)
    # Share of your normal texts that is kept out of training, for p-values.
    holdout: float = 0.3
    # Texts scored at a time; a run that is killed loses no more.
    batch_size: int = 2048
    # Texts shown in the report, the most anomalous first.
    top: int = 20
    # URL of an OpenAI-compatible endpoint that scores each text too; empty for none.
    chat: str = ""
    # Name of the model at that endpoint; its key is read from OPENAI_API_KEY.
    chat_model: str = ""
    # Price of a million tokens read and of a million written, to state the cost before
    # the first call; 0 if unknown.
    prices: tuple[float, float] = (0.0, 0.0)
    # Most that the endpoint's answers may cost at these prices, over all starts of the
    # run; 0 sets no limit.
    max_cost: float = 0.0
    # Parts to run. "table": all detectors and zero-shot scorers; "false_alarms": do the
    # thresholds keep their word; "augment": synthetic normal texts; "select": a model
    # chooses the detector.
    parts: tuple[str, ...] = PARTS
    # Data sets; those that this machine lacks are left out with a word. "pydoc" needs
    # no shared data.
    data_sets: tuple[str, ...] = DATA_SETS
    # Detectors of PyOD for the table; none where PyOD is not installed.
    pyod: tuple[str, ...] = PYOD
    # Normal texts of a data set; 0 for all.
    normal_texts: int = 0
    # Anomalous texts of a data set; 0 for all.
    anomalous_texts: int = 1000
    # Shares of the normal texts for training and for calibration; the rest is for the
    # test.
    split: tuple[float, float] = (0.5, 0.25)
    # Test texts of each side that SmolLM2 reads, and half as many normal training
    # texts.
    model_texts: int = 120
    # Test texts of each side that SmolLM2 is asked about in words.
    prompted_texts: int = 10
    # False-alarm rates.
    levels: tuple[float, ...] = (0.01, 0.05, 0.1)
    # Probability with which a threshold's false-alarm rate may exceed its level.
    delta: float = 0.1
    # Made data sets on which the guarantees are tried.
    made: int = 1000
    # Normal texts of the small part that synthetic ones are added to.
    small_part: int = 30
    # Synthetic texts to write for each data set.
    synthetic: int = 60
    # Cosine from which a synthetic text counts as a near-copy of a normal one.
    near_copy: float = 0.95
    # Queries per data set when a model chooses the detector; 0 asks no model.
    queries: int = 5
    # Resamples of a bootstrap interval.
    resamples: int = 1000
    # Random seeds of the splits.
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self):
        """Check ranges."""
        choices = {
            "parts": PARTS,
            "data_sets": DATA_SETS,
            "pyod": PYOD,
            "views": ("minilm", "characters"),
            "scorers": ("similarity", "likelihood"),
        }
        for name, known in choices.items():
            value = getattr(self, name)
            if not set(value) <= set(known) or (
                not value and name not in ("pyod", "scorers")
            ):
                raise ValueError(f"{name}: expected some of {known}, got {value}")
        if self.method not in DETECTORS:
            raise ValueError(
                f"method: expected one of {DETECTORS}, got {self.method!r}"
            )
        for name in ("level", "false_discoveries", "delta", "holdout"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: expected a share in (0, 1), got {getattr(self, name)}"
                )
        if not self.levels or not all(0 < each < 1 for each in self.levels):
            raise ValueError(f"levels: expected shares in (0, 1), got {self.levels}")
        if not (min(self.split) > 0 and sum(self.split) < 1):
            raise ValueError(
                "split: expected two positive shares with a sum below 1, "
                f"got {self.split}"
            )
        for name, least in {
            "normal_texts": 0,
            "anomalous_texts": 0,
            "model_texts": 0,
            "prompted_texts": 0,
            "made": 1,
            "batch_size": 1,
            "top": 1,
            "small_part": 6,
            "synthetic": 1,
            "queries": 0,
            "resamples": 1,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name}: expected at least {least}, got {getattr(self, name)}"
                )
        if not -1 <= self.near_copy <= 1:
            raise ValueError(f"near_copy: expected a cosine, got {self.near_copy}")
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise ValueError(f"seeds: expected different numbers, got {self.seeds}")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds: expected at least 0, got {self.seeds}")
        self._check_own()

    def _check_own(self):
        if self.data and self.detector:
            raise ValueError("data: expected either `data` or `detector`, got both")
        if self.detector and not self.score:
            raise ValueError("score: expected texts for the detector, got none")
        if self.score and not (self.data or self.detector):
            raise ValueError(
                "data: expected normal texts or a detector beside `score`, got neither"
            )
        check_asking(self)
        if self.method == "mahalanobis" and "characters" in self.views:
            raise ValueError(
                "method: expected knn or lof for the view characters, whose covariance "
                "is too wide, got mahalanobis; add --views minilm"
            )
        if bool(self.anomalous) != bool(self.normal):
            raise ValueError(
                "normal: expected `normal` and `anomalous` together, got "
                f"{self.normal!r} and {self.anomalous!r}"
            )
        if self.chat and not self.score:
            raise ValueError("chat: expected `score` beside it, got none")


PRESETS: dict[str, Config] = {
    # The embedded data set, in a minute.
    "demo": Config(
        data_sets=("pydoc",),
        pyod=(),
        normal_texts=400,
        anomalous_texts=300,
        model_texts=6,
        prompted_texts=0,
        synthetic=3,
        queries=0,
        resamples=200,
        seeds=(0,),
    ),
    # The smallest run, to check that everything works.
    "smoke": Config(
        parts=("table", "false_alarms"),
        data_sets=("pydoc",),
        pyod=(),
        normal_texts=160,
        anomalous_texts=60,
        model_texts=6,
        prompted_texts=0,
        made=50,
        levels=(0.1,),
        resamples=20,
        seeds=(0,),
    ),
    # The tables in docs/anomaly.md.
    "full": Config(),
    # The paper's questions alone: zero-shot, augmentation and selection, one seed.
    "paper": Config(parts=("table", "augment", "select"), seeds=(0,)),
    # Your own texts: --data normal.jsonl --score new.jsonl.
    "file": Config(),
}
