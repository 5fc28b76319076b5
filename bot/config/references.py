"""Whether the entries of a configuration fit each other: names that exist, keys that are unique."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

from bot.config.automatic import unfit_actions
from bot.config.bounds import Limit
from bot.config.entries import PROMPTS, TELEMETRY, TRACES, Datasource, Person, PolicyRule, Service
from bot.config.errors import Problem, did_you_mean
from bot.config.lines import TomlPath
from bot.config.trust import BreakGlass, RoleSource

Entries = Mapping[str, Mapping[int, Any]]
"""The entries that are right for themselves: kind -> position in the file -> value."""


NAMED_BY = {
    "datasource": "name",
    "cluster": "name",
    "gateway": "name",
    "engine": "name",
    "vector_store": "name",
    "secret_store": "name",
    "http_endpoint": "name",
    "command": "name",
    "workflow": "name",
    "automation_action": "name",
    "service": "name",
    "person": "id",
}
"""The key of each kind of entry that others refer to it by."""


def misfits(entries: Entries, names: Mapping[str, frozenset[str]]) -> Iterator[Problem]:
    """
    Every reference to nothing and every key used twice.

    `names` holds the names of all entries, also of those that have faults of their own, so that one mistake is
    reported once.
    """
    yield from _repeated(entries)
    for position, service in entries["service"].items():
        yield from _service(service, ("service", position), entries["datasource"], names)
    for kind in ("engine", "vector_store", "secret_store"):
        for position, entry in entries[kind].items():
            for number, service in enumerate(entry.services):
                yield from _known(service, (kind, position, "services", number), "service", names["service"])
    for kind in ("policy", "limit", "break_glass", "role_source"):
        for position, rule in entries[kind].items():
            yield from _rule(rule, (kind, position), names["service"])
    for position, freeze in entries["freeze"].items():
        for number, service in enumerate(freeze.services):
            yield from _known(service, ("freeze", position, "services", number), "service", names["service"])
    yield from _teams(entries)
    yield from unfit_actions(entries)


def _service(
    service: Service, at: TomlPath, sources: Mapping[int, Datasource], names: Mapping[str, frozenset[str]]
) -> Iterator[Problem]:
    kinds = {source.name: source.kind for source in sources.values()}
    if service.datasource is not None:
        yield from _known(service.datasource, (*at, "datasource"), "datasource", names["datasource"])
        if kinds.get(service.datasource, "prometheus") not in TELEMETRY:
            yield Problem(
                path=(*at, "datasource"),
                what=f"datasource {service.datasource} is of kind {kinds[service.datasource]} and has no metrics",
                remedy="name one of kind prometheus or recorder",
            )
    for kind in ("cluster", "gateway"):
        if (name := getattr(service, kind)) is not None:
            yield from _known(name, (*at, kind), kind, names[kind])
    yield from _prompts(service, at, kinds, names)
    yield from _changes(service, at, kinds, names)
    yield from _traces(service, at, kinds, names)
    if service.retrieval is not None:
        yield from _known(service.retrieval.store, (*at, "retrieval", "store"), "vector_store", names["vector_store"])
    for number, person in enumerate(service.owners):
        yield from _known(person, (*at, "owners", number), "person", names["person"])
    for role, people in service.approvers.items():
        for number, person in enumerate(people):
            yield from _known(person, (*at, "approvers", role, number), "person", names["person"])


def _prompts(
    service: Service, at: TomlPath, kinds: Mapping[str, str], names: Mapping[str, frozenset[str]]
) -> Iterator[Problem]:
    for number, prompt in enumerate(service.prompts):
        if prompt.source is None:
            continue
        path = (*at, "prompts", number, "source")
        yield from _known(prompt.source, path, "datasource", names["datasource"])
        if kinds.get(prompt.source, "git") not in PROMPTS:
            yield Problem(
                path=path,
                what=f"datasource {prompt.source} is of kind {kinds[prompt.source]} and knows no prompts",
                remedy=f"name one of kind {', '.join(sorted(PROMPTS))}, which do",
            )


def _changes(
    service: Service, at: TomlPath, kinds: Mapping[str, str], names: Mapping[str, frozenset[str]]
) -> Iterator[Problem]:
    for number, name in enumerate(service.changes):
        path = (*at, "changes", number)
        yield from _known(name, path, "datasource", names["datasource"])
        if kinds.get(name) in PROMPTS | TELEMETRY:
            yield Problem(
                path=path,
                what=f"datasource {name} is of kind {kinds[name]}, whose changes are found by themselves",
                remedy="name it as a prompt's source or as the service's datasource, and leave it out here",
            )
        if kinds.get(name) in TRACES:
            yield Problem(
                path=path,
                what=f"datasource {name} is of kind {kinds[name]} and knows no changes",
                remedy="name it in [service.traces]",
            )


def _traces(
    service: Service, at: TomlPath, kinds: Mapping[str, str], names: Mapping[str, frozenset[str]]
) -> Iterator[Problem]:
    if service.traces is None:
        return
    path = (*at, "traces", "source")
    yield from _known(service.traces.source, path, "datasource", names["datasource"])
    if kinds.get(service.traces.source, "tempo") not in TRACES:
        yield Problem(
            path=path,
            what=f"datasource {service.traces.source} is of kind {kinds[service.traces.source]} and has no traces",
            remedy="name one of kind tempo or jaeger",
        )


def _rule(
    rule: PolicyRule | Limit | BreakGlass | RoleSource, at: TomlPath, services: frozenset[str]
) -> Iterator[Problem]:
    if rule.service != "*":
        yield from _known(rule.service, (*at, "service"), "service", services)


def _teams(entries: Entries) -> Iterator[Problem]:
    """Somebody of another team can approve only where it is known whose the service is."""
    for position, rule in entries["policy"].items():
        if not (rule.other_team or rule.tier == "R3"):
            continue
        for service in entries["service"].values():
            concerns = rule.service in ("*", service.name) and rule.environment in ("*", service.environment)
            if concerns and not service.team:
                yield Problem(
                    path=("policy", position),
                    what=f"it asks for somebody of another team, and service {service.name} has no team",
                    remedy=f'write team = "NAME" for {service.name} and for the people who approve',
                )


def _known(name: str, path: TomlPath, kind: str, known: frozenset[str]) -> Iterator[Problem]:
    if name not in known:
        yield Problem(
            path=path,
            what=f"there is no {kind} {name!r}",
            remedy=did_you_mean(name, known, f"add a [[{kind}]] entry with that {NAMED_BY[kind]}"),
        )


def _repeated(entries: Entries) -> Iterator[Problem]:
    for kind, key in NAMED_BY.items():
        yield from _unique(((kind, at, key), getattr(entry, key)) for at, entry in entries[kind].items())
    yield from _unique(
        (("service", at, "pagerduty_service"), service.pagerduty_service) for at, service in entries["service"].items()
    )
    people: Mapping[int, Person] = entries["person"]
    yield from _unique((("person", at, "pagerduty"), each.pagerduty) for at, each in people.items())
    yield from _unique((("person", at, "email"), each.email and each.email.lower()) for at, each in people.items())
    yield from _unique(
        (("person", at, "slack", number), slack)
        for at, each in people.items()
        for number, slack in enumerate(each.slack)
    )


def _unique(values: Iterable[tuple[TomlPath, Hashable | None]]) -> Iterator[Problem]:
    first: dict[Hashable, TomlPath] = {}
    for path, value in values:
        if value is None:
            continue
        if value in first:
            kind, number = first[value][:2]
            yield Problem(
                path=path,
                what=f"{value!r} is already used by {kind} number {int(number) + 1}",
                remedy="each may be used once, or nobody could say who is meant",
            )
        first.setdefault(value, path)


def metrics_sources(sources: Iterable[Datasource]) -> tuple[str, ...]:
    """The datasources that a service can be diagnosed with."""
    return tuple(source.name for source in sources if source.kind in TELEMETRY)
