"""What an operator's command line says to the server: one request per deed, refusals in the server's own words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx

from bot.incidents import NotFoundError, WatchkeeperError
from bot.redact import safe_text

TIMEOUT_S = 15.0
Json = Mapping[str, Any]


class OperatorClient:
    """Speaks for the bearer of a token; never to the database, so that the same desk decides as for everybody."""

    def __init__(self, url: str, token: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}", "User-Agent": "watchkeeper"},
            timeout=TIMEOUT_S,
            follow_redirects=False,  # a redirect could carry the token elsewhere
            transport=transport,
        )

    def incidents(self) -> Json:
        """The open incidents."""
        return self._ask("GET", "/api/incidents")

    def show(self, thing: str) -> Json:
        """A plan, or else an incident, by its id."""
        try:
            return self.plan(thing)
        except NotFoundError:
            return self.incident(thing)

    def incident(self, incident_id: str) -> Json:
        """An incident with its evidence, fixes, timeline and what resembles it."""
        return self._ask("GET", f"/api/incidents/{quote(incident_id, safe='')}")

    def plan(self, plan_id: str) -> Json:
        """One plan with its hash, and why the bearer may not decide on it."""
        return self._ask("GET", f"/api/plans/{quote(plan_id, safe='')}")

    def approve(self, plan_id: str, digest: str, code: str | None = None) -> Json:
        """Approve exactly the plan with this hash, with a one-time code where it needs one."""
        said = {"digest": digest} | ({"code": code} if code is not None else {})
        return self._ask("POST", f"/api/plans/{quote(plan_id, safe='')}/approve", json=said)

    def break_glass(self, plan_id: str, digest: str, reason: str, code: str) -> Json:
        """Start exactly the plan with this hash alone."""
        said = {"digest": digest, "reason": reason, "code": code}
        return self._ask("POST", f"/api/plans/{quote(plan_id, safe='')}/break-glass", json=said)

    def deny(self, plan_id: str, digest: str) -> Json:
        """Refuse exactly the plan with this hash."""
        return self._ask("POST", f"/api/plans/{quote(plan_id, safe='')}/deny", json={"digest": digest})

    def revoke(self, plan_id: str, digest: str) -> Json:
        """Take back the approval of exactly the plan with this hash."""
        return self._ask("POST", f"/api/plans/{quote(plan_id, safe='')}/revoke", json={"digest": digest})

    def narrow(self, plan_id: str, values: Mapping[str, str], digest: str) -> Json:
        """Give the parameters of exactly the plan with this hash other values."""
        body = {"digest": digest, "values": dict(values)}
        return self._ask("POST", f"/api/plans/{quote(plan_id, safe='')}/narrow", json=body)

    def stop(self, reason: str) -> Json:
        """Stop everything."""
        return self._ask("POST", "/api/stop", json={"reason": reason})

    def go(self) -> Json:
        """End that."""
        return self._ask("POST", "/api/go")

    def ranking(self, digest: str) -> Json:
        """A learned ranking that was offered under this hash."""
        return self._ask("GET", f"/api/ranking/{quote(digest, safe='')}")

    def adopt_ranking(self, digest: str) -> Json:
        """Let it count."""
        return self._ask("POST", f"/api/ranking/{quote(digest, safe='')}/adopt")

    def roll_back_ranking(self) -> Json:
        """Let what counted before count again."""
        return self._ask("POST", "/api/ranking/rollback")

    def _ask(self, method: str, path: str, **more: Any) -> Json:
        """Raises WatchkeeperError in a sentence, NotFoundError for a 404."""
        try:
            response = self._http.request(method, path, **more)
            body = response.json()
        except httpx.HTTPError as error:
            raise WatchkeeperError(f"{self._url} cannot be reached: {type(error).__name__}") from error
        except ValueError as error:
            raise WatchkeeperError(
                f"{self._url} does not answer like Watchkeeper (status {response.status_code})"
            ) from error
        if response.is_success and isinstance(body, Mapping):
            return body
        said = safe_text(str(body.get("error", ""))) if isinstance(body, Mapping) else ""
        if response.status_code == 404 and said:
            raise NotFoundError(said)
        if response.status_code == 401:
            raise WatchkeeperError("this token does not count: it is mistyped, expired or revoked")
        raise WatchkeeperError(said or f"{self._url} answered {response.status_code}")


def incidents_in_words(answer: Json) -> str:
    """One line per incident."""
    lines = [f"{each['id']}  {each['state']:<12}  {each['service']}: {each['title']}" for each in answer["incidents"]]
    more = ["... and more; see the web page"] if answer["more"] else []
    return safe_text("\n".join([*lines, *more]) or "no open incidents")


def thing_in_words(answer: Json) -> str:
    """A plan or an incident for a terminal, without characters that a terminal would obey."""
    lines = plan_lines(answer) if "digest" in answer else _incident_lines(answer)
    return safe_text("\n".join(lines))


def seen_in_words(answer: Json, *, explain: bool) -> str:
    """What resembles an incident, one line each; with `explain` also why, and how much."""
    if answer.get("seen") is None:
        return "not compared yet: a process that works does that within seconds of a verdict"
    lines = []
    for seen in answer["seen"]:
        lines.append(f"{seen['id']}  {seen['sentence']}: {seen['title']}")
        if explain:
            lines.append(f"      {seen['score']:.0%}: {'; '.join(seen['reasons'])}")
            lines.append(
                f"      {seen['cause_title'] or 'no cause found'}, {seen['service']}, {seen['began'][:16]} UTC"
            )
    return safe_text("\n".join(lines) or "no past incident resembles it")


def plan_lines(plan: Json) -> Iterator[str]:
    """Everything that somebody has to know before they decide."""
    yield f"{plan['id']}  {plan['title']}: {plan['state_in_words']}"
    if plan["why"]:
        yield f"  why        {plan['why']}"
    yield f"  service    {plan['service']} ({plan['environment']}), incident {plan['incident']}"
    for name, value in plan["params"].items():
        yield f"  with       {name} = {json.dumps(value, ensure_ascii=False)}"
    for effect, undo in zip(plan["effects"], plan["undo"], strict=True):
        yield f"  effect     {effect}"
        yield f"  undo       {undo or 'it cannot be undone'}"
    if plan["on_failure"]:
        yield f"  on failure {plan['on_failure']}"
    yield f"  risk       {plan['tier']}, {plan['tier_in_words']}"
    yield f"  approval   {plan['needed']} of: {'; '.join(plan['may_approve'])}"
    if plan["needs_code"]:
        yield "  code       each of them gives a one-time code"
    if plan["approved_by"]:
        yield f"  so far     {', '.join(plan['approved_by'])}"
    yield f"  expires    {plan['expires_at']}"
    yield f"  hash       {plan['digest']}"


def _incident_lines(incident: Json) -> Iterator[str]:
    yield f"{incident['id']}  {incident['service']}: {incident['title']} ({incident['state']})"
    yield f"  since      {incident['since'] or 'unknown'}"
    if incident.get("stopped"):
        yield f"  stopped    {incident['stopped']}"
    for cause in incident["causes"][:3]:
        yield f"  {cause['probability']:4.0%}       {cause['title']} ({cause['cause']})"
        yield from (f"             for: {fact}" for fact in cause["for"])
        yield from (f"             against: {fact}" for fact in cause["against"])
    yield from (f"  trouble    {trouble}" for trouble in incident["troubles"])
    for plan in incident["plans"]:
        yield f"  fix        {plan['id']} {plan['state']}: {' '.join(plan['effects'])}"
    for moment in incident["timeline"]:
        yield f"  {moment['at'][:19]}  {moment['who']} {moment['what']}"
