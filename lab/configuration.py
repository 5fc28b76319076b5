"""What the lab writes for the product it practises with: watchkeeper.toml, the environment, and its own addresses."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.pagerduty_shapes import SERVICE_ID
from lab.people import CHANNEL, KNOWN_TO_WATCHKEEPER, TEAM, WATCHKEEPER_EMAIL
from lab.world import Credentials

CONFIG_FILE = "watchkeeper.toml"
ENVIRONMENT_FILE = "env"
ADDRESSES_FILE = "lab.json"
SCRAPE_EVERY_LAB_S = 15.0
RUNBOOKS = Path(__file__).parent / "runbooks"


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where everything listens; each is a URL without a slash at its end."""

    page: str
    slack_api: str
    pagerduty: str
    events: str
    kubernetes: str
    langfuse: str
    litellm: str
    launchdarkly: str
    qdrant: str
    metrics: str
    product: str


def new_credentials() -> Credentials:
    """Fresh secrets; nothing of a drill is worth keeping."""
    return Credentials(
        langfuse_read=f"pk-lf-{secrets.token_hex(8)}:sk-lf-{secrets.token_hex(16)}",
        langfuse_write=f"pk-lf-{secrets.token_hex(8)}:sk-lf-{secrets.token_hex(16)}",
        kube_read="kube-" + secrets.token_hex(16),
        kube_action="kube-" + secrets.token_hex(16),
        litellm_read="sk-" + secrets.token_hex(16),
        litellm_admin="sk-" + secrets.token_hex(16),
        launchdarkly_read="api-" + secrets.token_hex(16),
        launchdarkly_write="api-" + secrets.token_hex(16),
        qdrant="qdrant-" + secrets.token_hex(16),
        pagerduty_routing_key=secrets.token_hex(16),
    )


def write_addresses(folder: Path, addresses: Addresses, *, scenario: str, pace: float) -> None:
    """`lab.json`: when it is there, everything that it names listens."""
    body = {**asdict(addresses), "scenario": scenario, "pace": pace, "pid": os.getpid()}
    _write_whole(folder / ADDRESSES_FILE, json.dumps(body, indent=2) + "\n")


def write_environment(folder: Path, variables: Mapping[str, str]) -> None:
    """`env`: KEY=VALUE lines, readable by nobody else."""
    _write_whole(folder / ENVIRONMENT_FILE, "".join(f"{name}={value}\n" for name, value in variables.items()))


def _write_whole(path: Path, text: str) -> None:
    """Who waits for the file finds all of it, or nothing; only this user may read it."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.touch(mode=0o600)
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def read_environment(folder: Path) -> dict[str, str]:
    lines = (folder / ENVIRONMENT_FILE).read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def environment(
    folder: Path,
    addresses: Addresses,
    credentials: Credentials,
    *,
    slack_bot_token: str,
    slack_signing_secret: str,
    slack_app_token: str = "",
    pagerduty_api_key: str,
    pagerduty_webhook_secrets: tuple[str, ...],
) -> dict[str, str]:
    """
    Every variable that the product needs to work in this lab, and the key by which others may page it.

    With a `slack_app_token` the product is to use Socket Mode.
    """
    host, _, port = addresses.product.removeprefix("http://").partition(":")
    return {
        "LAB_ROUTING_KEY": credentials.pagerduty_routing_key,
        "DATABASE_URL": f"sqlite:///{folder / 'watchkeeper.sqlite'}",
        "SLACK_BOT_TOKEN": slack_bot_token,
        "SLACK_SIGNING_SECRET": slack_signing_secret,
        "SLACK_API_BASE_URL": addresses.slack_api + "/",
        "SOCKET_MODE": str(bool(slack_app_token)).lower(),
        **({"SLACK_APP_TOKEN": slack_app_token} if slack_app_token else {}),
        "INCIDENT_CHANNEL": CHANNEL,
        "PAGERDUTY_API_KEY": pagerduty_api_key,
        "PAGERDUTY_API_BASE_URL": addresses.pagerduty,
        "PAGERDUTY_FROM": WATCHKEEPER_EMAIL,
        "PAGERDUTY_WEBHOOK_SECRETS": ",".join(pagerduty_webhook_secrets),
        "SSL_CERT_FILE": str(folder / "ca.pem"),
        "LANGFUSE_READ": credentials.langfuse_read,
        "LANGFUSE_WRITE": credentials.langfuse_write,
        "KUBE_READ_TOKEN": credentials.kube_read,
        "KUBE_ACTION_TOKEN": credentials.kube_action,
        "LITELLM_READ_KEY": credentials.litellm_read,
        "LITELLM_ADMIN_KEY": credentials.litellm_admin,
        "LAUNCHDARKLY_READ": credentials.launchdarkly_read,
        "LAUNCHDARKLY_WRITE": credentials.launchdarkly_write,
        "QDRANT_API_KEY": credentials.qdrant,
        "WATCHKEEPER_CONFIG": str(folder / CONFIG_FILE),
        "WATCHKEEPER_HOST": host,
        "WATCHKEEPER_PORT": port,
    }


def watchkeeper_toml(addresses: Addresses, *, pace: float, history: str) -> str:
    """The product's configuration: one service `chat`, its sources, who may approve, and who everybody is."""
    people = "\n".join(
        _PERSON.format(
            id=person.id,
            name=person.name,
            slack=f"{TEAM}/{person.slack}",
            pagerduty=person.pagerduty,
            email=person.email,
            roles=json.dumps(list(person.roles)),
        )
        for person in KNOWN_TO_WATCHKEEPER
    )
    return _CONFIG.format(
        metrics=addresses.metrics,
        langfuse=addresses.langfuse,
        kubernetes=addresses.kubernetes,
        litellm=addresses.litellm,
        runbooks=RUNBOOKS,
        launchdarkly=addresses.launchdarkly,
        qdrant=addresses.qdrant,
        interval_s=SCRAPE_EVERY_LAB_S / pace,
        pace=pace,
        history=history,
        pagerduty_service=SERVICE_ID,
        people=people,
    )


_PERSON = """
[[person]]
id = "{id}"
name = "{name}"
slack = ["{slack}"]
pagerduty = "{pagerduty}"
email = "{email}"
roles = {roles}
"""

_CONFIG = """# Written by `watchkeeper lab serve` for one drill; addresses and tokens change with every start.
format = 1

[[datasource]]
name = "metrics"
kind = "recorder"
scrape = ["{metrics}/metrics"]
interval_s = {interval_s:g}     # 15 s of lab time at pace {pace:g}
clock = "samples"
history = "{history}"
path = "recorder.sqlite"

[[datasource]]
name = "prompts"
kind = "langfuse"
url = "{langfuse}"
credential = "LANGFUSE_READ"
action_credential = "LANGFUSE_WRITE"

[[datasource]]
name = "flags"
kind = "launchdarkly"
url = "{launchdarkly}"
credential = "LAUNCHDARKLY_READ"
action_credential = "LAUNCHDARKLY_WRITE"
project = "default"
environment = "production"
flags = ["chat-*", "tool-*", "agent-writes-*"]

[[cluster]]
name = "lab"
url = "{kubernetes}"
credential = "KUBE_READ_TOKEN"
action_credential = "KUBE_ACTION_TOKEN"

[[gateway]]
name = "edge"
url = "{litellm}"
credential = "LITELLM_READ_KEY"
action_credential = "LITELLM_ADMIN_KEY"

[[vector_store]]
name = "vectors"
url = "{qdrant}"
action_credential = "QDRANT_API_KEY"
services = ["chat"]
collections = ["manuals-.*"]
source_field = "data_source"
quarantine_key = "quarantined"

[[runbooks]]
path = "{runbooks}"

[[service]]
name = "chat"
pagerduty_service = "{pagerduty_service}"
namespace = "chat"
team = "llm"
environment = "prod"
datasource = "metrics"
cluster = "lab"
gateway = "edge"
changes = ["flags"]
mode = "approve"
prompt_diff = "full"
owners = ["dana"]
[service.approvers]
prompt-owner = ["bob"]
[service.selectors]
serving = {{namespace = "chat"}}
gpu = {{namespace = "chat"}}
application = {{service = "chat"}}
gateway = {{model_group = "~chat|chat-overflow|chat-large"}}
kubernetes = {{namespace = "chat"}}
[service.kill_switches]
tool = "tool-{{tool}}"
agent = "agent-writes-{{agent}}"
[service.retrieval]
store = "vectors"
alias = "manuals"
[service.budgets]
ttft_p95_s = 1.0
[[service.deployments]]
name = "chat-vllm"
kind = "engine"
replicas = 4
[[service.deployments]]
name = "chat-gateway"
kind = "gateway"
[[service.deployments]]
name = "chat-embedder"
kind = "embedder"
[[service.deployments]]
name = "chat-guardrail"
kind = "guardrail"
[[service.prompts]]
name = "chat-system"
source = "prompts"
[[service.prompts]]
name = "chat-summary"
source = "prompts"

[[policy]]
tier = "R0"
environment = "*"
service = "*"
roles = ["on-call", "service-owner", "prompt-owner"]

[[policy]]
tier = "R1"
environment = "prod"
service = "*"
roles = ["prompt-owner", "service-owner"]

[[policy]]
tier = "R2"
environment = "prod"
service = "*"
roles = ["service-owner", "platform"]
{people}"""
