"""The first watchkeeper.toml: what is guessed, what is not, and that it can be read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.config import Config, load_config
from bot.draft import Account, Exported, closest, draft, exported, slug
from bot.incidents import WatchkeeperError
from bot.operate import draft_configuration
from bot.settings import Settings
from tests.real_prometheus import start_prometheus

URL = "https://prometheus.example.com"
SEEN = Exported(
    engines=("chat", "search"),
    gpus=("chat",),
    groups=("chat-pro", "search"),
    applications=("chat-web",),
    deployments={"chat": {"chat-vllm": 4, "chat-gateway": 2, "postgres": 1}},
)


def read(text: str, tmp_path: Path) -> Config:
    path = tmp_path / "watchkeeper.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_names_that_share_a_word_are_put_together(tmp_path: Path) -> None:
    """PagerDuty's "Chat API (prod)" gets the namespace, the model group and the deployments that sound like it."""
    text = draft(Account(services=(("PCHAT", "Chat API (prod)"),)), SEEN, prometheus=URL)

    [service] = read(text, tmp_path).services
    assert (service.name, service.pagerduty_service, service.namespace) == ("chat-api-prod", "PCHAT", "chat")
    assert service.selectors["gateway"] == {"model_group": "chat-pro"}
    assert [(each.name, each.kind, each.replicas) for each in service.deployments] == [
        ("chat-vllm", "engine", 4),
        ("chat-gateway", "gateway", 2),
    ]


def test_every_guess_says_so() -> None:
    """Whoever reads the draft sees which lines nobody knows for sure."""
    text = draft(Account(services=(("PCHAT", "Chat"),)), SEEN, prometheus=URL)

    lines = [line for line in text.splitlines() if "serving" in line or "namespace =" in line]
    assert lines
    assert all("guessed" in line for line in lines)


def test_nobody_gets_a_right_from_a_draft(tmp_path: Path) -> None:
    """Services observe, there is no policy, and nobody has a role."""
    known = Account(services=(("PCHAT", "Chat"),), users=(("PALICE", "Alice Ahn", "alice@example.com"),))

    config = read(draft(known, SEEN, prometheus=URL), tmp_path)

    assert [service.mode for service in config.services] == ["observe"]
    assert config.policy == ()
    assert [(person.id, person.roles, person.slack) for person in config.people] == [("alice-ahn", (), ())]


def test_a_service_that_looks_like_no_series_stays_a_comment(tmp_path: Path) -> None:
    """Not every service of PagerDuty is an LLM service; it is shown, and switched on by a person only."""
    text = draft(Account(services=(("PPAY", "Payments"),)), SEEN, prometheus=URL)

    assert "PPAY" in text
    assert read(text, tmp_path).services == ()


def test_a_tie_is_no_guess() -> None:
    """Two namespaces that fit equally well: a person decides."""
    assert closest("Chat", ["chat-eu", "chat-us"]) is None
    assert closest("Chat US", ["chat-eu", "chat-us"]) == "chat-us"
    assert closest("LLM API", ["llm-search"]) is None


@given(
    services=st.lists(
        st.tuples(st.text(min_size=1, max_size=20), st.text(max_size=40)), max_size=4, unique_by=lambda x: x[0]
    ),
    users=st.lists(
        st.tuples(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=40), st.text(max_size=30)),
        max_size=4,
        unique_by=(lambda x: x[0], lambda x: x[2].lower()),
    ),
)
def test_hostile_names_cannot_break_out_of_their_line(
    services: list[tuple[str, str]], users: list[tuple[str, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Quotes, newlines, brackets and control characters in PagerDuty's names stay text: the file reads back."""
    known = Account(services=tuple(services), users=tuple(users))

    config = read(draft(known, SEEN, prometheus=URL), tmp_path_factory.mktemp("draft"))

    assert config.policy == ()
    assert {person.pagerduty for person in config.people} == {user_id for user_id, _, _ in users}


def test_equal_names_get_numbers() -> None:
    """Ids must be unique."""
    taken: set[str] = set()

    assert [slug(name, taken) for name in ("Chat!", "chat", "…")] == ["chat", "chat-2", "unnamed"]


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    """Somebody's work of an afternoon is worth more than a draft."""
    path = tmp_path / "watchkeeper.toml"
    path.write_text("format = 1\n", encoding="utf-8")

    with pytest.raises(WatchkeeperError, match="exists already"):
        draft_configuration(Settings.load({}), path, URL)

    assert path.read_text(encoding="utf-8") == "format = 1\n"


def test_without_anything_to_read_it_says_what_to_set(tmp_path: Path) -> None:
    """Neither a key nor an address: the variables are named."""
    with pytest.raises(WatchkeeperError, match="PAGERDUTY_API_KEY"):
        draft_configuration(Settings.load({}), tmp_path / "new.toml", None)


@pytest.mark.integration
async def test_a_real_prometheus_tells_what_it_holds(tmp_path: Path) -> None:
    """Namespaces, groups, applications and replicas come from the labels of the series that are there now."""
    import time

    stamp = int(time.time()) - 30
    series = {
        'vllm:num_requests_running{namespace="chat",pod="a"}': 3,
        'DCGM_FI_DEV_GPU_UTIL{namespace="chat",gpu="0"}': 90,
        'litellm_deployment_total_requests_total{model_group="chat-pro"}': 7,
        'llm_app_requests_total{service="chat-web"}': 7,
        'kube_deployment_spec_replicas{namespace="chat",deployment="chat-vllm"}': 4,
    }
    samples = tmp_path / "samples.om"
    lines = [f"{name} {value} {stamp - ago}" for name, value in series.items() for ago in (60, 30, 0)]
    samples.write_text("\n".join([*lines, "# EOF", ""]), encoding="utf-8")

    with start_prometheus(samples) as url:
        seen = await exported(url)

    assert seen == Exported(
        engines=("chat",),
        gpus=("chat",),
        groups=("chat-pro",),
        applications=("chat-web",),
        deployments={"chat": {"chat-vllm": 4}},
    )
