"""watchkeeper.toml: what it gives, and how its mistakes are told: file, line, place, remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.config import ConfigError, LangfuseSource, PrometheusSource, RecorderSource, load_config
from bot.config.lines import TomlLines

EXAMPLE = Path(__file__).parents[2] / "watchkeeper.example.toml"

GOOD = """\
format = 1

[[datasource]]
name = "metrics"
kind = "recorder"
scrape = ["http://127.0.0.1:9101/metrics"]
history = "history.om"

[[datasource]]
name = "prompts"
kind = "langfuse"
url = "http://127.0.0.1:9102"
credential = "LANGFUSE_READ"

[[cluster]]
name = "lab"
url = "http://127.0.0.1:9103"

[[service]]
name = "chat"
pagerduty_service = "PCHAT01"
datasource = "metrics"
cluster = "lab"
mode = "approve"
owners = ["dana"]
[service.approvers]
prompt-owner = ["bob"]
[service.selectors]
serving = {namespace = "chat"}
[service.budgets]
ttft_p95_s = 1.0
[[service.deployments]]
name = "chat-vllm"
kind = "engine"
replicas = 4
[[service.prompts]]
name = "chat-system"
source = "prompts"

[[policy]]
tier = "R1"
environment = "prod"
service = "*"
roles = ["prompt-owner", "service-owner"]

[[person]]
id = "bob"
name = "Bob"
slack = ["T1/U1"]

[[person]]
id = "dana"
name = "Dana"
slack = ["T1/U2"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "watchkeeper.toml"


def told(file: Path, text: str) -> list[tuple[int, str]]:
    """The problems of this text as (line, sentence)."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert all(line.startswith(f"{file}:") for line in str(caught.value).splitlines())
    return list(caught.value.lines)


def changed(old: str, new: str) -> tuple[str, int]:
    """The good text with one line changed, and that line's number."""
    [number] = [at for at, line in enumerate(GOOD.splitlines(), start=1) if line == old]
    return GOOD.replace(f"{old}\n", f"{new}\n", 1), number


def test_the_example_is_right() -> None:
    """What people copy first must load."""
    assert load_config(EXAMPLE).service("chat") is not None


def test_a_good_file_becomes_values(file: Path) -> None:
    """Entries are found by the keys that the rooms look them up with."""
    file.write_text(GOOD, encoding="utf-8")

    config = load_config(file)

    chat = config.service_for_pagerduty("PCHAT01")
    assert chat is not None
    assert chat is config.service("chat")
    assert config.service_for_pagerduty("PNOBODY") is None
    assert isinstance(config.datasource("prompts"), LangfuseSource)
    bob = config.person_for_slack("T1", "U1")
    assert bob is not None
    assert bob.id == "bob"
    assert config.person_for_slack("T2", "U1") is None


def test_a_service_becomes_a_target(file: Path) -> None:
    """Diagnostics gets its own values, with nothing of who may approve what."""
    file.write_text(GOOD, encoding="utf-8")
    [chat] = load_config(file).services

    target = chat.target()

    assert target.selectors == {"serving": {"namespace": "chat"}}
    assert target.budgets.ttft_p95_s == 1.0
    assert [(each.name, each.kind, each.replicas) for each in target.deployments] == [("chat-vllm", "engine", 4)]
    assert [(each.name, each.source) for each in target.prompts] == [("chat-system", "prompts")]


def test_paths_count_from_the_file(file: Path) -> None:
    """The process may be started anywhere."""
    file.write_text(GOOD, encoding="utf-8")

    source = load_config(file).datasource("metrics")

    assert isinstance(source, RecorderSource)
    assert source.history == file.parent / "history.om"
    assert source.path == file.parent / "recorder.sqlite"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("format = 1", "format = 2", ["format 2 is not known", "write format = 1"]),
        ('kind = "langfuse"', 'kind = "langfus"', ["kind 'langfus' is not known", "did you mean langfuse?"]),
        ('mode = "approve"', 'mode = "aprove"', ['service "chat", mode', "did you mean approve?"]),
        ('mode = "approve"', 'modus = "approve"', ["unknown key modus", "did you mean mode?"]),
        (
            'mode = "approve"',
            'retrieval = {store = "v", alias = "docs"}',
            ["no vector_store 'v'", "add a [[vector_store]]"],
        ),
        ('mode = "approve"', 'kill_switches = {tool = "tool"}', ["kill_switches", 'write "tool-{tool}"']),
        ('mode = "approve"', 'kill_switches = {tool = "{tool}-{agent}"}', ["kill_switches", "has to be named by it"]),
        ("ttft_p95_s = 1.0", "ttft_p95 = 1.0", ["budgets.ttft_p95: unknown key", "did you mean ttft_p95_s?"]),
        ("ttft_p95_s = 1.0", "ttft_p95_s = 0", ["budgets.ttft_p95_s", "greater than 0"]),
        ("replicas = 4", 'replicas = "four"', ["deployments[1].replicas", "valid integer"]),
        ('datasource = "metrics"', 'datasource = "metric"', ["no datasource 'metric'", "did you mean metrics?"]),
        ('datasource = "metrics"', 'datasource = "prompts"', ["is of kind langfuse", "prometheus or recorder"]),
        ('source = "prompts"', 'source = "metrics"', ["is of kind recorder", "langfuse, mlflow, phoenix"]),
        ('cluster = "lab"', 'cluster = "moon"', ["no cluster 'moon'", "add a [[cluster]] entry"]),
        ('owners = ["dana"]', 'owners = ["dan"]', ["no person 'dan'", "did you mean dana?"]),
        ('prompt-owner = ["bob"]', 'prompt-owner = ["eve"]', ["approvers.prompt-owner[1]", "no person 'eve'"]),
        ('prompt-owner = ["bob"]', 'prompt_owner = ["bob"]', ["approvers", "prompt-owner"]),
        ('serving = {namespace = "chat"}', 'serving = {namespace = "~("}', ["not a regular expression", "correct it"]),
        ('serving = {namespace = "chat"}', 'servng = {namespace = "chat"}', ["selectors", "serving"]),
        ('tier = "R1"', 'tier = "R4"', ["'R4' is not known", "R0, R1, R2 or R3"]),
        ('service = "*"', 'service = "chad"', ["no service 'chad'", "did you mean chat?"]),
        ('slack = ["T1/U2"]', 'slack = ["T1/U1"]', ["already used by person number 1", "once"]),
        ('slack = ["T1/U2"]', 'slack = ["U2"]', ["'U2' is not TEAM/USER", "write both ids"]),
        ('credential = "LANGFUSE_READ"', 'credential = "pk-1:sk-2"', ["NAME of an environment variable", "no secret"]),
        ('url = "http://127.0.0.1:9102"', 'url = "http://prompts.example.com"', ["unencrypted", "https://"]),
        ('url = "http://127.0.0.1:9103"', 'url = "lab"', ["'lab' is not a web address", "write http"]),
        ('url = "http://127.0.0.1:9103"', 'url = "https://lab:99999"', ["is not a web address", "write http"]),
        ('url = "http://127.0.0.1:9103"', 'url = "https://lab:x"', ["is not a web address", "write http"]),
        ('url = "http://127.0.0.1:9103"', 'url = "https://[::1"', ["is not a web address", "write http"]),
    ],
)
def test_a_mistake_is_told_with_its_line_and_remedy(file: Path, old: str, new: str, words: list[str]) -> None:
    """One wrong line gives one problem, at that line, with what to do."""
    text, number = changed(old, new)

    found = told(file, text)

    assert [line for line, _ in found] == [number]
    [(_, sentence)] = found
    assert [word for word in words if word not in sentence] == []


def test_a_secret_in_the_file_is_not_repeated(file: Path) -> None:
    """Error messages end in logs and tickets."""
    text, _ = changed('credential = "LANGFUSE_READ"', 'credential = "pk-lf-hunter2"')

    [(_, sentence)] = told(file, text)

    assert "hunter2" not in sentence


@pytest.mark.parametrize("url", ["https://u:hunter2@lab", "https://u:hunter2@lab:99999", "postgresql://u:hunter2@lab"])
def test_a_password_in_an_address_is_not_repeated(file: Path, url: str) -> None:
    """Whatever else is wrong with the address."""
    text, number = changed('url = "http://127.0.0.1:9103"', f'url = "{url}"')

    [(line, sentence)] = told(file, text)

    assert line == number
    assert "holds a password" in sentence
    assert "hunter2" not in sentence


PROMETHEUS = """
[[datasource]]
name = "prom"
kind = "prometheus"
url = "{url}"
{more}
"""


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ('remote = "ssh://example.com/prompts"', "is not a web address"),
        ('remote = "git@example.com:prompts"', "is not a web address"),
        ('remote = "https://bob:secret@example.com/prompts"', "holds a password"),
        ('remote = "http://git.internal/prompts"', "would send the credential unencrypted"),
        ('remote = "--upload-pack=x"', "is not a web address"),
        ('branch = "-x"', "is not the name of a branch"),
        ('branch = "a..b"', "is not the name of a branch"),
        ('branch = "main:other"', "is not the name of a branch"),
    ],
)
def test_where_reverts_are_pushed_is_checked(file: Path, wrong: str, words: str) -> None:
    """An address over TLS or a path, and one branch by its plain name; the line is named, a password never repeated."""
    text = f'{GOOD}\n[[datasource]]\nname = "folder"\nkind = "git"\npath = "prompts"\n{wrong}\n'

    [(line, sentence)] = told(file, text)

    assert text.splitlines()[line - 1] == wrong
    assert words in sentence
    assert "secret" not in sentence


@pytest.mark.parametrize("url", ["http://prometheus.internal:9090", "http://10.0.0.7", "HTTP://127.0.0.1.example.com"])
def test_a_token_for_prometheus_is_not_sent_in_plain(file: Path, url: str) -> None:
    """Whoever listens on the way could read all telemetry with it; the line of the address is named."""
    text = GOOD + PROMETHEUS.format(url=url, more='credential = "PROMETHEUS_TOKEN"')

    [(line, sentence)] = told(file, text)

    assert text.splitlines()[line - 1] == f'url = "{url}"'
    assert "would send the credential unencrypted; use https://" in sentence


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("https://prometheus.internal:9090", 'credential = "PROMETHEUS_TOKEN"'),
        ("http://127.0.0.1:9090", 'credential = "PROMETHEUS_TOKEN"'),
        ("http://[::1]:9090", 'credential = "PROMETHEUS_TOKEN"'),
        ("http://localhost:9090", 'credential = "PROMETHEUS_TOKEN"'),
        ("http://prometheus.internal:9090", ""),
    ],
)
def test_prometheus_may_be_asked_where_nothing_leaks(file: Path, url: str, more: str) -> None:
    """With TLS, on this machine, or without a token, as in most clusters."""
    file.write_text(GOOD + PROMETHEUS.format(url=url, more=more), encoding="utf-8")

    source = load_config(file).datasource("prom")

    assert isinstance(source, PrometheusSource)
    assert source.url == url


def test_all_mistakes_are_told_at_once(file: Path) -> None:
    """Faults of single entries and of their references come together, in the order of their lines."""
    text = GOOD.replace('kind = "engine"', 'kind = "motor"').replace('tier = "R1"', 'tier = "R9"')
    text = text.replace('id = "bob"', 'id = "dana"').replace("format = 1", "formt = 1")

    found = told(file, text)

    assert [line for line, _ in found] == sorted(line for line, _ in found)
    assert len(found) == 5  # format missing, formt unknown, motor, R9, and dana twice


def test_two_services_may_not_share_a_pagerduty_service(file: Path) -> None:
    """A page must mean one service."""
    again = '[[service]]\nname = "chat2"\npagerduty_service = "PCHAT01"\nselectors = {}\ndatasource = "metrics"\n'

    [(line, sentence)] = told(file, GOOD + again)

    assert line == len(GOOD.splitlines()) + 3
    assert "'PCHAT01' is already used by service number 1" in sentence


@pytest.mark.parametrize(
    "text", ["format = ", "format = 1\n[[service]", 'format = 1\nname = "x', "format = 1\nformat = 1"]
)
def test_broken_toml_is_told_with_its_line(file: Path, text: str) -> None:
    """A syntax error is one problem at the line where reading stopped."""
    [(line, sentence)] = told(file, text)

    assert line in (text.count("\n"), text.count("\n") + 1)
    assert "not valid TOML" in sentence


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """The first thing that everybody sees."""
    with pytest.raises(ConfigError, match=r"watchkeeper\.example\.toml"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize("kind", ["service", "datasource", "cluster", "policy", "person"])
def test_single_brackets_are_told(file: Path, kind: str) -> None:
    """`[service]` where `[[service]]` was meant is the commonest slip in TOML."""
    [(line, sentence)] = told(file, f'format = 1\n[{kind}]\nname = "x"\n')

    assert line == 2
    assert f"[[{kind}]]" in sentence


def test_prometheus_url_is_a_datasource(file: Path) -> None:
    """With the variable set, a service needs to name no datasource."""
    file.write_text('format = 1\n[[service]]\nname = "chat"\nselectors = {}\n', encoding="utf-8")

    config = load_config(file, prometheus_url="http://127.0.0.1:9090")

    source = config.datasource("prometheus")
    assert isinstance(source, PrometheusSource)
    assert source.url == "http://127.0.0.1:9090"
    assert config.services[0].datasource == "prometheus"


def test_a_service_without_telemetry_is_told(file: Path) -> None:
    """A service that cannot be diagnosed would only look watched."""
    [(line, sentence)] = told(file, 'format = 1\n\n[[service]]\nname = "chat"\nselectors = {}\n')

    assert line == 3
    assert "PROMETHEUS_URL" in sentence


@pytest.mark.parametrize(
    ("old", "new", "moves"),
    [
        ('tier = "R1"', 'tier = "R2"', True),
        ('id = "dana"', 'id = "dana"\nroles = ["platform"]', True),
        ('prompt-owner = ["bob"]', 'prompt-owner = ["bob", "dana"]', True),
        ("ttft_p95_s = 1.0", "ttft_p95_s = 2.0", False),
        ("format = 1", "format = 1  # a comment", False),
    ],
)
def test_the_policy_version_moves_with_who_may_approve(file: Path, old: str, new: str, moves: bool) -> None:  # noqa: FBT001
    """An approval is bound to it: it changes with policy, people and approvers, and with nothing else."""
    file.write_text(GOOD, encoding="utf-8")
    before = load_config(file).policy_version

    file.write_text(changed(old, new)[0], encoding="utf-8")

    assert len(before) == 12
    assert (load_config(file).policy_version != before) == moves


def test_lines_are_found_around_long_values() -> None:
    """Multi-line strings, arrays, comments and inline tables move the count, and may look like keys and headers."""
    text = '''\
# [[service]]
format = 1
text = """
[[service]]
name = "not me"
"""
literal = \'\'\'it's
x = 1\'\'\'
list = [
  "a]",  # ]
  "b",
]
[[service]]
name = "chat"
budgets.ttft_p95_s = 1.0
"quoted key" = {inner = 1}
[service . "selectors"]
serving = {namespace = "chat"}
[[service]]
[[service.prompts]]
[[service.prompts]]
name = "second"
'''
    lines = TomlLines(text)

    assert lines.line_of(("format",)) == 2
    assert lines.line_of(("literal",)) == 7
    assert lines.line_of(("list", 1)) == 9
    assert lines.line_of(("service", 0, "name")) == 14
    assert lines.line_of(("service", 0, "budgets", "ttft_p95_s")) == 15
    assert lines.line_of(("service", 0, "quoted key", "inner")) == 16
    assert lines.line_of(("service", 0, "selectors", "serving", "namespace")) == 18
    assert lines.line_of(("service", 1, "prompts", 1, "name")) == 22
    assert lines.line_of(("nothing",)) == 1


@given(st.text(alphabet=st.sampled_from(list("[]{}=\"'#.\n ab1\\")), max_size=200))
def test_no_text_breaks_the_search_for_lines(text: str) -> None:
    """Whatever tomllib may one day accept, looking for a line must not be what fails."""
    assert 1 <= TomlLines(text).line_of(("a", 0, "b")) <= text.count("\n") + 1


ALLOWED = """
[[http_endpoint]]
name = "flags"
url = "https://flags.example.com"
methods = ["POST"]
paths = ["/api/.*"]

[[command]]
name = "purge"
argv = ["/usr/local/bin/purge", "--tenant", "{tenant}"]
arguments = {tenant = "[a-z]+"}
"""


@pytest.mark.parametrize(
    ("old", "new", "problem", "remedy"),
    [
        ('"/usr/local/bin/purge"', '"purge"', "is not an absolute path", "write where the program is"),
        ('"{tenant}"', '"--for={tenant}"', "is not a whole element", "as two elements"),
        ('"{tenant}"', '"{other}"', "nobody says what {other} may be", "add it to arguments"),
        ('{tenant = "[a-z]+"}', "{}", "nobody says what {tenant} may be", "add it to arguments"),
        ('{tenant = "[a-z]+"}', '{tenant = "["}', "is not a regular expression", "correct it"),
    ],
)
def test_a_command_that_cannot_be_trusted_is_told(file: Path, old: str, new: str, problem: str, remedy: str) -> None:
    """At its line, before anything can run it."""
    text = GOOD + ALLOWED
    assert old in text

    [(line, sentence)] = told(file, text.replace(old, new))

    assert text.splitlines()[line - 1].startswith("arguments")
    assert 'command "purge"' in sentence
    assert problem in sentence
    assert remedy in sentence


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('paths = ["/api/.*"]', 'paths = [".*"]'),
        ('name = "flags"\n', 'name = "flags"\ntier = "R1"\n'),
        ('"--tenant"', '"--all"'),
        ('arguments = {tenant = "[a-z]+"}', 'arguments = {tenant = ".*"}'),
        ('arguments = {tenant = "[a-z]+"}', 'arguments = {tenant = "[a-z]+"}\ntier = "R1"'),
        ('url = "http://127.0.0.1:9103"', 'url = "http://127.0.0.1:9104"'),  # a cluster
        ('url = "http://127.0.0.1:9102"', 'url = "http://127.0.0.1:9105"'),  # Langfuse
    ],
)
def test_the_policy_version_moves_with_what_may_be_done(file: Path, old: str, new: str) -> None:
    """An approval does not outlive a change of what the configuration allows, or of where a name leads."""
    file.write_text(GOOD + ALLOWED, encoding="utf-8")
    before = load_config(file).policy_version
    file.write_text((GOOD + ALLOWED).replace(old, new), encoding="utf-8")

    assert load_config(file).policy_version != before
