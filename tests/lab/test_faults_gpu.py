"""The GPU family of faults, each played in a small world: what its telemetry shows, where, and that healing shows."""

from __future__ import annotations

import copy
from datetime import timedelta

import numpy as np
import pytest

from lab.cluster import ENGINE
from lab.scenarios.bad_image import BadImage
from lab.scenarios.faults_gpu import FAULTS
from lab.scenarios.node_fault import serving_nodes
from tests.lab.played_faults import WINDOW, minutes, play
from tests.lab.played_worlds import LIVE_START, SmallWorld

CRITICAL = {"48", "64", "74", "79", "95", "119", "120", "140"}
XIDS = "DCGM_EXP_XID_ERRORS_COUNT"
RESTARTS = "kube_pod_container_status_restarts_total"


def test_a_lost_gpu_takes_its_pod_and_its_series_along() -> None:
    """XID 79, then no series of that GPU; errors for a minute; the new pod stays pending until the node is repaired."""
    played = play("G01")
    calm = played.means()
    victim = played.pods()[played.node]
    played.breaks()
    first = played.means(minutes(2))
    after = played.means()

    assert played.xids() == {"79": {played.node}}
    assert np.isnan(played.gpu("DCGM_FI_DEV_SM_CLOCK"))
    assert played.world.total("kube_node_status_allocatable", node=played.node) == 0
    assert first["5xx"][""] > 0.02
    assert after["5xx"][""] < 0.005
    assert victim not in played.world.cluster.kinds["pods"]
    assert played.world.total("kube_pod_status_phase", phase="Pending") == 1
    assert played.available() == 3
    for node, rps in after["rps"].items():
        assert rps == pytest.approx(calm["rps"][node] * 4 / 3, rel=0.12)
        assert after["ttft"][node] == pytest.approx(calm["ttft"][node], rel=0.18)
    assert played.fault.scope(played.world.stage) == ("node", [played.node])

    played.heals(minutes(5))
    assert played.available() == 4
    assert played.gpu("DCGM_FI_DEV_SM_CLOCK") > 1500


def test_a_lost_gpu_is_seen_once_before_it_is_silent() -> None:
    """Who watches the sticky gauge or the five-minute count sees 79, for at least one scrape of the exporter."""
    played = play("G01")
    played.breaks(timedelta(seconds=30))
    assert played.gpu("DCGM_FI_DEV_XID_ERRORS") == 79
    assert played.gpu(XIDS, xid="79") == 1


def test_bad_memory_kills_every_engine_that_is_loaded_into_it() -> None:
    """Double-bit errors, a pending remap, one restart after the other on the same GPU; a reset ends it."""
    played = play("G02")
    played.breaks()
    victim = played.pods()[played.node]
    played.world.pass_time(minutes(9))

    assert played.world.total(RESTARTS, pod=victim) >= 3
    assert set(played.xids()) >= {"48"}
    assert set(played.xids()) <= CRITICAL | {"171"}
    assert {node for nodes in played.xids().values() for node in nodes} == {played.node}
    assert played.gpu("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL") >= 1
    assert played.gpu("DCGM_FI_DEV_ROW_REMAP_PENDING") == 1
    assert played.gpu("DCGM_FI_DEV_GPU_RECOVERY_ACTION") == 1
    assert played.available() == 3

    played.heals(minutes(10))
    assert played.available() == 4
    assert played.gpu("DCGM_FI_DEV_XID_ERRORS") == 0


def test_a_contained_error_costs_one_restart() -> None:
    """XIDs 63 and 94, a pending remap that did not fail, and the same pod ready again five minutes later."""
    played = play("G03")
    played.breaks()
    _, [victim] = played.fault.scope(played.world.stage)
    played.world.pass_time(minutes(2))
    assert played.available() == 3
    played.world.pass_time(minutes(8))

    assert played.available() == 4
    assert played.world.total(RESTARTS, pod=victim) == 1
    assert played.xids() == {"63": {played.node}, "94": {played.node}}
    assert played.gpu("DCGM_FI_DEV_ROW_REMAP_PENDING") == 1
    assert played.gpu("DCGM_FI_DEV_ROW_REMAP_FAILURE") == 0
    assert played.gpu("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS") >= 1
    assert played.gpu("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL") == 0


def test_a_corrected_error_hurts_nobody() -> None:
    """A control: a row was replaced, XID 63 was logged, and every service signal stays where it was."""
    played = play("G11")
    calm = played.means()
    played.breaks()
    after = played.means()

    assert played.fault.is_control
    assert played.xids() == {"63": {played.node}}
    assert played.gpu("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS") >= 1
    assert played.gpu("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL") >= 1
    assert played.gpu("DCGM_FI_DEV_ROW_REMAP_PENDING") == 0
    assert played.world.total(RESTARTS) == 0
    for name in ("itl", "ttft", "rps"):
        for node, value in after[name].items():
            assert value == pytest.approx(calm[name][node], rel=0.15)
    assert after["5xx"][""] < 0.005


def test_an_overheating_node_is_slow_alone() -> None:
    """Hot, at a lower clock and fewer watts; its pod's tokens take half as long again, everybody else's do not."""
    played = play("G04")
    calm = played.means()
    played.breaks(minutes(9))
    after = played.means()

    assert after["itl"][played.node] > 1.3 * calm["itl"][played.node]
    assert max(played.others(after["itl"])) < 1.1 * min(played.others(calm["itl"]))
    assert after["ttft"][played.node] == pytest.approx(calm["ttft"][played.node], rel=0.18)
    assert played.gpu("DCGM_FI_DEV_GPU_TEMP") > 82
    assert played.gpu("DCGM_FI_DEV_SM_CLOCK") < 1500
    assert played.gpu("DCGM_FI_DEV_POWER_USAGE") < 415
    assert played.gpu("DCGM_EXP_CLOCK_EVENTS_COUNT", clock_event="sw_thermal") > 10
    assert played.gpu("DCGM_EXP_CLOCK_EVENTS_COUNT", clock_event="hw_power_brake") == 0
    assert played.gpu("DCGM_FI_DEV_THERMAL_VIOLATION") > 0
    assert played.xids() == {}

    played.heals(minutes(8))
    assert played.means()["itl"][played.node] == pytest.approx(calm["itl"][played.node], rel=0.1)


def test_a_rack_without_power_is_slow_and_cool() -> None:
    """All its nodes at once, at half their clock, with the reason in the clock events; the other rack is well."""
    played = play("G05")
    calm = played.means()
    played.breaks(minutes(2))
    after = played.means()

    dimension, [rack] = played.fault.scope(played.world.stage)
    hit = {
        replica.labels["node"] for replica in played.world.fleet._replicas.values() if replica.labels["rack"] == rack
    }
    assert dimension == "rack"
    assert len(hit) >= 2
    for node, itl in after["itl"].items():
        if node not in hit:
            assert itl == pytest.approx(calm["itl"][node], rel=0.1)
            continue
        assert itl > 1.45 * calm["itl"][node]
        assert played.gpu("DCGM_FI_DEV_SM_CLOCK", node) < 1425
        assert played.gpu("DCGM_FI_DEV_POWER_USAGE", node) < 400
        assert played.gpu("DCGM_FI_DEV_GPU_TEMP", node) < 61
        events = {"hw_power_brake", "power_cap"}
        assert sum(played.gpu("DCGM_EXP_CLOCK_EVENTS_COUNT", node, clock_event=event) for event in events) > 10
        assert played.gpu("DCGM_EXP_CLOCK_EVENTS_COUNT", node, clock_event="sw_thermal") == 0

    played.heals(minutes(2))
    assert max(played.means()["itl"].values()) < 1.1 * max(calm["itl"].values())


def test_nvlink_errors_slow_prefill_and_decode_of_one_group() -> None:
    """Two GPUs an engine; errors by the minute; clocks and temperature as ever."""
    played = play("G06")
    calm = played.means()
    played.breaks()
    after = played.means()

    assert played.fault.scope(played.world.stage) == ("pod", [played.pods()[played.node]])
    kinds = ("REPLAY", "RECOVERY", "CRC_FLIT", "CRC_DATA")
    errors = [
        played.world.total(f"DCGM_FI_DEV_NVLINK_{kind}_ERROR_COUNT_TOTAL", Hostname=played.node) for kind in kinds
    ]
    assert sum(errors) / (WINDOW.total_seconds() / 60) > 15
    assert played.world.total("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL") == errors[0]
    assert after["itl"][played.node] > 1.22 * calm["itl"][played.node]
    assert after["prefill"][played.node] > 1.25 * calm["prefill"][played.node]
    assert max(played.others(after["itl"])) < 1.1 * max(calm["itl"].values())
    assert played.gpu("DCGM_FI_DEV_SM_CLOCK") == pytest.approx(1900, rel=0.1)
    assert played.gpu("DCGM_FI_DEV_GPU_TEMP") == pytest.approx(62, abs=5)
    assert set(played.xids()) <= {"74", "145", "149"}
    assert {node for nodes in played.xids().values() for node in nodes} == {played.node}
    assert len({s.labels["UUID"] for s in played.world.fleet.registry.series if "UUID" in s.labels}) >= 8

    played.heals(minutes(1))
    assert played.means()["itl"][played.node] == pytest.approx(calm["itl"][played.node], rel=0.1)


def test_a_bad_image_crashes_on_every_node() -> None:
    """Application XIDs where its pods run and nowhere else, memory counters at rest; rolling back heals."""
    played = play("G08")
    usual = copy.deepcopy(played.world.cluster.get("deployments", ENGINE)["spec"]["template"])
    played.breaks(minutes(8))
    fault = played.fault
    assert isinstance(fault, BadImage)

    dimension, [revision] = fault.scope(played.world.stage)
    fresh = [
        pod
        for pod in played.world.cluster.pods_of(ENGINE)
        if pod["metadata"]["labels"]["pod-template-hash"] == revision
    ]
    nodes = {node for nodes in played.xids().values() for node in nodes}
    assert dimension == "revision"
    assert nodes == {pod["spec"]["nodeName"] for pod in fresh}
    assert len(nodes) >= 3
    assert set(played.xids()) <= {"13", "31"}
    assert played.available() == 2
    assert played.world.total(RESTARTS) >= 5
    assert played.world.total("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL") == 0
    [guilty] = [change for change in played.world.stage.log if change.is_guilty]
    assert (guilty.kind, guilty.at, guilty.scope["revision"]) == ("engine", played.at, (revision,))
    assert guilty.before != guilty.after

    deployment = copy.deepcopy(played.world.cluster.get("deployments", ENGINE))
    deployment["spec"]["template"] = usual
    played.world.cluster.update_deployment(deployment, played.world.fleet.now)
    played.world.pass_time(minutes(6))
    assert played.available() == 4


def test_a_hung_firmware_stalls_the_engine_and_silences_its_sensors() -> None:
    """No step and no finished request on a pod that stays ready; nvidia-smi hangs; a fifth of all requests fail."""
    played = play("G09")
    calm = played.means()
    played.breaks(minutes(3))
    after = played.means()

    assert after["steps"][played.node] == 0
    assert np.isnan(after["itl"][played.node])
    assert played.world.total("vllm:num_requests_running", node=played.node) > 15
    assert played.world.total("vllm:num_requests_waiting", node=played.node) > 4
    assert 0.08 < after["5xx"][""] < 0.3
    assert min(played.others(after["steps"])) > 0.85 * min(played.others(calm["steps"]))
    assert played.available() == 4
    assert played.world.total(RESTARTS) == 0
    assert set(played.xids()) <= {"119", "120"}
    assert {node for nodes in played.xids().values() for node in nodes} == {played.node}
    assert np.isnan(played.gpu("DCGM_FI_DEV_GPU_UTIL"))
    assert played.world.total("watchkeeper_probe_nvidia_smi_ok", node=played.node) == 0
    assert played.world.total("watchkeeper_probe_nvidia_smi_ok") == 5

    played.heals(minutes(1))
    assert played.means()["steps"][played.node] > 0.85 * calm["steps"][played.node]
    assert played.world.total("watchkeeper_probe_nvidia_smi_ok") == 6
    assert played.gpu("DCGM_FI_DEV_GPU_UTIL") > 50


def test_wrong_arithmetic_spoils_the_answers_of_one_pod() -> None:
    """Longer answers in a worse form on one pod, which fixed prompts tell apart; no XID, clocks and prefill as ever."""
    played = play("G10")
    victim = played.pods()[played.node]
    calm, calm_forms = played.means(), played.forms()
    played.breaks(minutes(4))
    before, after = played.forms(), played.means(minutes(6))
    forms = played.forms()

    assert after["output"][played.node] > 1.4 * calm["output"][played.node]
    assert max(played.others(after["output"])) < 1.18 * max(calm["output"].values())
    assert after["prefill"][played.node] == pytest.approx(calm["prefill"][played.node], rel=0.18)
    for pod, (valid, whole) in forms.items():
        share = (valid - before[pod][0]) / (whole - before[pod][1])
        usual = calm_forms[pod][0] / calm_forms[pod][1]
        assert share < usual - 0.06 if pod == victim else share == pytest.approx(usual, abs=0.02)
    ratio = "watchkeeper_probe_golden_prompt_mismatch_ratio"
    assert played.world.total(ratio, pod=victim) >= 0.2
    assert played.world.total(ratio) - played.world.total(ratio, pod=victim) <= 0.15
    assert played.xids() == {}
    assert played.gpu("DCGM_FI_DEV_SM_CLOCK") == pytest.approx(1900, rel=0.1)
    assert played.fault.scope(played.world.stage) == ("pod", [victim])

    played.heals(minutes(2))
    assert played.means()["output"][played.node] < 1.18 * calm["output"][played.node]


@pytest.mark.parametrize(("id_", "warms_up"), [("G04", minutes(8)), ("G05", minutes(0)), ("G06", minutes(0))])
def test_a_stronger_fault_slows_more(id_: str, warms_up: timedelta) -> None:
    """Half as strong, as strong as usual, half as strong again: each slower than the one before, none absurdly."""
    world, slowest = SmallWorld(), []
    for strength in (0.5, 1.0, 1.6):
        fault = FAULTS[id_](strength)
        fault.set_up(world.stage, LIVE_START)
        fault.apply(world.stage, 1.0, world.fleet.now)
        world.pass_time(warms_up)
        slowest.append(max(world.hardware.slowness(node) for node in serving_nodes(world.stage)))
    mild, usual, strong = slowest
    assert 1.05 < mild < usual < strong < 2.5
    assert usual - 1 == pytest.approx(2 * (mild - 1), rel=0.6)


def test_victims_are_drawn() -> None:
    """Another draw, another node."""
    played = play("G02")
    nodes = set()
    for _ in range(20):
        played.fault.draw(played.world.stage)
        nodes.add(played.node)
    assert nodes == set(serving_nodes(played.world.stage))
