"""The pages and the command line's addresses as strangers, attackers, readers and approvers meet them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from starlette.routing import Route

from bot.incidents import PlanState
from bot.store.audit import AuditLog
from bot.store.tables import audit
from bot.web.callers import csrf_of
from diagnostics.diagnosis import RankedCause
from diagnostics.findings import Finding
from runbooks.engine.records import Intent, Outcome, Probed, Record, record_json
from runbooks.engine.values import Happened, Plan, Tier
from tests.kit import INCIDENT, Store, config_in, open_store, step, unbound
from tests.operator_house import SITE, OperatorHouse, operator_house, own_form
from tests.stories import FOUND, GUILTY, diagnosed, fresh_plan

PUBLIC = {
    ("POST", "/webhooks/pagerduty"),  # signed by PagerDuty
    ("POST", "/slack/events"),  # signed by Slack
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/healthz"),
    ("GET", "/metrics"),
    ("GET", "/statusz"),  # says to strangers whether it is ready, and nothing more
    ("GET", "/sign-in"),
    ("POST", "/sign-in"),
    ("GET", "/static/style.css"),
    ("GET", "/static/icon.svg"),
}
"""Every route that needs no sign-in; whoever adds one has to write it here."""

SIGNED_IN = {
    ("GET", "/"),
    ("POST", "/sign-out"),
    ("GET", "/incidents"),
    ("GET", "/incidents/{incident_id}"),
    ("GET", "/incidents/{incident_id}/latency.png"),
    ("GET", "/plans/{plan_id}"),
    ("POST", "/plans/{plan_id}"),
    ("GET", "/audit"),
    ("GET", "/api/incidents"),
    ("GET", "/api/incidents/{incident_id}"),
    ("GET", "/api/plans/{plan_id}"),
    ("POST", "/api/plans/{plan_id}/approve"),
    ("POST", "/api/plans/{plan_id}/break-glass"),
    ("POST", "/api/plans/{plan_id}/deny"),
    ("POST", "/api/plans/{plan_id}/revoke"),
    ("POST", "/api/plans/{plan_id}/narrow"),
    ("POST", "/api/stop"),
    ("POST", "/api/go"),
    ("GET", "/api/ranking/{digest}"),
    ("POST", "/api/ranking/{digest}/adopt"),
    ("POST", "/api/ranking/rollback"),
}
REPORTERS = {("POST", "/changes")}
"""Behind a token of its own (tests/bot/test_change_door.py)."""

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}{% raw %}\u202e"


@pytest.fixture
async def house(tmp_path: Any) -> AsyncIterator[OperatorHouse]:
    """An incident with a verdict and a proposed fix, on SQLite: the store's own tests run on both databases."""
    async with open_store(f"sqlite:///{tmp_path}/store.sqlite", config_in(tmp_path)) as store:
        await store.page()
        await diagnosed(store)
        await store.offer(fresh_plan(store))
        async with operator_house(store) as built:
            yield built


def filled(path: str) -> str:
    return path.format(incident_id=INCIDENT, plan_id="plan-1", digest="0" * 64)


async def state(house: OperatorHouse) -> PlanState:
    return (await house.store.plans.get("plan-1")).state


async def digest(house: OperatorHouse) -> str:
    return (await house.store.plans.get("plan-1")).digest


async def write(house: OperatorHouse, *records: Record) -> None:
    """What whoever works wrote into the plan's journal."""
    item = (await house.store.plans.get("plan-1")).plan
    for position, record in enumerate(records, start=1):
        now = datetime.now(UTC)
        await house.store.journal.append(
            item, position=position, step=0, kind=record.kind, record=record_json(record), now=now
        )


async def decide(client: httpx.AsyncClient, house: OperatorHouse, **fields: str) -> httpx.Response:
    """The form of the plan's page, as its owner would send it, with some fields changed."""
    session = client.cookies["__Host-watchkeeper"]
    form = {"csrf": csrf_of(session), "digest": await digest(house), "decision": "approve", **fields}
    return await client.post("/plans/plan-1", data=form, headers=own_form())


def test_every_route_is_listed(house: OperatorHouse) -> None:
    """A new route is public by this list, behind the sign-in, or behind a token that opens it alone."""
    routes = {
        (method, route.path)
        for route in house.web.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }

    assert routes == PUBLIC | SIGNED_IN | REPORTERS


@pytest.mark.parametrize("half", [0, 1])  # after ten failures with one token the answer is another
@pytest.mark.parametrize("caller", ["anonymous", "wrong token", "expired", "revoked"])
async def test_nobody_unknown_gets_in(house: OperatorHouse, caller: str, half: int) -> None:
    """Pages send them to the sign-in, addresses of programs answer 401 in constant words; nothing is told or done."""
    secret = {"anonymous": "", "wrong token": "wko_" + "A" * 43}.get(caller)
    if secret is None:
        secret = await house.mint("bob", days=1, ago=timedelta(days=2 if caller == "expired" else 0))
    if caller == "revoked":
        [token] = await house.operators.tokens()
        await house.operators.revoke(token.token_id, actor="unix:root", now=datetime.now(UTC))
    for number, (method, path) in enumerate(sorted(SIGNED_IN)[half::2]):
        async with house.client(secret, address=(f"203.0.113.{number}", 5)) as client:
            client.cookies.set("__Host-watchkeeper", secret.replace("wko_", "wks_"))
            answer = await client.request(method, filled(path), headers={"Sec-Fetch-Site": "none"})
        if path.startswith("/api/"):
            assert (answer.status_code, answer.json()) == (401, {"error": "You are not signed in."}), path
        else:
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/sign-in"), path
        assert "LLMHighTTFT" not in answer.text, path
    assert await state(house) is PlanState.PROPOSED


async def test_every_page_opens_for_a_reader(house: OperatorHouse) -> None:
    """Alice may approve nothing, and reads everything; each answer forbids scripts, frames, sniffing and caching."""
    async with house.signed_in("alice") as client:
        for method, path in sorted(SIGNED_IN):
            if method == "POST" or path.startswith("/api/"):
                continue
            answer = await client.get(filled(path), follow_redirects=True)
            policy = answer.headers["content-security-policy"]
            assert answer.status_code == 200, path
            assert policy.startswith("default-src 'none'; "), path
            assert not {"script", "unsafe", "*"} & set(re.split(r"[^a-z*]", policy)), path
            assert answer.headers["x-frame-options"] == "DENY", path
            assert answer.headers["x-content-type-options"] == "nosniff", path
            assert answer.headers["cache-control"] == "no-store", path
            assert "access-control-allow-origin" not in answer.headers, path


async def test_the_incident_tells_its_story(house: OperatorHouse) -> None:
    """Verdict with its probability, evidence, the suspect with its diff, the fix, and who did what."""
    async with house.signed_in("alice") as client:
        text = (await client.get(f"/incidents/{INCIDENT}")).text
        picture = await client.get(f"/incidents/{INCIDENT}/latency.png")

    for words in (
        "A prompt change broke the prefix cache",
        "91 % sure",
        "Prefix hits fell.",
        "label production moved from version 7 to 8",
        "+Now: {{timestamp}}",
        "Set the thing from 8 to 7.",
        "PagerDuty</strong> paged",
        "made diagnosis 1: S04",
    ):
        assert words in text
    assert picture.content.startswith(b"\x89PNG")


async def test_an_approver_approves_exactly_what_they_read(house: OperatorHouse) -> None:
    """The same desk decides; the record says who, in which role, and that it was not in Slack."""
    async with house.signed_in("bob") as client:
        page = await client.get("/plans/plan-1")
        answer = await decide(client, house)

    assert "Approve exactly this" in page.text
    assert (answer.status_code, answer.headers["location"]) == (303, "/plans/plan-1")
    assert await state(house) is PlanState.APPROVED
    row = (await AuditLog(house.store.database).about(INCIDENT))[-1]
    assert (row.actor, row.action) == ("bob", "plan.approve")
    assert (row.details["role"], row.details["channel"]) == ("prompt-owner", "operator")


async def test_who_may_not_is_refused_and_on_record(house: OperatorHouse) -> None:
    """Alice sees why, gets no buttons, and forging the form ends in a refusal that stands on the card."""
    async with house.signed_in("alice") as client:
        page = await client.get("/plans/plan-1")
        answer = await decide(client, house)

    assert "Approve exactly this" not in page.text
    assert "This fix needs prompt-owner (Bob Brandt)" in page.text
    assert answer.status_code == 403
    row = (await AuditLog(house.store.database).about(INCIDENT))[-1]
    assert (row.actor, row.action, row.details["channel"]) == ("alice", "refused", "operator")
    assert await state(house) is PlanState.PROPOSED


async def test_a_form_that_is_not_ours_decides_nothing(house: OperatorHouse) -> None:
    """Without the session's own mark, with another hash or another word, the plan stays as it was."""
    forged: list[dict[str, str]] = [
        {"csrf": ""},
        {"csrf": "0" * 64},
        {"csrf": "\u00ed\u00a0"},
        {"digest": ""},
        {"digest": "0" * 64},
        {"decision": "run"},
        {"decision": ""},
    ]
    async with house.signed_in("bob") as client:
        answers = [(await decide(client, house, **fields)).status_code for fields in forged]

    assert answers == [400, 400, 400, 400, 409, 400, 400]
    assert await state(house) is PlanState.PROPOSED


async def test_another_site_cannot_send_our_forms(house: OperatorHouse) -> None:
    """Even with the right mark in it, and the same for signing in, so that nobody is signed in as somebody else."""
    theirs: list[dict[str, str]] = [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example.com"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-origin", "Content-Type": "text/plain"},
        {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"},
    ]
    token = await house.mint("alice")
    async with house.signed_in("bob") as client:
        csrf = csrf_of(client.cookies["__Host-watchkeeper"])
        body = f"csrf={csrf}&decision=approve&digest={await digest(house)}"
        for headers in theirs:
            sent = {"Content-Type": "application/x-www-form-urlencoded", **headers}
            answer = await client.post("/plans/plan-1", content=body, headers=sent)
            signing_in = await client.post("/sign-in", content=f"token={token}", headers=sent)
            assert (answer.status_code, signing_in.status_code) == (400, 400), headers
            assert "set-cookie" not in signing_in.headers, headers

    assert await state(house) is PlanState.PROPOSED


async def test_an_approval_is_revoked_on_the_page(house: OperatorHouse) -> None:
    """By Bob, who gave it, though he may not any more; not by Alice, nor by a form of another site or another hash."""
    async with house.signed_in("bob") as client, house.signed_in("alice") as reader:
        await decide(client, house)
        house.parts.policy._config.services[0].approvers.clear()  # type: ignore[attr-defined]  # a dict by its nature
        page, hers = await client.get("/plans/plan-1"), await reader.get("/plans/plan-1")
        forged = await decide(client, house, decision="revoke", csrf="another")
        other = await decide(client, house, decision="revoke", digest="0" * 64)
        refused = await decide(reader, house, decision="revoke")
        approved = await state(house)
        done = await decide(client, house, decision="revoke")

    assert "Revoke approval" in page.text
    assert "Revoke approval" not in hers.text
    assert [each.status_code for each in (forged, other, refused, done)] == [400, 409, 403, 303]
    assert (approved, await state(house)) == (PlanState.APPROVED, PlanState.SUPERSEDED)


async def test_a_fix_is_taken_back_from_the_page(house: OperatorHouse) -> None:
    """Bob asks for the undo, as an errand of his for whoever works; Alice, who may not, is refused."""
    row, now = await house.store.plans.get("plan-1"), datetime.now(UTC)
    async with house.signed_in("bob") as client, house.signed_in("alice") as reader:
        await decide(client, house)
        await house.store.plans.begin(await house.store.plans.get("plan-1"), now=now, bound=unbound)
        await write(house, Intent(step=0, token="t"), Outcome(step=0, ok=True))
        await house.store.plans.end(row.plan, PlanState.NOT_VERIFIED, "", now=now, expected=[PlanState.RUNNING])
        page = await client.get("/plans/plan-1")
        refused = await decide(reader, house, decision="undo")
        asked = await decide(client, house, decision="undo")

    assert "Undo this fix" in page.text
    assert (refused.status_code, asked.status_code) == (403, 303)
    [errand] = await house.parts.errands.claim(me="a worker")
    assert (errand.kind, errand.subject, errand.person_id, errand.channel) == ("undo", "plan-1", "bob", "operator")


async def test_a_step_in_doubt_is_settled_from_the_page(house: OperatorHouse) -> None:
    """The page asks the card's question; the answer begins the next chapter, once, and only about that step."""
    row, now = await house.store.plans.get("plan-1"), datetime.now(UTC)
    async with house.signed_in("bob") as client:
        await decide(client, house)
        await house.store.plans.begin(await house.store.plans.get("plan-1"), now=now, bound=unbound)
        await write(house, Intent(step=0, token="t"), Probed(step=0, happened=Happened.CANNOT_TELL))
        await house.store.plans.end(row.plan, PlanState.IN_DOUBT, "", now=now, expected=[PlanState.RUNNING])
        page = await client.get("/plans/plan-1")
        without_step = await decide(client, house, decision="ran")
        other_step = await decide(client, house, decision="ran", step="2")
        right = await decide(client, house, decision="ran", step="1")
        again = await decide(client, house, decision="did_not_run", step="1")

    assert "It did not run" in page.text
    assert [each.status_code for each in (without_step, other_step, right, again)] == [400, 409, 303, 409]
    assert await house.store.plans.to_start() == [("plan-1", 2)]


async def test_two_people_are_two_people(house: OperatorHouse) -> None:
    """A plan that needs two gets one from the page and one from the command line; the first alone starts nothing."""
    risky = replace(await _risky(house), plan_id="plan-2")
    await house.store.offer(risky, rank=5)
    async with house.signed_in("dana") as client:
        session = client.cookies["__Host-watchkeeper"]
        form = {"csrf": csrf_of(session), "digest": risky.digest, "decision": "approve"}
        first = await client.post("/plans/plan-2", data=form, headers=own_form())
        again = await client.post("/plans/plan-2", data=form, headers=own_form())
    half = (await house.store.plans.get("plan-2")).state
    async with house.client(await house.mint("paul")) as program:
        second = await program.post("/api/plans/plan-2/approve", json={"digest": risky.digest})

    assert (first.status_code, again.status_code, second.status_code) == (303, 409, 200)
    assert half is PlanState.PROPOSED
    assert (await house.store.plans.get("plan-2")).state is PlanState.APPROVED


async def _risky(house: OperatorHouse) -> Plan:
    return fresh_plan(house.store, steps=(step(tier=Tier.R2, target="fake/thing/two"),))


async def test_a_body_says_which_plan_and_nothing_else(house: OperatorHouse) -> None:
    """Who calls and what they may is never theirs to say: each extra field is refused, not ignored."""
    right = await digest(house)
    bodies: list[bytes] = [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 4000,
        b"x" * 5000,
        json.dumps({"digest": "0" * 64}).encode(),
        json.dumps({"digest": 1}).encode(),
        *(json.dumps({"digest": right, name: "dana"}).encode() for name in ("by", "person_id", "role", "channel")),
        json.dumps({"digest": right, "tier": "R0", "needed": 0}).encode(),
    ]
    async with house.client(await house.mint("alice")) as program:
        answers = [(await program.post("/api/plans/plan-1/approve", content=body)).status_code for body in bodies]

    assert answers == [400] * 6 + [403] + [400] * 6
    assert await state(house) is PlanState.PROPOSED


async def test_programs_read_what_the_pages_show(house: OperatorHouse) -> None:
    """List, incident and plan as JSON; the plan with its hash and whether the bearer may decide."""
    async with house.client(await house.mint("alice")) as program:
        listed = (await program.get("/api/incidents")).json()
        story = (await program.get(f"/api/incidents/{INCIDENT}")).json()
        plan = (await program.get("/api/plans/plan-1")).json()
        missing = await program.get("/api/plans/plan-9")

    assert [each["id"] for each in listed["incidents"]] == [INCIDENT]
    assert story["causes"][0]["cause"] == "S04"
    assert story["plans"][0]["id"] == "plan-1"
    assert plan["digest"] == await digest(house)
    assert "prompt-owner (Bob Brandt)" in plan["refusal"]
    assert missing.status_code == 404


async def test_a_cookie_opens_no_address_of_programs(house: OperatorHouse) -> None:
    """A browser sends it by itself, so there it proves nothing."""
    async with house.signed_in("bob") as client:
        answer = await client.post("/api/plans/plan-1/approve", json={"digest": await digest(house)})

    assert answer.status_code == 401
    assert await state(house) is PlanState.PROPOSED


async def test_after_ten_failures_strangers_wait(house: OperatorHouse) -> None:
    """429 with Retry-After, at the page and at the programs' addresses, which share one count."""
    async with house.client("wko_" + "A" * 43) as client:
        answers = [(await client.get("/api/incidents")).status_code for _ in range(11)]
        page = await client.post("/sign-in", data={"token": "wko_" + "B" * 43}, headers=own_form())

    assert answers == [401] * 10 + [429]
    assert page.status_code == 429
    assert 1 <= int(page.headers["retry-after"]) <= 60


async def test_the_cookie_is_kept_from_scripts_and_other_sites(house: OperatorHouse) -> None:
    """Over TLS it has the `__Host-` name; on this machine, without TLS, a plain one."""
    token = await house.mint("bob")
    async with house.client() as far, house.client(site="http://127.0.0.1:8080", address=("127.0.0.1", 5)) as near:
        secure = await far.post("/sign-in", data={"token": token}, headers=own_form())
        plain = await near.post("/sign-in", data={"token": token}, headers={"Origin": "http://127.0.0.1:8080"})

    assert re.fullmatch(
        r"__Host-watchkeeper=wks_[\w-]{43}; HttpOnly; Max-Age=28\d{3}; Path=/; SameSite=strict; Secure",
        secure.headers["set-cookie"],
    )
    assert re.fullmatch(
        r"watchkeeper=wks_[\w-]{43}; HttpOnly; Max-Age=28\d{3}; Path=/; SameSite=strict", plain.headers["set-cookie"]
    )


async def test_a_plain_cookie_counts_on_this_machine_alone(house: OperatorHouse) -> None:
    """Any neighbour under our domain could set such a cookie for us."""
    token = await house.mint("bob")
    session, _ = await house.operators.sign_in(token, previous="", address="here", now=datetime.now(UTC))
    async with house.client() as client:
        answer = await client.get("/incidents", headers={"Cookie": f"watchkeeper={session}"})

    assert answer.status_code == 303


async def test_signing_out_ends_the_session(house: OperatorHouse) -> None:
    """Not only in the browser: the secret itself is worth nothing afterwards."""
    async with house.signed_in("bob") as client:
        session = client.cookies["__Host-watchkeeper"]
        left = await client.post("/sign-out", data={"csrf": csrf_of(session)}, headers=own_form())
        client.cookies.set("__Host-watchkeeper", session)
        after = await client.get("/incidents")

    assert (left.status_code, left.headers["location"]) == (303, "/sign-in")
    assert after.status_code == 303


async def test_signing_in_leads_to_our_own_pages_only(house: OperatorHouse) -> None:
    """The address to go on to came in a link that anybody can write."""
    leads = {
        "/plans/plan-1": "/plans/plan-1",
        "//evil.example.com": "/",
        "https://evil.example.com/": "/",
        "/\\evil.example.com": "/",
        "javascript:alert(1)": "/",
        "/incidents\r\nSet-Cookie: a=b": "/",
        "": "/",
    }
    token = await house.mint("bob")
    async with house.client() as client:
        went = {
            asked: (await client.post("/sign-in", data={"token": token, "next": asked}, headers=own_form())).headers
            for asked in leads
        }

    assert {asked: headers["location"] for asked, headers in went.items()} == leads


async def test_a_link_from_slack_arrives(house: OperatorHouse) -> None:
    """The strict cookie is held back on the first request from another site; the page asks once more by itself."""
    async with house.client() as client:
        answer = await client.get("/plans/plan-1?a=<b>", headers={"Sec-Fetch-Site": "cross-site"})

    assert answer.status_code == 200
    assert 'http-equiv="refresh" content="0; url=/plans/plan-1?a=%3Cb%3E"' in answer.text


async def test_text_from_outside_stays_text(tmp_path: Any) -> None:
    """A title, a cause, a finding, a diff, a service's name with markup or template syntax is shown as it is."""
    async with (
        open_store(f"sqlite:///{tmp_path}/store.sqlite", config_in(tmp_path)) as store,
        operator_house(store) as house,
    ):
        await _hostile(store)
        async with house.signed_in("bob") as client:
            texts = [
                (await client.get(path)).text
                for path in (
                    "/incidents",
                    f"/incidents/{INCIDENT}",
                    "/plans/plan-1",
                    "/audit",
                    f"/audit?subject={EVIL}",
                )
            ]

    for text in texts:
        assert "<script" not in text
        assert "<img src=x" not in text
        assert "\u202e" not in text
        assert "{{7*7}}" in text or "7*7" not in text
        assert "javascript:" not in text
    assert "&lt;script&gt;" in texts[0]
    assert "&lt;script&gt;" in texts[1]


async def _hostile(store: Store) -> None:
    await store.page(title=EVIL, url="javascript:alert(3)", assignees={"P1": EVIL}, service_name=EVIL)
    found = replace(
        FOUND,
        causes=(RankedCause(cause="S04", title=EVIL, probability=0.9, evidence_for=(EVIL,), evidence_against=(EVIL,)),),
        findings=(Finding.bad("prefix_cache", EVIL),),
        suspects=(replace(GUILTY, diff=f"+{EVIL}", reasons=(EVIL,), change=replace(GUILTY.change, summary=EVIL)),),
        next_check=EVIL,
    )
    await diagnosed(store, found)
    await store.offer(fresh_plan(store, title=EVIL))


async def test_the_list_is_filtered_and_paged(house: OperatorHouse) -> None:
    """What is open comes first; odd filters and page numbers show everything, or nothing, but never fail."""
    for number in range(60):
        await house.store.page(
            incident_id=f"QOLD{number:02}", title=f"old {number}", status="resolved", event_id=f"old-{number}"
        )
    async with house.signed_in("alice") as client:
        first, second = (await client.get("/incidents")).text, (await client.get("/incidents?page=2")).text
        opened = (await client.get("/incidents?state=open&service=chat")).text
        odd = [(await client.get(f"/incidents?{query}")).status_code for query in ("page=-1", "page=9e9", "state=%00")]
        beyond = (await client.get("/incidents?page=99999999999999999999")).status_code

    assert first.index("LLMHighTTFT") < first.index("old ")
    assert (first.count('class="title"'), second.count('class="title"')) == (50, 11)
    assert opened.count('class="title"') == 1
    assert (odd, beyond) == ([200, 200, 200], 200)


async def test_the_record_is_searched_and_says_whether_it_holds(house: OperatorHouse) -> None:
    """Rows by subject and by actor, newest first; a row that somebody changed is named."""
    async with house.signed_in("bob") as client:
        whole = (await client.get("/audit")).text
        about = (await client.get(f"/audit?subject={INCIDENT}&actor=pagerduty")).text
        await _tamper(house)
        house.parts.chain.chain_at = None
        broken = (await client.get("/audit")).text

    assert "Unbroken: " in whole
    assert whole.index("signed in to the web page") < whole.index("paged")
    assert "paged" in about
    assert "signed in to the web page" not in about
    assert "Broken at row 1: the row was changed" in broken


async def _tamper(house: OperatorHouse) -> None:
    async with house.store.database.write() as connection:
        for name in ("audit_no_update", "audit_no_delete"):
            await connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")
        await connection.execute(audit.update().where(audit.c.seq == 1).values(actor="somebody else"))
        assert (await connection.execute(sa.select(audit.c.actor).where(audit.c.seq == 1))).scalar_one() != "pagerduty"


async def test_strangers_hear_of_the_state_only_whether_it_is_ready(house: OperatorHouse) -> None:
    """No version, no host, no queue: details are for who signed in, and for this machine itself."""
    async with house.client() as stranger, house.client(await house.mint("bob")) as operator:
        for accept in ("text/html", "application/json"):
            brief = await stranger.get("/statusz", headers={"Accept": accept})
            full = await operator.get("/statusz", headers={"Accept": accept})
            assert "ready" in brief.text
            assert "0.1.0" not in brief.text
            assert "0.1.0" in full.text


async def test_details_for_this_machine_are_not_for_who_comes_through_its_proxy(house: OperatorHouse) -> None:
    """The proxy on the same machine looks local, too; it says so of itself, or keeps the name that people asked for."""
    here = "http://127.0.0.1:8080"
    callers: list[tuple[str, str, dict[str, str], bool]] = [
        ("127.0.0.1", here, {}, True),
        ("127.0.0.1", "http://localhost:8080", {}, True),
        ("127.0.0.1", SITE, {}, False),
        ("127.0.0.1", here, {"X-Forwarded-For": "203.0.113.9"}, False),
        ("127.0.0.1", here, {"Via": "1.1 proxy"}, False),
        ("203.0.113.9", here, {}, False),
    ]
    for address, site, headers, sees in callers:
        async with house.client(address=(address, 5), site=site) as client:
            answer = await client.get("/statusz", headers={"Accept": "application/json", **headers})
        assert ("processes" in answer.json()) is sees, (address, site, headers)
