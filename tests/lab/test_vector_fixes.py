"""What the vector store's alias and marks do to the simulated fleet, changed by the product's own actions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lab.knowledge_store import ALIAS
from lab.listening import listening, local_client, new_socket
from lab.qdrant import MARK, SOURCE_FIELD, QdrantApi
from runbooks.engine.actions import QdrantAccess, build_actions
from runbooks.engine.values import Action, ActionError
from tests.lab.mended_worlds import BrokenWorld, carry_out

pytestmark = pytest.mark.integration  # real HTTP

KEY = "qdrant-key"
HERE = {"store": "vectors", "service": "chat"}


class Stored(BrokenWorld):
    """A broken world with its vector store behind a port."""

    def __init__(self, id_: str, **how: Any) -> None:
        super().__init__(id_, **how)
        self.store = self.stage.knowledge_store
        self.api = QdrantApi(store=self.store, now=lambda: self.small.fleet.now, key=KEY)
        self.break_it()

    @asynccontextmanager
    async def actions(self) -> AsyncIterator[dict[str, Action]]:
        async with listening(self.api.app(), new_socket()) as url:
            access = QdrantAccess(
                url=url,
                services=("chat",),
                collections=("manuals-.*",),
                source_field=SOURCE_FIELD,
                quarantine_key=MARK,
                key=KEY,
            )
            yield build_actions(stores={"vectors": access})

    def empty(self) -> float:
        return self.growth().share("llm_app_retrieval_total", {"outcome": "empty"})

    def seen(self) -> float:
        """Injections in content, a request."""
        grown = self.growth()
        hits = sum(grown.of("llm_app_injection_detections_total", surface=way) for way in ("retrieved", "tool"))
        return hits / grown.of("llm_app_requests_total")


async def test_the_alias_moved_back_finds_what_was_lost() -> None:
    """And no other change of the store does; the undo brings the poor collection back."""
    world = Stored("I07", moves_alias=True)
    async with world.actions() as actions:
        assert world.empty() > 0.3
        await carry_out(actions["qdrant.quarantine"], collection="manuals-v8", source="forum", **HERE)
        assert world.empty() > 0.3
        done = await carry_out(actions["qdrant.set_alias"], alias=ALIAS, collection="manuals-v7", **HERE)
        assert done == {"alias": ALIAS, "collection": "manuals-v7"}
        assert world.empty() < 0.05
        await carry_out(actions["qdrant.set_alias"], alias=ALIAS, collection="manuals-v8", **HERE)
        assert world.empty() > 0.3
    assert world.api.violations == []


async def test_an_alias_has_nowhere_to_go_where_the_collection_itself_lost_its_documents() -> None:
    """A restore is a person's work then."""
    world = Stored("I07", moves_alias=False)
    async with world.actions() as actions:
        with pytest.raises(AssertionError, match="names manuals-v7 already"):
            await carry_out(actions["qdrant.set_alias"], alias=ALIAS, collection="manuals-v7", **HERE)
        with pytest.raises(ActionError, match="no /collections/manuals-v6"):
            await carry_out(actions["qdrant.set_alias"], alias=ALIAS, collection="manuals-v6", **HERE)


async def test_a_quarantine_of_the_right_source_ends_its_orders() -> None:
    """The other source's does not; answers lack the source until it is let in again."""
    world = Stored("X02", source="forum", share=0.034)
    before = world.seen()
    async with world.actions() as actions:
        quarantine = actions["qdrant.quarantine"]
        await carry_out(quarantine, collection="manuals-v7", source="manuals", **HERE)
        assert world.seen() > 0.8 * before
        await carry_out(quarantine, collection="manuals-v7", source="manuals", quarantined=False, **HERE)
        await carry_out(quarantine, collection="manuals-v7", source="forum", **HERE)
        assert world.seen() < before / 4
        assert 0.05 < world.empty() < 0.12
        with pytest.raises(AssertionError, match="quarantined already"):
            await carry_out(quarantine, collection="manuals-v7", source="forum", **HERE)
    assert world.api.violations == []


async def test_what_a_tool_fetches_is_in_no_vector_store() -> None:
    """The action says so; with the tool off it is read no more."""
    world = Stored("X02", source="order-notes", share=0.034)
    before = world.seen()
    async with world.actions() as actions:
        with pytest.raises(AssertionError, match="no points of the source order-notes"):
            await carry_out(actions["qdrant.quarantine"], collection="manuals-v7", source="order-notes", **HERE)
    world.stage.tools.switched_off.add("search_orders")
    assert world.seen() < before / 4


async def test_it_refuses_what_it_does_not_play() -> None:
    """A wrong key, another alias, an alias that would be gone, marks of another kind or on everything."""
    world = Stored("I07", moves_alias=True)
    delete = {"delete_alias": {"alias_name": ALIAS}}
    whole = {"payload": {MARK: True}, "filter": {}}
    other = {"payload": {"hidden": True}, "filter": {"must": [{"key": SOURCE_FIELD, "match": {"value": "forum"}}]}}
    async with listening(world.api.app(), new_socket()) as url, local_client(base_url=url) as client:
        assert (await client.get("/aliases", headers={"api-key": "nobody"})).status_code == 401
        for path, body, status in (
            ("/collections/aliases", {"actions": [delete]}, 400),
            ("/collections/aliases", {"actions": [{"delete_alias": {"alias_name": "search"}}]}, 400),
            ("/collections/manuals-v7/points/payload?wait=true", whole, 400),
            ("/collections/manuals-v7/points/payload?wait=true", other, 400),
            ("/collections/manuals-v7/points/delete", {"points": [1]}, 404),
        ):
            assert (await client.post(path, json=body, headers={"api-key": KEY})).status_code == status
    assert len(world.api.violations) == 5
    assert (world.store.serves, world.store.quarantined) == ("manuals-v8", set())
