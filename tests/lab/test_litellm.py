"""The LiteLLM stand-in: roles, shapes and errors as the real proxy has them, and what it remembers."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest

from lab.gateway import build
from lab.litellm import LiteLLMApi
from tests.lab.played_worlds import LIVE_START

READ, ADMIN = "sk-view-only", "sk-master"
SECRET = "sk-of-a-tenant"


@pytest.fixture
def api() -> LiteLLMApi:
    gateway = build(np.random.default_rng(1), ["gpu-1", "gpu-2"])
    return LiteLLMApi(gateway=gateway, now=lambda: LIVE_START, read_key=READ, admin_key=ADMIN)


@pytest.fixture
async def litellm(api: LiteLLMApi) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=api.app()),
        base_url="http://litellm.lab",
        headers={"Authorization": f"Bearer {ADMIN}"},
    ) as client:
        yield client


def as_viewer() -> dict[str, str]:
    return {"Authorization": f"Bearer {READ}"}


async def test_deployments_are_listed_as_litellm_does(litellm: httpx.AsyncClient, api: LiteLLMApi) -> None:
    """Group, parameters without a credential, and the id that names it elsewhere."""
    data = (await litellm.get("/v1/model/info")).json()["data"]
    assert [entry["model_info"]["id"] for entry in data] == list(api.gateway.deployments)
    openai = next(entry for entry in data if entry["model_info"]["litellm_provider"] == "openai")
    assert openai["model_name"] == "chat-overflow"
    assert openai["litellm_params"] == {
        "model": "openai/gpt-4.1-nano",
        "api_base": "https://api.openai.com/v1",
        "use_in_pass_through": False,
        "weight": 75,
    }
    [one] = (await litellm.get("/model/info?litellm_model_id=chat-gpu-1")).json()["data"]
    assert one["model_info"]["db_model"] is True
    unknown = await litellm.get("/v1/model/info?litellm_model_id=nobody")
    assert (unknown.status_code, unknown.json()) == (
        400, {"detail": {"error": "Model id = nobody not found on litellm proxy"}},
    )  # fmt: skip


async def test_a_weight_is_merged_into_its_row(litellm: httpx.AsyncClient, api: LiteLLMApi) -> None:
    """The answer is the database's row: numbers as they are, texts encrypted."""
    answer = await litellm.patch("/model/overflow-openai/update", json={"litellm_params": {"weight": 5}})
    assert answer.status_code == 200
    stored = answer.json()["litellm_params"]
    assert stored["weight"] == 5
    assert "gpt" not in stored["model"]
    assert api.gateway.deployments["overflow-openai"].weight == 5
    assert [(one["path"], one["status"]) for one in api.writes] == [("/model/overflow-openai/update", 200)]


async def test_unknown_objects_have_litellms_errors(litellm: httpx.AsyncClient) -> None:
    """LiteLLM has two forms of errors, and which one comes depends on the endpoint."""
    model = await litellm.patch("/model/nobody/update", json={"litellm_params": {"weight": 5}})
    assert (model.status_code, model.json()["error"]) == (
        404, {"message": "Model nobody not found on proxy.", "type": "not_found_error", "param": None, "code": "404"},
    )  # fmt: skip
    key = await litellm.post("/key/update", json={"key": "a" * 64, "rpm_limit": 1})
    assert (key.status_code, key.json()["error"]["message"]) == (404, "Key not found.")
    group = await litellm.get("/fallback/nobody")
    assert (group.status_code, group.json()) == (
        404, {"detail": {"error": "No general fallbacks configured for model 'nobody'"}},
    )  # fmt: skip


async def test_a_model_of_the_config_file_cannot_be_changed(litellm: httpx.AsyncClient, api: LiteLLMApi) -> None:
    """Only what lives in LiteLLM's database."""
    api.gateway.deployments["overflow-openai"].in_database = False
    answer = await litellm.patch("/model/overflow-openai/update", json={"litellm_params": {"weight": 5}})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("Cannot edit config-based model.")


async def test_fallbacks_come_and_go(litellm: httpx.AsyncClient, api: LiteLLMApi) -> None:
    """Set, replaced, read and deleted, with LiteLLM's own words."""
    body = {"model": "chat-overflow", "fallback_models": ["chat"], "fallback_type": "general"}
    created = (await litellm.post("/fallback", json=body)).json()
    assert created == {**body, "message": "Fallback configuration created successfully"}
    assert (await litellm.post("/fallback", json=body)).json()["message"].startswith("Fallback configuration updated")
    assert (await litellm.get("/fallback/chat-overflow")).json() == body
    assert (await litellm.delete("/fallback/chat-overflow")).json()["message"].endswith("deleted successfully")
    assert (await litellm.delete("/fallback/chat-overflow")).status_code == 404
    assert api.gateway.fallbacks == {}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "nobody", "fallback_models": ["chat"]}, 404, "Model 'nobody' not found in router"),
        ({"model": "chat", "fallback_models": ["nobody"]}, 400, "Invalid fallback models: ['nobody']"),
        ({"model": "chat", "fallback_models": ["chat"]}, 400, "Model 'chat' cannot be its own fallback"),
    ],
)
async def test_fallbacks_must_make_sense(
    litellm: httpx.AsyncClient, api: LiteLLMApi, body: dict[str, object], status: int, words: str
) -> None:
    """Unknown groups and a group that falls back on itself; these are LiteLLM's refusals, no violations."""
    answer = await litellm.post("/fallback", json=body)
    assert (answer.status_code, answer.json()["detail"]["error"]) == (status, words)
    assert api.violations == []


async def test_keys_are_found_by_alias_and_by_hash(litellm: httpx.AsyncClient, api: LiteLLMApi) -> None:
    """A page of hashes, or of whole rows; the key itself is in none of them."""
    page = (await litellm.get("/key/list?size=100")).json()
    assert (page["total_count"], page["total_pages"], len(page["keys"])) == (60, 1, 60)
    found = (await litellm.get("/key/list?key_alias=key-tenant-04&return_full_object=true")).json()["keys"]
    assert [row["key_alias"] for row in found] == ["key-tenant-04"]
    token = api.gateway.key("key-tenant-04").token
    info = (await litellm.get(f"/key/info?key={token}")).json()
    assert info["key"] == token
    assert "token" not in info["info"]
    assert (info["info"]["tpm_limit"], info["info"]["blocked"], info["info"]["status"]) == (None, None, "active")
    assert (await litellm.get("/key/list?key_alias=key-tenant-0")).json()["total_count"] == 0


async def test_a_key_may_name_itself(litellm: httpx.AsyncClient, api: LiteLLMApi) -> None:
    """Whoever holds the key may use it in place of its hash, as with LiteLLM."""
    key = api.gateway.key("key-tenant-01")
    api.gateway.keys[hashlib.sha256(SECRET.encode()).hexdigest()] = key
    assert (await litellm.post("/key/update", json={"key": SECRET, "rpm_limit": 7})).status_code == 200
    assert key.rpm_limit == 7


async def test_a_limit_that_is_left_out_stays(litellm: httpx.AsyncClient, api: LiteLLMApi) -> None:
    """A merge patch: left out is kept, an explicit null clears."""
    key = api.gateway.key("key-tenant-01")
    key.tpm_limit, key.rpm_limit = 5, 6
    answer = await litellm.post("/key/update", json={"key": key.token, "tpm_limit": None})
    assert (answer.json()["tpm_limit"], answer.json()["rpm_limit"]) == (None, 6)
    assert [key.tpm_limit, key.rpm_limit] == [None, 6]


async def test_blocking_and_letting_in(litellm: httpx.AsyncClient, api: LiteLLMApi) -> None:
    """The row says true, then false; a malformed key is 400."""
    key = api.gateway.key("key-tenant-01")
    assert (await litellm.post("/key/block", json={"key": key.token})).json()["blocked"] is True
    assert (await litellm.get(f"/key/info?key={key.token}")).json()["info"]["status"] == "revoked"
    assert (await litellm.post("/key/unblock", json={"key": key.token})).json()["blocked"] is False
    wrong = await litellm.post("/key/block", json={"key": "no key"})
    assert (wrong.status_code, wrong.json()["error"]["message"]) == (400, "Invalid key format.")


@pytest.mark.parametrize(
    ("header", "status", "words"),
    [
        (None, 401, "No api key passed in"),
        ("Basic abc", 401, "Malformed API Key"),
        ("Bearer sk-nobody", 401, "Invalid proxy server token"),
        ("Bearer \xfcnicode", 401, "Invalid proxy server token"),
        (f"Bearer {READ}", 403, "role= proxy_admin_viewer"),
    ],
)
async def test_who_may_not_write(
    litellm: httpx.AsyncClient, api: LiteLLMApi, header: str | None, status: int, words: str
) -> None:
    """No key, no form, nobody's key, and a key that may only look; none of them changes anything."""
    del litellm.headers["Authorization"]
    headers = {b"Authorization": header.encode("latin-1")} if header else None
    answer = await litellm.patch(
        "/model/overflow-openai/update", json={"litellm_params": {"weight": 0}}, headers=headers
    )
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]
    assert answer.json()["error"]["code"] == str(status)
    assert api.gateway.deployments["overflow-openai"].weight == 75


async def test_the_viewer_sees_everything(litellm: httpx.AsyncClient) -> None:
    """Reading is a view-only admin's whole right."""
    for path in ("/v1/model/info", "/key/list", "/model/info?litellm_model_id=chat-gpu-1"):
        assert (await litellm.get(path, headers=as_viewer())).status_code == 200
    assert (await litellm.get("/fallback/chat", headers=as_viewer())).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/model/overflow-openai/update", {"litellm_params": {"weight": "5"}}),
        ("PATCH", "/model/overflow-openai/update", {"litellm_params": {"weigth": 5}}),
        ("PATCH", "/model/overflow-openai/update", {}),
        ("PATCH", "/model/overflow-openai/update", {"litellm_params": {"weight": -1}}),
        ("POST", "/fallback", {"model": "chat", "fallback_models": []}),
        ("POST", "/fallback", {"model": "chat", "fallback_models": ["chat-overflow", "chat-overflow"]}),
        ("POST", "/key/update", {"rpm_limit": 5}),
        ("POST", "/key/update", {"key": "a" * 64, "rpm_limit": True}),
        ("POST", "/key/block", {"token": "a" * 64}),
        ("GET", "/key/list?size=1000", None),
        ("GET", "/key/list?key_allias=x", None),
    ],
)
async def test_what_litellm_would_not_understand_is_a_violation(
    litellm: httpx.AsyncClient, api: LiteLLMApi, method: str, path: str, body: dict[str, object] | None
) -> None:
    """Wrong types, misspelt and missing fields: 422 in FastAPI's form, remembered, and nothing changes."""
    before = [(one.id, one.weight) for one in api.gateway.deployments.values()]
    answer = await litellm.request(method, path, json=body)
    assert answer.status_code == 422
    assert {"type", "loc", "msg"} <= answer.json()["detail"][0].keys()
    assert [one["path"] for one in (await litellm.get("/_lab/violations")).json()] == [path.partition("?")[0]]
    assert [(one.id, one.weight) for one in api.gateway.deployments.values()] == before


async def test_a_path_that_nobody_knows_is_a_violation(litellm: httpx.AsyncClient, api: LiteLLMApi) -> None:
    """Older and newer releases have other paths; whoever uses one of them is told apart from whoever is refused."""
    answer = await litellm.post("/config/update", json={})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    assert [one["path"] for one in api.violations] == ["/config/update"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 10_000])
async def test_a_body_that_is_none_is_refused(litellm: httpx.AsyncClient, body: bytes) -> None:
    """Anything may come over a socket; it is 422 and never a stack trace."""
    assert (await litellm.post("/key/update", content=body)).status_code == 422
