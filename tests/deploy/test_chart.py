"""The Helm chart, rendered by Helm itself: valid objects, and the power to change production with the workers only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from bot.rights import DIAGNOSIS, rights

CHART = Path("deploy/helm/watchkeeper")
VALUES: dict[str, Any] = {
    "config": Path("watchkeeper.example.toml").read_text(encoding="utf-8"),
    "environment": {"INCIDENT_CHANNEL": "C0123456789"},
    "secrets": {"name": "wk", "actionName": "wk-actions"},
    "kubernetes": {"namespaces": ["chat", "search"], "actions": [name for name in rights() if name != DIAGNOSIS]},
    "ingress": {"enabled": True},
}


def rendered(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Every object of a release called `wk` in the namespace `ops`, hooks too."""
    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render({**VALUES, **(values or {})}, name="wk", namespace="ops", is_install=True)
    documents = [each for name, text in texts.items() if name.endswith(".yaml") for each in yaml.safe_load_all(text)]
    return [document for document in documents if document]


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    [only] = deployment["spec"]["template"]["spec"]["containers"]
    return dict(only)


def test_helm_finds_nothing_wrong() -> None:
    """`helm lint --strict` is content."""
    report = helm_python.lint(CHART, VALUES, strict=True)

    assert not [each for each in report["messages"] if each["severity"] >= 2], report


@pytest.mark.parametrize("version", ["1.27", "1.31"])
def test_kubernetes_takes_every_object(version: str) -> None:
    """Each rendered object is valid in the API of an old and a new cluster."""
    objects = rendered()
    assert len(objects) > 20

    for each in objects:
        kubernetes_validate.validate(each, version, strict=True)


def test_only_workers_hold_what_reaches_the_cluster() -> None:
    """The web process, which strangers can reach, has no token at all; nor would it start with one that acts."""
    deployments = of_kind(rendered(), "Deployment")

    def held(name: str) -> str:
        return yaml.safe_dump([container(deployments[name])["envFrom"], container(deployments[name]).get("env")])

    for credential in ("wk-actions", "KUBE_ACTION_TOKEN", "KUBE_READ_TOKEN"):
        assert credential in held("wk-watchkeeper-worker")
        assert credential not in held("wk-watchkeeper-web")
    assert container(deployments["wk-watchkeeper-web"])["args"] == ["serve", "--no-work"]
    assert container(deployments["wk-watchkeeper-worker"])["args"] == ["worker"]


def test_a_config_map_stops_everything_also_without_the_database() -> None:
    """Every process looks at a file that is there as soon as somebody makes the map, and starts without it."""
    deployments = of_kind(rendered(), "Deployment")

    assert len(deployments) == 2
    for deployment in deployments.values():
        [volume] = [each for each in deployment["spec"]["template"]["spec"]["volumes"] if each["name"] == "stop"]
        [mount] = [each for each in container(deployment)["volumeMounts"] if each["name"] == "stop"]
        path = {each["name"]: each.get("value") for each in container(deployment)["env"]}["WATCHKEEPER_STOP_FILE"]
        assert volume["configMap"] == {"name": "wk-watchkeeper-stop", "optional": True}
        assert mount == {"name": "stop", "mountPath": str(Path(path).parent), "readOnly": True}


def test_the_clusters_own_certificate_is_there_to_be_trusted() -> None:
    """Without a mounted account token Kubernetes does not put it into the pod by itself."""
    pod = of_kind(rendered(), "Deployment")["wk-watchkeeper-worker"]["spec"]["template"]["spec"]

    assert {"name": "cluster", "configMap": {"name": "kube-root-ca.crt"}} in pod["volumes"]
    [mount] = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "cluster"]
    assert mount == {"name": "cluster", "mountPath": "/etc/cluster", "readOnly": True}


def test_nothing_runs_with_rights_of_the_host() -> None:
    """Every pod is non-root, read-only, without capabilities and without a token that it did not ask for."""
    objects = rendered()
    pods = [each["spec"]["template"]["spec"] for each in objects if each["kind"] in {"Deployment", "Job"}]
    assert len(pods) == 3

    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for each in pod["containers"]:
            assert each["securityContext"]["readOnlyRootFilesystem"] is True
            assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_each_enabled_action_brings_its_own_role_and_no_other() -> None:
    """Who enables `kubernetes.scale` alone gives away that and reading, in the named namespaces, and nodes' events."""
    objects = rendered({"kubernetes": {"namespaces": ["chat"], "actions": ["kubernetes.scale"]}})
    roles = {each["metadata"]["name"]: each for each in objects if each["kind"] == "Role"}

    assert set(roles) == {"wk-watchkeeper-diagnosis", "wk-watchkeeper-kubernetes-scale"}
    assert {role["metadata"]["namespace"] for role in roles.values()} == {"chat"}
    everywhere = {name: each["rules"] for name, each in of_kind(objects, "ClusterRole").items()}
    assert everywhere == {"wk-watchkeeper-diagnosis": [{"apiGroups": [""], "resources": ["events"], "verbs": ["list"]}]}
    for name, role in roles.items():
        writes = {verb for rule in role["rules"] for verb in rule["verbs"]} - {"get", "list", "watch"}
        assert bool(writes) == (name != "wk-watchkeeper-diagnosis")


def test_without_namespaces_there_are_no_rights_at_all() -> None:
    """Who does not let Watchkeeper into the cluster has no account of it there."""
    objects = rendered({"kubernetes": {"namespaces": [], "actions": []}})

    assert not {each["kind"] for each in objects} & {"Role", "ClusterRole", "ServiceAccount", "Secret"}


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"config": ""}, "config"),
        ({"kubernetes": {"namespaces": ["chat"], "actions": ["kubernetes.explode"]}}, "there is no action"),
        ({"kubernetes": {"namespaces": ["Chat!"], "actions": []}}, "namespaces"),
        ({"workers": {"replicas": 2}}, "workers"),
    ],
)
def test_wrong_values_are_named(values: dict[str, Any], complaint: str) -> None:
    """A typing mistake in values.yaml ends with its name, not with a release that silently lacks something."""
    with pytest.raises(helm_python.HelmError, match=complaint):
        rendered(values)
