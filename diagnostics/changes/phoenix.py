"""
Prompt versions and tags in Arize Phoenix, read-only.

Phoenix' REST API tells neither when a version was made nor when a tag moved: without our own sightings nothing is known
to have changed. A version goes by its place in the prompt's list, oldest 1, and by its id.
API: GET /v1/prompts/{name}/versions?limit=&cursor= (newest first), GET /v1/prompts/{name}/tags/{tag}.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel

from diagnostics.changes.api import valid
from diagnostics.changes.change import Change, ChangeSourceError
from diagnostics.changes.followed_prompts import FollowedPrompts
from diagnostics.changes.labels import LabelMove, change_id, look, prompt_text
from diagnostics.target import Target

_PAGE, _MOST_PAGES = 100, 20


class _Version(BaseModel):
    id: str
    description: str | None = None
    model_name: str = ""
    template: dict[str, Any]

    @property
    def text(self) -> str:
        return prompt_text(self.template.get("messages", self.template.get("template")))


class _Versions(BaseModel):
    data: list[_Version]
    next_cursor: str | None = None


class _Tagged(BaseModel):
    data: _Version


class PhoenixPrompts(FollowedPrompts):
    """The change source of one Phoenix server; `label` is the tag that production follows."""

    async def _of_prompt(self, target: Target, name: str, until: datetime) -> Change | None:
        about = f"the answer about prompt {name!r}"
        path = f"/v1/prompts/{quote(name, safe='')}"
        answer = await self._api.get(f"{path}/tags/{quote(self._label, safe='')}", absent={404})
        if answer is None:
            return None
        tagged = valid(_Tagged, answer, about).data
        versions = await self._versions(f"{path}/versions", about)
        number = next((at for at, version in enumerate(versions, 1) if version.id == tagged.id), None)
        if number is None:
            return None  # it was made or removed between the two answers; the next look sees it
        move = await look(self._journal, name, self._label, number, until)
        return None if move is None else self._change(target, name, versions, move)

    async def _versions(self, path: str, about: str) -> list[_Version]:
        """All versions, oldest first."""
        found: list[_Version] = []
        query = {"limit": str(_PAGE)}
        for _ in range(_MOST_PAGES):
            page = valid(_Versions, await self._api.get(path, query), about)
            found += page.data
            if not page.next_cursor:
                return found[::-1]
            query["cursor"] = page.next_cursor
        raise ChangeSourceError(f"{about} has more than {_PAGE * _MOST_PAGES} versions")

    def _change(self, target: Target, name: str, versions: list[_Version], move: LabelMove) -> Change:
        current = versions[move.version - 1]
        previous = versions[move.previous - 1] if move.previous <= len(versions) else None
        note = f" ({current.description[:200]})" if current.description else ""
        return Change(
            id=change_id(self.name, name, move.version, move.stretch),
            at=move.at(None),
            kind="prompt",
            service=target.service,
            source=self.name,
            summary=f"{self._label} of prompt {name} is on version {move.version}, "
            f"before that on version {move.previous}{note}",
            scope={"prompt": (name,), "prompt_version": (str(move.version), current.id)},
            before=None if previous is None else _whole(previous),
            after=_whole(current),
            # no `prompt`: no action of ours moves a tag of Phoenix'
            undo={"version": str(move.version), "previous_version": str(move.previous)},
        )


def _whole(version: _Version) -> str:
    """A version fixes its model, too; a prompt's text alone would hide that it changed."""
    return f"model: {version.model_name}\n{version.text}" if version.model_name else version.text
