"""Where there is no Git: only what a key has signed is found or run."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError
from typer.testing import CliRunner

from bot.cli import app
from bot.config import RunbookFolder
from bot.library import Shelf, open_shelf
from runbooks.engine.signed import LIST, SIGNATURE
from tests.bot.test_library import GOOD


def keys(folder: Path, key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
    """The private and the public key as `openssl genpkey` and `openssl pkey -pubout` write them."""
    private, public = folder / "key.pem", folder / "pub.pem"
    private.write_bytes(
        key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()),
    )
    public.write_bytes(key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """The key of `books/`, where a runbook and a page further down were signed, and the key that did."""
    books = tmp_path / "books"
    (books / "more").mkdir(parents=True)
    (books / "good.md").write_text(GOOD, encoding="utf-8")
    (books / "more/page.md").write_text("# A page\n\nRestart the poodle.\n", encoding="utf-8")
    private, public = keys(tmp_path, Ed25519PrivateKey.generate())
    said = signing(books, private)
    assert said[:2] == ["new: good.md", "new: more/page.md"]
    return public


def signing(books: Path, key: Path) -> list[str]:
    ended = CliRunner().invoke(app, ["runbook", "sign", str(books), "--key", str(key)])
    assert ended.exit_code == 0, ended.output
    return ended.output.splitlines()


def shelf_of(public: Path) -> Shelf:
    return open_shelf([RunbookFolder(path=public.parent / "books", signed=public)])


def own(shelf: Shelf) -> set[str]:
    return {each.doc_id for each in shelf.documents()} - {each.doc_id for each in open_shelf().documents()}


def test_what_the_key_signed_counts(public: Path) -> None:
    """Runbooks and pages alike, and nothing is complained about."""
    shelf = shelf_of(public)

    assert (own(shelf), shelf.problems) == ({"good", "more/page"}, ())


def test_what_was_changed_or_added_since_does_not(public: Path) -> None:
    """Other bytes, another name for signed bytes, and a new file are three ways in; each is told, none counts."""
    books = public.parent / "books"
    (books / "good.md").write_text(f"{GOOD}\nMore.\n", encoding="utf-8")
    (books / "renamed.md").write_bytes((books / "more/page.md").read_bytes())
    (books / "new.md").write_text("# New", encoding="utf-8")

    shelf = shelf_of(public)

    assert own(shelf) == {"more/page"}
    assert {problem.path for problem in shelf.problems} == {"good.md", "new.md", "renamed.md"}
    assert all("not reviewed" in problem.message for problem in shelf.problems)
    assert signing(books, public.with_name("key.pem"))[:3] == ["changed: good.md", "new: new.md", "new: renamed.md"]
    assert own(shelf_of(public)) == {"good", "more/page", "new", "renamed"}


@pytest.mark.parametrize("spoilt", ["list", "signature", "no signature", "other key", "other curve", "key inside"])
def test_when_the_list_proves_nothing_nothing_counts(public: Path, spoilt: str) -> None:
    """Whoever may write the folder may write a list, too; without this key's signature it is worth nothing."""
    books = public.parent / "books"
    match spoilt:
        case "list":
            (books / LIST).write_bytes((books / LIST).read_bytes() + b"0" * 64 + b"  new.md\n")
        case "signature":
            (books / SIGNATURE).write_bytes(bytes(64))
        case "no signature":
            (books / SIGNATURE).unlink()
        case "other key":
            keys(public.parent, Ed25519PrivateKey.generate())
        case "other curve":
            keys(public.parent, ec.generate_private_key(ec.SECP256R1()))
        case _:
            public = public.rename(books / "pub.pem")

    shelf = open_shelf([RunbookFolder(path=books, signed=public)])

    assert own(shelf) == set()
    [problem] = shelf.problems
    assert "none of its files counts" in problem.message


def test_branch_and_list_are_not_asked_both() -> None:
    """Two proofs would leave open which of them decides."""
    with pytest.raises(ValidationError, match="keep one"):
        RunbookFolder(path=Path(), reviewed="origin/main", signed=Path("pub.pem"))
