"""The Langfuse stand-in: credentials, labels, filters and errors as the real one has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from lab.langfuse import LangfuseApi
from tests.lab.played_worlds import LIVE_START, SmallWorld

READ = httpx.BasicAuth("pk-read", "sk-read")
WRITE = httpx.BasicAuth("pk-write", "sk-write")
PROMPTS = "/api/public/v2/prompts"


class Now:
    """Lab time that moves when told to."""

    def __init__(self) -> None:
        self.time = LIVE_START

    def __call__(self) -> Any:
        return self.time


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
async def langfuse(now: Now) -> AsyncIterator[httpx.AsyncClient]:
    api = LangfuseApi(store=SmallWorld().prompts, now=now, read_key="pk-read:sk-read", write_key="pk-write:sk-write")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=api.app()), base_url="http://langfuse.lab", auth=READ
    ) as client:
        yield client


async def test_the_production_version_is_the_default(langfuse: httpx.AsyncClient) -> None:
    """Without version or label the one labelled `production` is meant, in Langfuse's own shape."""
    body = (await langfuse.get(f"{PROMPTS}/chat-system")).json()
    assert (body["name"], body["version"], body["type"]) == ("chat-system", 7, "text")
    assert sorted(body["labels"]) == ["latest", "production"]
    assert {"id", "createdAt", "updatedAt", "createdBy", "config", "tags", "commitMessage", "resolutionGraph"} <= set(
        body
    )
    assert body["createdAt"].endswith("Z")


async def test_a_version_or_a_label_can_be_asked_for(langfuse: httpx.AsyncClient) -> None:
    """Old versions stay readable; asking for both at once is a mistake."""
    assert (await langfuse.get(f"{PROMPTS}/chat-system?version=3")).json()["version"] == 3
    assert (await langfuse.get(f"{PROMPTS}/chat-system?label=latest")).json()["version"] == 7
    assert (await langfuse.get(f"{PROMPTS}/chat-system?label=latest&version=3")).status_code == 400


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nobody", "Prompt not found: 'nobody' with label 'production'"),
        ("/chat-system?version=99", "Prompt not found: 'chat-system' with version 99"),
        ("/chat-system?label=staging", "Prompt not found: 'chat-system' with label 'staging'"),
    ],
)
async def test_what_is_not_there_is_404(langfuse: httpx.AsyncClient, path: str, words: str) -> None:
    """The message says which name, version or label was missed."""
    answer = await langfuse.get(PROMPTS + path)
    assert answer.status_code == 404
    assert answer.json() == {"message": words, "error": "LangfuseNotFoundError"}


@pytest.mark.parametrize(
    "authorization", ["", "Basic", "Basic !!!", "Basic cGstcmVhZDp3cm9uZw==", "Bearer pk-read:sk-read", "Basic w6k="]
)
async def test_without_a_valid_key_nothing_is_told(langfuse: httpx.AsyncClient, authorization: str) -> None:
    """Every other Authorization header gets 401, however odd it is."""
    headers = {"Authorization": authorization} if authorization else {}
    assert (await langfuse.get(f"{PROMPTS}/chat-system", headers=headers, auth=None)).status_code == 401
    assert (await langfuse.get(PROMPTS, headers=headers, auth=None)).status_code == 401


async def test_the_read_key_cannot_write(langfuse: httpx.AsyncClient) -> None:
    """403, nothing moves, and the attempt is on record."""
    answer = await langfuse.patch(f"{PROMPTS}/chat-system/versions/6", json={"newLabels": ["production"]})
    assert answer.status_code == 403
    assert (await langfuse.get(f"{PROMPTS}/chat-system")).json()["version"] == 7
    [attempt] = (await langfuse.get("/_lab/writes")).json()
    assert (attempt["status"], attempt["key"]) == (403, "pk-read")


async def test_a_label_moves_and_the_others_stay(langfuse: httpx.AsyncClient, now: Now) -> None:
    """A label is unique per prompt, new labels add to those there are, and both versions' times are lab time."""
    now.time += timedelta(minutes=3)
    answer = await langfuse.patch(f"{PROMPTS}/chat-system/versions/6", json={"newLabels": ["production"]}, auth=WRITE)
    assert answer.status_code == 200
    assert answer.json()["labels"] == ["production"]
    await langfuse.patch(f"{PROMPTS}/chat-system/versions/6", json={"newLabels": ["canary"]}, auth=WRITE)

    after = (await langfuse.get(f"{PROMPTS}/chat-system")).json()
    assert (after["version"], after["labels"]) == (6, ["production", "canary"])
    before = (await langfuse.get(f"{PROMPTS}/chat-system?version=7")).json()
    assert before["labels"] == ["latest"]
    assert before["updatedAt"] == after["updatedAt"] == "2026-03-03T12:03:00.000Z"
    writes = (await langfuse.get("/_lab/writes")).json()
    assert [w["body"]["newLabels"] for w in writes] == [["production"], ["canary"]]
    assert [w["status"] for w in writes] == [200, 200]


@pytest.mark.parametrize(
    "body", [{"newLabels": ["latest"]}, {"newLabels": "production"}, {"labels": []}, {"newLabels": [7]}, [], None]
)
async def test_what_is_no_list_of_labels_is_refused(langfuse: httpx.AsyncClient, body: Any) -> None:
    """`latest` belongs to Langfuse, and a body of another shape changes nothing."""
    answer = await langfuse.patch(f"{PROMPTS}/chat-system/versions/6", json=body, auth=WRITE)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("Invalid")
    assert (await langfuse.get(f"{PROMPTS}/chat-system")).json()["version"] == 7


async def test_broken_json_is_refused(langfuse: httpx.AsyncClient) -> None:
    """400, not a stack trace."""
    answer = await langfuse.patch(f"{PROMPTS}/chat-system/versions/6", content=b"{", auth=WRITE)
    assert answer.status_code == 400


@pytest.mark.parametrize("version", ["99", "x"])
async def test_labels_need_a_version_that_exists(langfuse: httpx.AsyncClient, version: str) -> None:
    """404, and the label stays where it was."""
    path = f"{PROMPTS}/chat-system/versions/{version}"
    answer = await langfuse.patch(path, json={"newLabels": ["production"]}, auth=WRITE)
    assert answer.status_code == 404
    assert (await langfuse.get(f"{PROMPTS}/chat-system")).json()["version"] == 7


async def test_a_new_version_takes_its_labels(langfuse: httpx.AsyncClient) -> None:
    """POST makes the next version, which is `latest` at once and has the labels that it asks for."""
    body = {"name": "chat-system", "prompt": "Be brief.", "labels": ["production"], "commitMessage": "shorter"}
    answer = await langfuse.post(PROMPTS, json=body, auth=WRITE)
    assert answer.status_code == 201
    assert (answer.json()["version"], answer.json()["commitMessage"]) == (8, "shorter")
    assert sorted(answer.json()["labels"]) == ["latest", "production"]
    assert (await langfuse.get(f"{PROMPTS}/chat-system?version=7")).json()["labels"] == []


async def test_a_prompt_in_a_folder_is_found(langfuse: httpx.AsyncClient) -> None:
    """Names may hold slashes, which a client sends encoded."""
    await langfuse.post(
        PROMPTS, json={"name": "team/greeting", "prompt": "Hello", "labels": ["production"]}, auth=WRITE
    )
    assert (await langfuse.get(f"{PROMPTS}/team%2Fgreeting")).json()["name"] == "team/greeting"
    path = f"{PROMPTS}/team%2Fgreeting/versions/1"
    assert (await langfuse.patch(path, json={"newLabels": ["x"]}, auth=WRITE)).status_code == 200


async def test_listing_shows_only_what_matches(langfuse: httpx.AsyncClient, now: Now) -> None:
    """Filters choose versions; a prompt shows those that match, and pages are counted."""
    everything = (await langfuse.get(PROMPTS)).json()
    assert [p["name"] for p in everything["data"]] == ["chat-summary", "chat-system"]
    assert everything["meta"] == {"page": 1, "limit": 50, "totalPages": 1, "totalItems": 2}
    assert everything["data"][1]["versions"] == [1, 2, 3, 4, 5, 6, 7]

    [labelled] = (await langfuse.get(f"{PROMPTS}?label=production&name=chat-system")).json()["data"]
    assert (labelled["versions"], sorted(labelled["labels"])) == ([7], ["latest", "production"])
    assert len((await langfuse.get(f"{PROMPTS}?tag=chat")).json()["data"]) == 2
    assert (await langfuse.get(f"{PROMPTS}?tag=other")).json()["data"] == []

    second = (await langfuse.get(f"{PROMPTS}?limit=1&page=2")).json()
    assert [p["name"] for p in second["data"]] == ["chat-system"]
    assert second["meta"]["totalPages"] == 2


async def test_listing_by_time_finds_what_was_touched(langfuse: httpx.AsyncClient, now: Now) -> None:
    """A moved label touches both versions, so a poll by update time sees the move."""
    now.time += timedelta(minutes=5)
    await langfuse.patch(f"{PROMPTS}/chat-system/versions/6", json={"newLabels": ["production"]}, auth=WRITE)
    since = {"fromUpdatedAt": "2026-03-03T12:01:00Z"}
    [touched] = (await langfuse.get(PROMPTS, params=since)).json()["data"]
    assert (touched["name"], touched["versions"]) == ("chat-system", [6, 7])
    assert touched["lastUpdatedAt"] == "2026-03-03T12:05:00.000Z"
    until = {**since, "toUpdatedAt": "2026-03-03T12:05:00Z"}
    assert (await langfuse.get(PROMPTS, params=until)).json()["data"] == []


@pytest.mark.parametrize("query", ["limit=101", "page=0", "limit=x", "fromUpdatedAt=yesterday", "version=abc"])
async def test_a_bad_filter_is_refused(langfuse: httpx.AsyncClient, query: str) -> None:
    """A filter that cannot be read must not be read as none."""
    assert (await langfuse.get(f"{PROMPTS}?{query}")).status_code == 400
