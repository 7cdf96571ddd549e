"""Where a model is: a path, an asset, an installed package, or the Hugging Face hub."""

import importlib.metadata
from pathlib import Path

from jeff import assets

__all__ = ["find_model"]

_HUB_FILES = ("*.json", "*.jinja", "*.safetensors", "tokenizer.model")


def find_model(name: str, revision: str | None = None) -> Path:
    """Find the files of a model.

    Args:
      name: a path, the name of an asset or package, or a hub id.
      revision: of a model of the hub.

    Returns:
      A GGUF file, or a directory.

    Raises:
      FileNotFoundError: if it is found nowhere; names the places.
      ValueError: if a package holds several models.
    """
    # A path first: a file of that name is surely meant.
    path = Path(name).expanduser()
    if path.exists():
        return path
    if name in assets.ASSETS:
        return assets.find(name)
    if (packaged := _in_package(name)) is not None:
        return packaged
    # Only then the network.
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return _from_hub(name, revision)
    raise FileNotFoundError(
        f"{name}: expected a GGUF file, a directory of safetensors, an asset "
        "(smollm2), an installed package that carries a model, or a hub id such as "
        "organisation/name; found none"
    )


def _in_package(name: str) -> Path | None:
    """The one model file of an installed distribution, which is not imported."""
    try:
        files = importlib.metadata.files(name) or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    models = [f for f in files if f.suffix == ".gguf" or f.name == "model.safetensors"]
    if len(models) != 1:
        raise ValueError(
            f"package {name}: expected one GGUF file or one model.safetensors in it, "
            f"found {len(models)}"
        )
    path = Path(str(models[0].locate()))
    return path if path.suffix == ".gguf" else path.parent


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=list(_HUB_FILES))
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise FileNotFoundError(
            f"{name}: no such file or directory here, and the hub did not give it "
            f"({type(error).__name__}: {reason}); check the name, the network, or the "
            "access to it"
        ) from error
