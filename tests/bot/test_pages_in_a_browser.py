"""The pages in a real browser: an approver who follows a link at night, on a phone, while Slack is down."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bot.incidents import PlanState
from tests.browser import Tab, browser_tab
from tests.kit import INCIDENT, Store, config_in, open_store, unbound
from tests.operator_house import listening, operator_house
from tests.stories import FOUND, GUILTY, diagnosed, fresh_plan

pytestmark = pytest.mark.integration

HOSTILE = '<img src=x onerror="document.title=1">'


async def test_an_approver_signs_in_reads_approves_and_sees_it_verified(tmp_path: Path) -> None:
    """From a link to the verified fix without a line of script; nothing is wider than the phone, and nothing ran."""
    async with open_store(f"sqlite:///{tmp_path}/store.sqlite", config_in(tmp_path)) as store:
        await store.page(title=f"LLMHighTTFT chat {HOSTILE}")
        await diagnosed(store, replace(FOUND, suspects=(replace(GUILTY, diff=f"+{HOSTILE}" + "x" * 300),)))
        await store.offer(fresh_plan(store))
        async with (
            operator_house(store) as house,
            listening(house.web) as url,
            browser_tab(f"{url}/incidents/{INCIDENT}", tmp_path, width=390, height=844) as tab,
        ):
            await sign_in(tab, await house.mint("bob"))
            await tab.until(f"location.pathname == '/incidents/{INCIDENT}' && document.querySelector('.row.plan')")
            await expect_fits(tab)
            assert "91 % sure" in await tab.run("document.body.innerText")
            await tab.until("document.querySelector('img.picture').complete")
            assert await tab.run("document.querySelector('img.picture').naturalWidth") > 500
            await tab.run("document.querySelector('.row.plan').click()")
            await tab.until("document.querySelector('form.decide')")
            await expect_fits(tab)
            assert "Set the thing from 8 to 7." in await tab.run("document.body.innerText")
            await tab.run("document.querySelector('button[value=approve]').click()")
            await tab.until("document.querySelector('h1 .badge.approved')")
            await work(store)
            await tab.until("document.querySelector('h1 .badge.verified')")  # the page looks again by itself
            assert "done, and the telemetry confirms it" in await tab.run("document.body.innerText")
            assert "LLMHighTTFT" in await tab.run("document.querySelector('.crumbs').innerText")
            assert await tab.run("document.title") != "1"
            await tab.run("document.querySelector('.who button').click()")
            await tab.until("document.querySelector('#token')")
            assert [entry for entry in tab.console if "error" in entry] == []


async def sign_in(tab: Tab, token: str) -> None:
    """Paste the token and press the button, as a person does."""
    await tab.until("document.querySelector('#token')")
    await tab.run(f"document.querySelector('#token').value = '{token}'")
    await tab.run("document.querySelector('button.main').click()")


async def expect_fits(tab: Tab) -> None:
    """Nobody has to scroll sideways on a phone."""
    assert await tab.run("document.documentElement.scrollWidth <= window.innerWidth")


async def work(store: Store) -> None:
    """What whoever works does with an approved plan, as far as the page shows it."""
    row, now = await store.plans.get("plan-1"), datetime.now(UTC)
    await store.plans.begin(row, now=now, bound=unbound)
    await store.plans.end(row.plan, PlanState.VERIFIED, "", now=now, expected=[PlanState.RUNNING])
