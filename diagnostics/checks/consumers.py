"""
Who sends the growth: one key, or everybody?

Reads tokens by API key, tenant and model, at the application or else at the gateway. Bad when one key carries 60 % of
a growth by a fifth. Its tokens per request tell a runaway job (longer requests) from many more requests; models and
clients that it never used before are the sign of a leaked key. A growth that many share is traffic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from diagnostics.checks.traffic import REQUESTS
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import NOTHING, CannotTellError, Compared, Look, total
from diagnostics.proportions import ENOUGH_EVENTS, named, summed
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import compared, number

TOKENS = "llm_app_tokens_total"
SPEND_BY_CLIENT = "litellm_spend_metric_total"

_GROWTH = 0.2
_ONE_KEY = 0.6
_NEW_PART = 0.1
_HARDLY = 0.01


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where tokens are counted by consumer: key, tenant and model are labels, in this order."""

    family: str
    metric: str
    labels: tuple[str, str, str]


SOURCES = (
    Source(family="application", metric=TOKENS, labels=("api_key", "tenant", "model")),
    Source(
        family="gateway",
        metric="litellm_total_tokens_metric_total",
        labels=("api_key_alias", "team", "model"),
    ),
)
_KEY, _TENANT, _MODEL = range(3)
_DIMENSIONS = ("api_key", "tenant", "model")


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    source, cells = await tokens_by_consumer(look)
    whole = total(cells)
    position = _KEY if any(key[_KEY] for key in cells) else _TENANT
    consumers = {key[0]: cell for key, cell in summed(cells, position).items() if key[0]}
    if not whole.baseline or whole.gain is None:
        raise CannotTellError("no tokens were counted in the baseline, so no growth can be shared out")
    if len(consumers) < 2 or whole.gain < _GROWTH * whole.baseline:
        return Finding.ok("consumers", f"Tokens per second: {compared(whole)}; no growth to share out.")
    gains = {name: (cell.now or 0.0) - (cell.baseline or 0.0) for name, cell in consumers.items()}
    top = max(gains, key=lambda name: gains[name])
    carried = min(gains[top] / whole.gain, 1.0)
    normal = (consumers[top].baseline or 0.0) / whole.baseline
    measures = [
        Measure(signal="top_key_growth_share", value=carried, baseline=normal, unit="ratio"),
        Measure(signal="growing_consumers", value=_effective(gains), unit="consumers"),
    ]
    name = _DIMENSIONS[position]
    if carried < _ONE_KEY:
        said = f"{_effective(gains):.0f} of {len(consumers)} {name}s share a growth of the tokens: {compared(whole)}/s."
        return Finding.ok("consumers", said, *measures)
    own = {key: cell for key, cell in cells.items() if key[position] == top}
    places = [(name, top)]
    if position == _KEY:
        places += [("tenant", key[_TENANT]) for key in own if key[_TENANT]][:1]
    measures += [
        Measure(signal="top_key_growth_share", value=carried, baseline=normal, unit="ratio", scope=(place,))
        for place in places
    ]
    said, more = await _portrait(look, source, position, top, own)
    sentence = f"{name} {top} carries {number(carried, 'ratio')} of the growth in tokens{said}."
    return Finding.bad("consumers", sentence, *measures, *more)


async def tokens_by_consumer(look: Look) -> tuple[Source, dict[Key, Compared]]:
    """Tokens per second by key, tenant and model, from the first source that tells consumers apart."""
    for source in SOURCES:
        if source.family in look.target.selectors:
            cells = named(await look.rates(source.metric, source.family, by=source.labels))
            if any(key[_KEY] or key[_TENANT] for key in cells):
                return source, cells
    raise CannotTellError(f"no tokens are counted by key or tenant: neither {SOURCES[0].metric} nor the gateway's")


async def _portrait(
    look: Look, source: Source, position: int, name: str, own: Mapping[Key, Compared]
) -> tuple[str, list[Measure]]:
    """What else is known of the consumer that grows: its requests' length, its models, its clients."""
    requests, per_request, clients = await asyncio.gather(
        _requests_of(look, source, position, name),
        _tokens_per_request(look, source, position, name, total(own)),
        _new_clients(look, name),
    )
    where = (_DIMENSIONS[position], name)
    said, measures = "", []
    if requests != NOTHING:
        measures.append(measure("key_requests_per_s", requests, "1/s"))
    if per_request != NOTHING:
        measures.append(measure("key_tokens_per_request", per_request, "tokens"))
        said += f"; its requests have {compared(per_request, 'tokens')}"
    models = _newcomers({key: cell for key, cell in summed(own, _MODEL).items() if key[0]})
    if any(key[_MODEL] for key in own):
        measures.append(Measure(signal="key_new_models", value=float(bool(models)), baseline=0.0))
    if models:
        said += f"; it never used {', '.join(models)} before"
        measures.append(Measure(signal="key_new_models", value=1.0, baseline=0.0, scope=(where,)))
    if clients is not None:
        measures.append(Measure(signal="key_new_clients", value=float(bool(clients)), baseline=0.0))
        said += f"; {len(clients)} of its clients are new" if clients else "; its clients are known"
    return said, measures


async def _requests_of(look: Look, source: Source, position: int, name: str) -> Compared:
    """Requests per second of one consumer: more of them is another matter than longer ones."""
    if source.family != "application":
        return NOTHING
    return summed(await _requests(look), position).get((name,), NOTHING)


async def _tokens_per_request(look: Look, source: Source, position: int, name: str, tokens: Compared) -> Compared:
    """Tokens per request of one consumer; without a past of its own, the baseline is the service's."""
    if source.family != "application":
        return NOTHING
    requests = summed(await _requests(look), position)
    own, everybody = requests.get((name,), NOTHING), total(requests)
    if (own.now or 0.0) * look.frame.recent.total_seconds() < ENOUGH_EVENTS:
        return NOTHING
    has_past = (own.baseline or 0.0) * look.baseline_window.total_seconds() >= ENOUGH_EVENTS
    past = Compared(now=tokens.baseline, baseline=own.baseline) if has_past else await _past_of_all(look, everybody)
    return Compared(
        now=None if tokens.now is None or not own.now else tokens.now / own.now,
        baseline=None if past.now is None or not past.baseline else past.now / past.baseline,
    )


async def _requests(look: Look) -> dict[Key, Compared]:
    cells = await look.rates(REQUESTS, "application", by=("api_key", "tenant", "status"))
    return summed(cells, 0, 1)


async def _past_of_all(look: Look, requests: Compared) -> Compared:
    _, cells = await tokens_by_consumer(look)
    return Compared(now=total(cells).baseline, baseline=requests.baseline)


async def _new_clients(look: Look, name: str) -> list[str] | None:
    """Addresses and programs that spend with this key now and hardly did before; None where no label tells them."""
    if "gateway" not in look.target.selectors:
        return None
    by = ("api_key_alias", "client_ip", "user_agent")
    cells = await look.rates(SPEND_BY_CLIENT, "gateway", by=by)
    own = {key[1:]: cell for key, cell in cells.items() if key[0] == name and any(key[1:])}
    if not own or total(own).baseline is None:
        return None
    return _newcomers(own)


def _newcomers(cells: Mapping[Key, Compared]) -> list[str]:
    """Those that carry a tenth now and hardly anything before; none without a past."""
    whole = total(cells)
    if not whole.now or not whole.baseline:
        return []
    return sorted(
        " ".join(part for part in key if part)
        for key, cell in cells.items()
        if (cell.now or 0.0) >= _NEW_PART * whole.now and (cell.baseline or 0.0) < _HARDLY * whole.baseline
    )


def _effective(gains: Mapping[str, float]) -> float:
    """How many consumers share the growth as if evenly: one over the sum of the squared shares."""
    grown = [gain for gain in gains.values() if gain > 0]
    return sum(grown) ** 2 / sum(gain**2 for gain in grown) if grown else 0.0
