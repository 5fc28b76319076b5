"""A diagnosis on a terminal: tables with bars where somebody looks, plain lines where a program reads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bot import narrate
from bot.diagnose import Answer, bad_in, in_words, suspects_in
from bot.redact import safe_text

_BAR = 20
_WORTH_A_REASON = 0.02
_MOST_DIFF_LINES = 14
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def show(answer: Answer, out: TextIO) -> None:
    """Print it as `out` likes it."""
    if out.isatty():
        Console(file=out).print(tables(answer))
    else:
        print(in_words(answer), file=out)


def tables(answer: Answer) -> Group:
    """The same as in words, for eyes; every word from outside is text without markup and control characters."""
    return Group(*_parts(answer))


def _parts(answer: Answer) -> Iterator[RenderableType]:
    yield Panel(_verdict(answer), title=_text(answer["service"]), title_align="left")
    yield _causes(answer)
    if bad := bad_in(answer):
        yield _grid("What is bad", (_text(finding["summary"]) for finding in bad))
    for suspect in suspects_in(answer)[:3]:
        yield _suspect(suspect, is_culprit=suspect["change"] == answer["culprit_change"])
    if answer["blind_spots"]:
        spots = (Text.assemble((f"{spot['check']}: ", "bold"), _text(spot["why"])) for spot in answer["blind_spots"])
        yield _grid("Not checked", spots)
    if answer.get("next_check"):
        yield _grid("Check next", [_text(answer["next_check"])])


def _verdict(answer: Answer) -> Text:
    first = answer["causes"][0]
    felt = "users notice" if answer["user_impact"] else "users do not notice"
    lines = [
        Text.assemble(
            _text(first.get("title") or first["cause"], "bold"), f" ({narrate.how_sure(first['probability'])})"
        ),
        _text(f"at {_clock(answer['at'])}, since {_clock(answer.get('since'))}: {felt}"),
    ]
    if scope := answer.get("scope"):
        lines.append(_text(f"where: {scope['dimension']} {', '.join(scope['values'])}".rstrip()))
    if (impact := answer.get("impact")) and impact["sentence"]:
        lines.append(_text(f"who is hurt: {impact['sentence']}"))
    return Text("\n").join(lines)


def _causes(answer: Answer) -> Table:
    table = Table.grid(padding=(0, 2))
    table.title, table.title_justify = "\nWhat it may be", "left"
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for cause in answer["causes"][:3]:
        share = cause["probability"]
        bar = Text(f"{share:4.0%} {'█' * round(share * _BAR):<{_BAR}}", "cyan")
        lines = [Text.assemble((f"{cause['cause']} ", "bold"), _text(cause.get("title", "")))]
        if share >= _WORTH_A_REASON:
            lines += [_text(f"+ {fact}", "green") for fact in cause.get("for", ())]
            lines += [_text(f"- {fact}", "red") for fact in cause.get("against", ())]
        table.add_row(bar, Text("\n").join(lines))
    return table


def _suspect(suspect: Answer, *, is_culprit: bool) -> Table:
    lines = [_text(f"{_clock(suspect['at'])}  {suspect['summary']}", "bold" if is_culprit else "")]
    lines += [_text(f"• {reason}") for reason in suspect["reasons"]]
    diff = suspect["diff"].splitlines()
    lines += [_text(line, _DIFF_STYLES.get(line[:1], "dim")) for line in diff[:_MOST_DIFF_LINES]]
    if len(diff) > _MOST_DIFF_LINES:
        lines.append(Text(f"… ({len(diff) - _MOST_DIFF_LINES} more lines)", "dim"))
    return _grid("Suspected change" if is_culprit else "Another change", lines)


def _grid(title: str, lines: Any) -> Table:
    table = Table.grid(padding=(0, 1))
    table.title, table.title_justify = f"\n{title}", "left"
    for line in lines:
        table.add_row(line)
    return table


def _clock(instant: str | None) -> str:
    return f"{datetime.fromisoformat(instant):%Y-%m-%d %H:%M} UTC" if instant else "an unknown time"


def _text(words: str, style: str = "") -> Text:
    return Text(safe_text(words), style=style)
