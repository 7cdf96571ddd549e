"""Configuration of `train_scripts.serve`."""

import dataclasses

__all__ = ["MEASURES", "Config"]

MEASURES = ("perplexity", "average", "selfref")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a server; none of its keys is shown in a repr or a log."""

    # Model: asset, GGUF file, directory of safetensors, installed package or hub id.
    model: str = "smollm2"
    # Folder of adapters from `train_scripts.finetune`, or from a run of
    # `train_scripts.selfref` for the measure "selfref"; empty for none.
    adapters: str = ""
    # Widths of keys and values in the cache, such as 4,2; empty for full precision.
    kv: str = ""
    # Data type of the parameters: float32, bfloat16 or float16.
    dtype: str = "float32"
    # Keep the weights in eight bits: a quarter of the memory, and faster on a CPU.
    packed: bool = False
    # Name under which clients ask for the model; empty for the one above.
    name: str = ""
    # Address to listen at; by default this machine alone can connect.
    host: str = "127.0.0.1"
    # Port to listen at; 0 takes a free one.
    port: int = 8000
    # Key that clients must send; empty for none. Other users of this machine can see a
    # command line: a file is safer.
    api_key: str = dataclasses.field(default="", repr=False)
    # File that holds the key that clients must send.
    api_key_file: str = ""
    # Most answers that are decoded together; two such batches take turns.
    max_batch: int = 8
    # Most answers that wait; further requests are refused with status 503.
    max_waiting: int = 256
    # Most tokens of an answer for which the request names no number.
    max_tokens: int = 512
    # Tokens that are decoded before text is sent: less streams more evenly.
    piece: int = 4
    # Compile the programs of short prompts before the first request.
    warm_up: bool = True
    # Thresholds, as `train_scripts.routing` writes them to router.json; empty answers
    # everything here.
    router: str = ""
    # Name of the threshold in that file.
    policy: str = "guaranteed"
    # Confidence that the threshold is for: perplexity and average are of the answer's
    # tokens, selfref is that of the confidence tokens.
    measure: str = "perplexity"
    # Address of the large model's endpoint, such as https://host/v1. Its key is read
    # from the environment variable OPENAI_API_KEY.
    large: str = ""
    # Name of the large model there.
    large_model: str = ""
    # Seconds to wait for the large model; then the small one's answer is given.
    large_timeout: float = 60.0
    # File to which routed requests are appended, with their texts; empty for none.
    log: str = ""

    def __post_init__(self):
        """Check ranges, and that what belongs together is there."""
        for name in ("max_batch", "max_waiting", "max_tokens", "piece"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name}: expected at least 1, got {getattr(self, name)}"
                )
        if not 0 <= self.port < 2**16:
            raise ValueError(f"port: expected 0 to 65535, got {self.port}")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(
                f"dtype: expected float32, bfloat16 or float16, got {self.dtype!r}"
            )
        if self.measure not in MEASURES:
            raise ValueError(
                f"measure: expected one of {MEASURES}, got {self.measure!r}"
            )
        if self.api_key and self.api_key_file:
            raise ValueError("api_key: expected it or api_key_file, got both")
        self._check_routing()

    def _check_routing(self) -> None:
        for name in ("large", "large_model"):
            if bool(getattr(self, name)) != bool(self.router):
                raise ValueError(
                    f"{name}: expected router, large and large_model together, got "
                    f"{getattr(self, name)!r} beside router {self.router!r}"
                )
        if self.log and not self.router:
            raise ValueError(
                f"log: expected a router beside it, got {self.log!r} alone"
            )
        if self.measure == "selfref" and not (self.router and self.adapters):
            raise ValueError(
                "measure: selfref: expected a router, and adapters that were taught "
                "the confidence tokens"
            )
        if self.large_timeout <= 0:
            raise ValueError(
                f"large_timeout: expected a number above 0, got {self.large_timeout}"
            )
