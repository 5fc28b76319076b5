"""
OpenSearch and Elasticsearch: keep one data source out of what is retrieved.

Marking many documents can take minutes, so the store does it as a task of its own and is asked until it is done. The
script is the same text always; what differs are its parameters and a `term` query, in which nothing is a pattern.
Facts (both systems): POST /{index}/_count with a `query`; POST /{index}/_update_by_query with
`wait_for_completion=false` answers `{"task": "NODE:NUMBER"}`; GET /_tasks/{task} has `completed` and the `response`
with `updated`, `version_conflicts` and `failures`; GET /_tasks lists what runs, with the `X-Opaque-Id` of who asked.
What an update did before it failed stays done.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field

from runbooks.engine.actions.json_api import change, look, object_of, open_client, reason, send
from runbooks.engine.actions.quarantine import InStore, QuarantineAction, QuarantineParams, StoreAccess
from runbooks.engine.values import ActionError, Happened, JsonObject, OutcomeUnknownError, PartlyDoneError

_SYSTEM = "the search store"
_TASK = re.compile(r"[A-Za-z0-9_-]{1,64}:[0-9]{1,20}", re.ASCII)
_EVERY_S = 0.5
_MARK = "ctx._source[params.key] = true"
_UNMARK = "ctx._source.remove(params.key)"

# An index or an alias by its whole name: `_all` and patterns, which mean many, do not fit.
IndexName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,127}$")]


class QuarantineIndexParams(QuarantineParams):
    """`collection` is an index or an alias; `source` is a value of the store's `source_field`."""

    collection: IndexName


@dataclass(frozen=True, kw_only=True)
class OpenSearchAccess(StoreAccess):
    """One OpenSearch or Elasticsearch; `key` is `user:password` or an API key. `task_s` is how long a task may take."""

    task_s: float = 300.0

    def client(self) -> httpx.AsyncClient:
        """Raises ActionError when `ca_file` or `url` cannot be used."""
        headers = {"Authorization": authorization(self.key)} if self.key else None
        return open_client(_SYSTEM, self.url, timeout_s=self.timeout_s, ca_file=self.ca_file, headers=headers)


def authorization(key: str) -> str:
    """`user:password` as Basic; an API key, which has no colon, as Elasticsearch takes it."""
    return f"Basic {base64.b64encode(key.encode()).decode()}" if ":" in key else f"ApiKey {key}"


class QuarantineIndex(QuarantineAction[OpenSearchAccess]):
    """`opensearch.quarantine`: the mark is a top-level field of the document."""

    name = "opensearch.quarantine"
    params: type[BaseModel] = QuarantineIndexParams
    subject: type[BaseModel] = QuarantineIndexParams

    def patience_s(self, params: InStore) -> float:
        access = self._stores.get(params.store)
        return super().patience_s(params) + 2 * access.timeout_s + access.task_s if access else 0.0

    async def counted(self, access: OpenSearchAccess, params: QuarantineParams) -> tuple[int, int]:
        async with access.client() as client:
            points = await _count(client, params.collection, _of_source(access, params))
            marked = await _count(client, params.collection, _of_source(access, params, marked=True))
        return points, marked

    async def mark(self, access: OpenSearchAccess, params: QuarantineParams, before: JsonObject, token: str) -> None:
        script = {
            "lang": "painless",
            "source": _MARK if params.quarantined else _UNMARK,
            "params": {"key": before["key"]},
        }
        body = {"query": _of_source(access, params, marked=not params.quarantined), "script": script}
        where = f"{_index(params.collection)}/_update_by_query?conflicts=proceed&refresh=true&wait_for_completion=false"
        async with access.client() as client:
            # A task is listed with the `X-Opaque-Id` of the request that began it, by which the probe finds it.
            answer = await send(client, _SYSTEM, "POST", where, body, token, {"X-Opaque-Id": token})
            report = await _finished(client, _task_of(answer), access.task_s)
        _require_done(report)
        points, marked = await self._counted_after(access, params)
        if marked < before["points"] if params.quarantined else marked:  # what came in meanwhile does not count
            raise PartlyDoneError(
                f"{marked} of {points} documents of {params.source} carry the mark {before['key']} after the update: "
                "does the index map this field?"
            )

    async def happened(self, params: QuarantineParams, before: JsonObject, token: str) -> Happened:
        """As in every store; while our own task still runs, nobody can tell yet."""
        said = await super().happened(params, before, token)
        if said is not Happened.NO:
            return said
        try:
            async with self.access(params, params.collection).client() as client:
                running = await _running(client)
        except ActionError:
            return Happened.CANNOT_TELL
        return Happened.CANNOT_TELL if token in running else Happened.NO

    async def _counted_after(self, access: OpenSearchAccess, params: QuarantineParams) -> tuple[int, int]:
        try:
            return await self.counted(access, params)
        except ActionError as error:
            raise OutcomeUnknownError(f"the update ran to its end, but then: {error}") from error


def _of_source(access: OpenSearchAccess, params: QuarantineParams, *, marked: bool = False) -> dict[str, Any]:
    """The query for the source's documents; with `marked` for those that carry the mark."""
    conditions: list[dict[str, Any]] = [{"term": {access.source_field: {"value": params.source}}}]
    if marked:
        conditions.append({"exists": {"field": access.quarantine_key}})
    return {"bool": {"filter": conditions}}


def _index(name: str) -> str:
    return f"/{quote(name, safe='')}"


async def _count(client: httpx.AsyncClient, index: str, query: JsonObject) -> int:
    """Counting takes a POST and changes nothing. Raises ActionError, also when a part of the index did not answer."""
    try:
        answer = await change(client, _SYSTEM, "POST", f"{_index(index)}/_count", {"query": query}, "count")
    except OutcomeUnknownError as error:
        raise ActionError(str(error)) from error
    count, shards = answer.get("count"), answer.get("_shards")
    if isinstance(count, bool) or not isinstance(count, int):
        raise ActionError(f"{_SYSTEM} did not count the documents of {index}")
    if not isinstance(shards, dict) or shards.get("failed") != 0:
        raise ActionError(f"{_SYSTEM} could not count all of {index}: some of its shards did not answer")
    return count


def _task_of(answer: httpx.Response) -> str:
    """Raises OutcomeUnknownError: the update was taken."""
    try:
        task = object_of(answer, _SYSTEM).get("task")
    except ActionError as error:
        raise OutcomeUnknownError(str(error)) from error
    if not isinstance(task, str) or not _TASK.fullmatch(task):
        raise OutcomeUnknownError(f"{_SYSTEM} took the update, and did not say as which task")
    return task


async def _finished(client: httpx.AsyncClient, task: str, limit_s: float) -> JsonObject:
    """The task's report, once it has one. Raises OutcomeUnknownError."""
    end, last = time.monotonic() + limit_s, "it still runs"
    while time.monotonic() < end:
        try:
            said = await _got(client, f"/_tasks/{quote(task, safe=':')}", {})
        except ActionError as error:  # a look that fails changes nothing, and the next may not
            last = str(error)
        else:
            if said.get("completed") is True:
                report = said.get("response")
                return report if isinstance(report, dict) else {"failures": [said.get("error")]}
            last = "it still runs"
        await asyncio.sleep(_EVERY_S)
    raise OutcomeUnknownError(f"the task {task} did not end within {limit_s:g} s: {last}")


def _require_done(report: JsonObject) -> None:
    """Raises PartlyDoneError: what was marked before a failure stays so."""
    failures, conflicts = report.get("failures"), report.get("version_conflicts")
    if failures or conflicts or report.get("timed_out") or report.get("canceled"):
        raise PartlyDoneError(
            f"the update ended early: {report.get('updated', 0)} documents were changed, and "
            f"{len(failures) if isinstance(failures, list) else 0} failed, {conflicts or 0} were changed by somebody "
            "else meanwhile"
        )


async def _running(client: httpx.AsyncClient) -> set[str]:
    """Whose updates run now: their `X-Opaque-Id`. Raises ActionError."""
    nodes = (await _got(client, "/_tasks", {"actions": "*byquery"})).get("nodes")
    if not isinstance(nodes, dict):
        raise ActionError(f"{_SYSTEM} did not list its tasks")
    tasks = [task for node in nodes.values() for task in _part(node, "tasks").values()]
    return {str(_part(task, "headers").get("X-Opaque-Id")) for task in tasks}


def _part(value: Any, name: str) -> dict[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


async def _got(client: httpx.AsyncClient, path: str, query: dict[str, str]) -> JsonObject:
    answer = await look(client, _SYSTEM, path, query)
    if answer.status_code != 200:
        raise ActionError(f"{_SYSTEM} answered HTTP {answer.status_code} for {path}{reason(answer)}")
    return object_of(answer, _SYSTEM)
