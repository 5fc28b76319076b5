"""The runbook that an alert's author linked: found by its address or its name, never fetched."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from retrieval.documents import Document


def linked_document(documents: Sequence[Document], among: Sequence[int], url: str) -> int | None:
    """
    The one document that this link means: by its address, else by the last part of the path.

    Of the documents of one page it is the one that has the link's `#anchor`, without one the page itself. A link that
    still fits two decides nothing. `among` are the places in `documents` that may be answered.
    """
    if not url.strip():
        return None
    address, name = _address(url), _last_part(url)
    by_address = [at for at in among if documents[at].url and _address(documents[at].url) == address]
    by_name = [at for at in among if name and _last_part(documents[at].doc_id) == name]
    for found in (by_address, by_name):
        meant = found if len(found) == 1 else [at for at in found if _has(documents[at], _fragment(url))]
        if len(meant) == 1:
            return meant[0]
    return None


def _has(document: Document, fragment: str) -> bool:
    if not fragment:
        return "#" not in document.doc_id
    return any(section.anchor == f"#{fragment}" for section in document.sections)


def _address(url: str) -> str:
    host, path = _host_and_path(url)
    return f"{host}{path}".removesuffix("/").removesuffix(".md").lower()


def _last_part(url: str) -> str:
    _, path = _host_and_path(url)
    return path.rstrip("/").rpartition("/")[2].removesuffix(".md").removesuffix(".html").lower()


def _fragment(url: str) -> str:
    return unquote(url.rpartition("#")[2]).lower() if "#" in url else ""


def _host_and_path(url: str) -> tuple[str, str]:
    """Host and decoded path of an address or a file path; text that is no URL at all is all path."""
    try:
        parts = urlsplit(url.strip())
        return parts.netloc, unquote(parts.path)
    except ValueError:  # "http://[": an alert's annotation can be anything
        return "", url.strip()
