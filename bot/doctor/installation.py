"""Is this our program, with all its parts, and are its settings whole?"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import bot
from bot.config import Config
from bot.doctor.advice import Advice
from bot.library import faults
from bot.settings import Settings

_ROOMS = ("diagnostics", "retrieval", "runbooks")


async def examine(settings: Settings, config: Config) -> list[Advice]:
    return [_program(), *_settings(settings, config), *_credentials(settings, config), _runbooks(config)]


def _program() -> Advice:
    """`bot` is a common name: another package of that name in front of ours would run instead."""
    home = Path(bot.__file__).resolve().parent.parent
    strangers = [room for room in _ROOMS if _home_of(room) != home]
    version = ".".join(map(str, sys.version_info[:3]))
    if strangers:
        return Advice.bad(
            "program",
            f"{', '.join(strangers)} do not come from {home}, where `bot` does",
            "install Watchkeeper in a virtual environment of its own",
        )
    return Advice.ok("program", f"Watchkeeper in {home}, Python {version}")


def _home_of(package: str) -> Path | None:
    found = importlib.util.find_spec(package)
    return Path(found.origin).resolve().parent.parent if found and found.origin else None


def _settings(settings: Settings, config: Config) -> list[Advice]:
    missing = settings.missing_for_serving()
    if not missing:
        return [Advice.ok("settings", f"everything to serve is set; {config.summary}")]
    return [Advice.bad("settings", line.partition(": ")[0], line.partition(": ")[2]) for line in missing]


def _credentials(settings: Settings, config: Config) -> list[Advice]:
    missing = settings.missing_credentials(config.credentials())
    if missing:
        return [Advice.bad("credentials", line.partition(": ")[0], line.partition(": ")[2]) for line in missing]
    return [Advice.ok("credentials", f"all {len(config.credentials())} that watchkeeper.toml names are set")]


def _runbooks(config: Config) -> Advice:
    paths = [folder.path for folder in config.runbooks]
    gone = [str(path) for path in paths if not path.is_dir()]
    if gone:
        return Advice.bad("runbooks", f"there is no folder {', '.join(gone)}", "correct [[runbooks]] path")
    count, problems = faults(paths) if paths else (0, [])
    if problems:
        return Advice.bad(
            "runbooks", f"{len(problems)} problems, the first: {problems[0]}", "run `watchkeeper runbook lint FOLDER`"
        )
    return Advice.ok("runbooks", f"{count} of your own, beside the shipped ones")
