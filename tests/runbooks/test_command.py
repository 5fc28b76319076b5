"""Running a command: the literal command line and nothing else, to the end of its time and of its whole tree."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runbooks.engine.actions.command import CommandAccess, CommandParams, RunCommand
from runbooks.engine.actions.command_line import faults, filled
from runbooks.engine.actions.subtree import Order, run_subtree
from runbooks.engine.values import (
    ActionError,
    Happened,
    OutcomeUnknownError,
    PartlyDoneError,
    PatientAction,
    Tier,
    TieredAction,
)

PATTERNS = {
    "name": "[a-z0-9-]{1,40}",
    "number": "[0-9]{1,5}",
    "path": "/[a-zA-Z0-9/._-]{1,80}",
    "choice": "on|off",
    "option": "--[a-z-]{1,20}(=.{0,40})?",
    "anything": "(?s:.{0,300})",
}
NASTY = (
    ";", "|", "&", "&&", "$(", ")", "`", "$IFS", "${HOME}", ">", "<", "\n", "\r", "\0", "\x1b[2J", "'", '"', "\\",
    "*", "?", "~", "!", "#", "-", "--", "-rf", "--help", "/", "..", "/etc/passwd", "%s", "%n", "{name}", "{", "}",
    "@file", "=", " ", "\t", "\u2028", "\u202e", "\uff0d", "\u2013", "on", "off", "chat", "7", "rm", "sh", "-c",
    "e\u0301", "\U0001f600",
)  # fmt: skip


def hostile(count: int) -> list[str]:
    """Different values: what shells, terminals and options are sensitive to, in any order, and any other characters."""
    rng = random.Random(count)
    found: set[str] = set()
    while len(found) < count:
        nasty = "".join(rng.choices(NASTY, k=rng.randint(1, 6)))
        other = "".join(
            chr(rng.choice((rng.randrange(0x250), rng.randrange(0xD800)))) for _ in range(rng.randrange(20))
        )
        found.add(rng.choice((nasty, other, nasty + other, other + nasty)))
    return sorted(found)


@pytest.mark.parametrize("kind", PATTERNS)
def test_a_hostile_value_is_one_literal_element_or_refused(kind: str) -> None:
    """Four thousand values for each kind of pattern: never a second element, an option, a line break or NUL."""
    argv = ("/usr/bin/tool", "--for", "{name}", "last")
    for value in hostile(4000):
        try:
            line = filled(argv, {"name": PATTERNS[kind]}, {"name": value})
        except ValueError:
            continue
        assert line == ("/usr/bin/tool", "--for", value, "last")
        assert re.fullmatch(PATTERNS[kind], value)
        assert not value.startswith("-") or kind == "option"
        assert not set(value) & set("\0\n\r\u2028")


@pytest.mark.integration
async def test_the_program_sees_the_literal_elements() -> None:
    """Two thousand hostile values that the freest pattern lets in, as a program finds them in its own argv."""
    values: list[str] = []
    for value in hostile(8000):
        with contextlib.suppress(ValueError):
            values += filled(("{name}",), {"name": PATTERNS["anything"]}, {"name": value})

    assert len(values) >= 2000
    for start in range(0, 2000, 200):
        sent = values[start : start + 200]
        ended = await run_subtree(Order(argv=("/usr/bin/printf", "%s\\0", *sent), environment={}, timeout_s=20))
        assert ended.head.decode().split("\0")[:-1] == sent


@pytest.mark.parametrize(
    ("argv", "arguments", "problem"),
    [
        (["tool"], {}, "not an absolute path"),
        (["{program}"], {"program": "/.*"}, "not an absolute path"),
        (["/bin/tool", ""], {}, "is no argument"),
        (["/bin/tool", "a\nb"], {}, "is no argument"),
        (["/bin/tool", "--for={name}"], {"name": "a"}, "is not a whole element"),
        (["/bin/tool", "{name}"], {}, "nobody says what {name} may be"),
        (["/bin/tool"], {"name": "a"}, "the argument name is not in argv"),
        (["/bin/bash", "-ec", "echo {name}"], {"name": "a"}, "is not a whole element"),
        (["/bin/sh", "-c", "{name}"], {"name": "a"}, "would read a filled placeholder as a script"),
    ],
)
def test_a_line_that_cannot_be_trusted_is_refused(argv: list[str], arguments: dict[str, str], problem: str) -> None:
    """In the configuration already, with what is wrong and what to write instead."""
    found = list(faults(argv, arguments))

    assert problem in found[0][0]
    assert found[0][1]


def test_braces_that_are_no_placeholder_stay() -> None:
    """JSON and Go templates among the literals."""
    argv = ["/usr/bin/tool", '{"a": 1}', "--format={{.Name}}", "{name}"]

    assert list(faults(argv, {"name": "a"})) == []
    assert filled(argv, {"name": "a"}, {"name": "a"})[1:3] == ('{"a": 1}', "--format={{.Name}}")


def shell(script: str, **options: object) -> RunCommand:
    """A command whose script stands in the configuration, as an operator's would."""
    access = CommandAccess(argv=("/bin/sh", "-c", script), **options)  # type: ignore[arg-type]
    return RunCommand({"it": access}, lambda text: text)


async def acted(command: RunCommand) -> str:
    params = CommandParams(command="it")
    answer = await command.act(params, await command.read(params), "t")
    return str(answer["output"])


async def test_what_is_shown_is_what_runs() -> None:
    """The sentence is the whole command line as a shell would need it; it is frozen with the plan."""
    access = CommandAccess(argv=("/bin/echo", "--", "{word}"), arguments={"word": "[a-z ']+"}, tier=Tier.R2)
    command = RunCommand({"say": access}, lambda text: text)
    params = CommandParams(command="say", arguments={"word": "it's me"})
    before = await command.read(params)

    assert before == {"argv": ["/bin/echo", "--", "it's me"]}
    assert command.effect(params, before) == """Runs this on Watchkeeper's machine: /bin/echo -- 'it'"'"'s me'"""
    with pytest.raises(ActionError, match="another one by now"):
        await command.act(params, {"argv": ["/bin/echo", "--", "other"]}, "t")


def test_the_tier_and_the_patience_are_the_operators() -> None:
    """A command that the configuration does not have counts as the worst."""
    command = RunCommand({"it": CommandAccess(argv=("/bin/true",), tier=Tier.R1, timeout_s=300)}, str)

    assert isinstance(command, TieredAction)
    assert isinstance(command, PatientAction)
    assert command.tier_of(CommandParams(command="it")) is Tier.R1
    assert command.tier_of(CommandParams(command="other")) is Tier.R3
    assert command.patience_s(CommandParams(command="it")) > 300


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"command": "other"}, "no command other"),
        ({"command": "say"}, "argument word is missing"),
        ({"command": "say", "arguments": {"word": "a", "more": "b"}}, "takes no argument more"),
        ({"command": "say", "arguments": {"word": "A"}}, "does not match"),
        ({"command": "say", "arguments": {"word": "-a"}}, "starts with a dash"),
        ({"command": "say", "arguments": {"word": "a\n"}}, "line break"),
        ({"command": "say", "arguments": {"word": "hidden"}}, "cannot be shown"),
        ({"command": "say", "arguments": {"word": "a" * 2000}}, "more than 2000 characters"),
    ],
)
async def test_what_is_not_allowed_cannot_be_planned(params: dict[str, object], why: str) -> None:
    """Reading refuses, so there is no plan."""
    access = CommandAccess(argv=("/bin/echo", "{word}"), arguments={"word": "[a-z-]+"})
    command = RunCommand({"say": access}, lambda text: text.replace("hidden", "[redacted]"))

    with pytest.raises(ActionError, match=why):
        await command.read(CommandParams.model_validate(params))


async def test_nobody_can_say_what_an_interrupted_command_did() -> None:
    """The probe never claims to know, and there is no undo."""
    command = shell("exit 0")

    assert await command.happened(CommandParams(command="it"), {}, "t") is Happened.CANNOT_TELL
    assert command.undo(CommandParams(command="it"), {}) is None
    assert not command.can_undo


@pytest.mark.integration
class TestRun:
    """Real processes."""

    async def test_it_gets_nothing_but_what_was_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not our environment, not our folder, not our input; its home and its folder are new and gone afterwards."""
        monkeypatch.setenv("SLACK_BOT_TOKEN", "ours")
        output = await acted(shell("env; pwd; cat; ls -A; umask", environment={"CACHE_TOKEN": "s3cr3t-value"}))
        names = {line.partition("=")[0] for line in output.removeprefix("It wrote: ").splitlines() if "=" in line}

        assert names == {"PATH", "LANG", "HOME", "PWD", "CACHE_TOKEN"}
        assert "PATH=/usr/bin:/bin\n" in output
        folder = next(line for line in output.splitlines() if line.startswith("/") and line.endswith("/work"))
        assert not Path(folder).parent.exists()
        assert output.endswith("0077")

    async def test_its_credentials_are_hidden_in_what_it_wrote(self) -> None:
        """Literally, also as part of an address."""
        output = await acted(shell('echo "a $T b https://x/?t=c%2Fd%3De"', environment={"T": "c/d=e"}))

        assert output == "It wrote: a [redacted] b https://x/?t=[redacted]"

    async def test_output_that_is_no_text_is_shown_as_far_as_it_goes(self) -> None:
        """Bytes that are no UTF-8 break nothing."""
        assert await acted(shell(r"printf 'a\377\000b'")) == "It wrote: a\ufffd\x00b"

    async def test_of_much_output_the_beginning_and_the_end_are_kept(self) -> None:
        """What is between them is counted by nobody."""
        output = await acted(shell("echo first; yes | head -c 2000000; echo last"))

        assert output.startswith("It wrote: first\ny")
        assert output.endswith("y\nlast")
        assert len(output) < 1600

    async def test_an_exit_status_is_a_failure_that_says_what_was_written(self) -> None:
        """And does not claim that nothing was changed."""
        with pytest.raises(PartlyDoneError, match=r"exit status 3; what it had done .* stays done. It wrote: oh"):
            await acted(shell("echo oh >&2; exit 3"))
        with pytest.raises(ActionError, match="signal 9"):
            await acted(shell("kill -9 $$"))

    async def test_a_program_that_is_not_there_changed_nothing(self) -> None:
        """That is certain, so it says so."""
        command = RunCommand({"it": CommandAccess(argv=("/no/such/program",))}, str)

        with pytest.raises(ActionError, match=r"cannot be started .No such file or directory.: nothing was changed"):
            await acted(command)

    async def test_too_long_is_an_unknown_outcome(self) -> None:
        """It may have done its work before it was ended."""
        with pytest.raises(OutcomeUnknownError, match=r"longer than 0.2 s and was ended. It wrote: working"):
            await acted(shell("echo working; sleep 60", timeout_s=0.2))

    async def test_what_it_leaves_running_is_ended(self) -> None:
        """A command is over when it is over; it cannot leave a daemon behind."""
        began = time.monotonic()
        ended = await run_subtree(order(TREE.replace("exec sleep 9994", "exit 0"), "left-behind", timeout_s=30))

        assert ended.status == 0
        assert survivors("left-behind") == []
        assert time.monotonic() - began < 7

    async def test_no_tree_survives_its_time(self) -> None:
        """Fifty trees, each with children that left their parent, their session or their manners."""

        async def end(number: int) -> float:
            began = time.monotonic()
            ended = await run_subtree(order(TREE, f"tree-{number}", timeout_s=1.0))
            assert (ended.status, ended.left) == (None, 0)
            return time.monotonic() - began

        took = [
            each for start in range(0, 50, 10) for each in await asyncio.gather(*map(end, range(start, start + 10)))
        ]

        assert survivors("tree-") == []
        assert max(took) < 1.0 + 7

    async def test_a_cancelled_wait_leaves_nothing(self) -> None:
        """A stop of the application in the middle of a command."""
        task = asyncio.create_task(run_subtree(order(TREE, "cancelled", timeout_s=60)))
        await until(lambda: len(survivors("cancelled")) >= 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert survivors("cancelled") == []

    async def test_it_dies_with_the_application(self) -> None:
        """kill -9 of the process that ordered it takes the tree along."""
        script = (
            "import asyncio\nfrom runbooks.engine.actions.subtree import Order, run_subtree\n"
            f"asyncio.run(run_subtree(Order(argv=('/bin/sh', '-c', {TREE!r}),"
            " environment={'PATH': '/usr/bin:/bin', 'MARK': 'orphaned'}, timeout_s=60, grace_s=0.5)))"
        )
        owner = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
        await until(lambda: len(survivors("orphaned")) >= 4)
        owner.send_signal(signal.SIGKILL)
        await owner.wait()

        await until(lambda: survivors("orphaned") == [])

    async def test_a_flood_is_drained_in_little_memory(self) -> None:
        """256 MiB of output: nobody blocks, and neither side grows by it."""
        script = (
            "import asyncio, resource\nfrom runbooks.engine.actions.subtree import Order, run_subtree\n"
            "asyncio.run(run_subtree(Order(argv=('/bin/true',), environment={}, timeout_s=60)))\n"
            "before, keeper = (resource.getrusage(who).ru_maxrss"
            " for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))\n"
            "ended = asyncio.run(run_subtree(Order(argv=('/usr/bin/head', '-c', '268435456', '/dev/zero'),"
            " environment={}, timeout_s=60)))\n"
            "grew = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
            "print(ended.status, len(ended.head) + len(ended.tail) + ended.dropped, grew,"
            " resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - keeper)"
        )
        run = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
        said, _ = await run.communicate()
        status, count, grew_kib, keeper_kib = map(int, said.split())

        assert (status, count) == (0, 268_435_456)
        assert grew_kib < 16 * 1024
        assert keeper_kib < 16 * 1024


TREE = (
    'trap "" TERM; sleep 9991 & setsid sleep 9992 & '
    "(setsid sh -c 'trap \"\" TERM; sleep 9993; sleep 9993' &); (sleep 9995 &); exec sleep 9994"
)


def order(script: str, mark: str, *, timeout_s: float) -> Order:
    environment = {"PATH": "/usr/bin:/bin", "MARK": mark}
    return Order(argv=("/bin/sh", "-c", script), environment=environment, timeout_s=timeout_s, grace_s=1.0)


def survivors(mark: str) -> list[int]:
    """The processes whose environment carries the mark, zombies aside."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if f"MARK={mark}".encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


async def until(condition: object, patience_s: float = 15.0) -> None:
    assert callable(condition)
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


@pytest.mark.integration
def test_a_closed_process_shows_its_environment_to_nobody_of_its_user() -> None:
    """A listed command runs as our user; without this it would read our credentials from /proc."""
    program = (
        "import ctypes, os, sys\n"
        "from runbooks.engine.actions import subtree_keeper as keeper\n"
        "keeper.close_this_process()\n"
        "print(ctypes.CDLL(None).prctl(keeper.PR_GET_DUMPABLE, 0, 0, 0, 0), os.stat('/proc/self/environ').st_uid)\n"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert said.stdout.split() == ["0", "0"]
