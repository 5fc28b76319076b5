"""The GPU checks: whose fault an XID is, what the driver recommends, links, throttling, and what nobody exports."""

from __future__ import annotations

import pytest

from diagnostics.causes import knowledge
from diagnostics.checks import CHECKS
from diagnostics.checks.gpu_pcie import limit_of
from diagnostics.findings import Finding, Status
from diagnostics.telemetry.recorded import load_openmetrics
from diagnostics.xids import SIGNALS, XIDS, in_words, needs_action, signal_of
from tests import synthetic
from tests.application_signals import STEP, Series, gauge, has, of_service, text, values
from tests.diagnosed import HISTORY, frame_of

CHAT = {"namespace": "chat"}
CLOCK = "DCGM_FI_DEV_SM_CLOCK"
XID = "DCGM_FI_DEV_XID_ERRORS"
NVLINK = "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL"


def gpu(number: int, pod: str = "") -> dict[str, str]:
    """Labels of the one GPU of node-<number>."""
    return {"Hostname": f"node-{number}", "gpu": "0", "UUID": f"GPU-{number}", "pod": pod or f"chat-vllm-{number}"}


def running(number: int, pod: str = "", revision: str = "") -> Series:
    labels = {"pod": pod or f"chat-vllm-{number}", "node": f"node-{number}", "rack": f"rack-{number // 2}"}
    return gauge("vllm:num_requests_running", 30, 30, **labels, revision=revision or "old")


async def ask(check: str, *series: Series, more: str = "") -> Finding:
    whole = text(series, selector=CHAT).replace("# EOF\n", f"{more}# EOF\n")
    return await CHECKS[check](synthetic.target(), load_openmetrics(whole), frame_of())


def ticking(name: str, before: float, since: float, **labels: str) -> str:
    """Lines of a count without `_total`, as DCGM names them; so much more per second before and since the onset."""
    inside = ",".join(f'{label}="{value}"' for label, value in {**CHAT, **labels}.items())
    lines, count, instant = [f"# TYPE {name} gauge"], 0.0, synthetic.END - HISTORY
    while instant <= synthetic.END:
        count += STEP.total_seconds() * (before if instant < synthetic.ONSET else since)
        lines.append(f"{name}{{{inside}}} {count:.3f} {instant.timestamp():.3f}")
        instant += STEP
    return "\n".join(lines) + "\n"


def test_every_code_has_a_meaning_and_an_action() -> None:
    """The catalogue's codes are all there; a signal exists for each that the causes reason with."""
    for code in (*range(8, 14), 31, 32, *range(37, 49), *range(61, 65), 74, 79, 92, 94, 95, *range(119, 122)):
        if code not in {10, 14}:
            assert XIDS[code].meaning, code
            assert XIDS[code].action, code
    assert set(range(126, 174)) - {138} <= XIDS.keys()
    assert {*SIGNALS.values(), "xid_other"} <= knowledge.load().signals.keys()
    assert SIGNALS.keys() <= XIDS.keys()


@pytest.mark.parametrize(
    ("code", "action", "bad", "signal"),
    [
        (79, "restart the bare metal", True, "xid_fallen_off_bus"),
        (63, "ignore", False, "xid_row_remap"),
        (43, "ignore", False, "xid_application"),
        (13, "restart the application", True, "xid_application"),
        (109, "reset the GPU", True, "xid_other"),
        (45, "follow the other XID; alone, restart the application", False, None),
        (68, "restart the application", True, None),
        (38, "ignore", True, "xid_other"),
    ],
)
def test_codes_are_judged_by_nvidias_action(code: int, action: str, signal: str | None, *, bad: bool) -> None:
    """A code to ignore convicts nobody; one that no cause explains and needs a reset stands as such."""
    assert (XIDS[code].action, needs_action(code), signal_of(code)) == (action, bad, signal)


def test_an_unknown_code_is_told_by_its_number() -> None:
    """NVIDIA adds codes; a new one is neither hidden nor blamed."""
    assert (in_words(999), needs_action(999), signal_of(999)) == ("XID 999", False, None)


async def test_an_applications_code_on_two_nodes_is_the_softwares() -> None:
    """Page faults on two nodes, both under the new revision: the image and not two GPUs at once."""
    fresh = [running(n, pod=f"chat-vllm-new-{n}", revision="new") for n in (1, 2)]
    arrived = [Series(one.name, one.labels, None, one.since, is_gauge=True) for one in fresh]
    codes = [gauge(XID, 0, 31, **gpu(n, f"chat-vllm-new-{n}")) for n in (1, 2)]
    finding = await ask("gpu_xid", running(0), *arrived, gauge(XID, 0, 0, **gpu(0)), *codes)
    assert finding.status is Status.BAD
    assert "the software, since 2 nodes show it" in finding.summary
    assert of_service(finding, "xid_application").value == 2
    assert values(finding, "revision", "xid_application") == {"new"}


async def test_an_applications_code_that_stays_on_one_gpu_is_the_gpus() -> None:
    """Two revisions met it on the same GPU: changing the software did not help."""
    old, new = running(1, "chat-vllm-old-1", "old"), running(1, "chat-vllm-new-1", "new")
    seen = [
        gauge(CLOCK, 1900, 1900, **gpu(1, "chat-vllm-old-1")),
        gauge(CLOCK, 1900, 1900, **gpu(1, "chat-vllm-new-1")),
    ]
    finding = await ask("gpu_xid", old, new, *seen, gauge(XID, 0, 13, **gpu(1)))
    assert "dcgmi diag" in finding.summary
    assert of_service(finding, "xid_other").value == 1
    assert of_service(finding, "xid_application").value == 0


async def test_a_gpu_that_vanished_took_its_code_with_it() -> None:
    """Without the kernel's log nobody knows whether XID 79 came; zero would speak against what happened."""
    series = [gauge(XID, 0, 0, **gpu(0)), gauge(XID, 0, None, **gpu(1))]
    assert not has(await ask("gpu_xid", *series), "xid_fallen_off_bus")
    other = gauge("watchkeeper_probe_kernel_xid_total", 1, 1, node="node-1", gpu="0", UUID="GPU-1", xid="63")
    assert of_service(await ask("gpu_xid", *series, other), "xid_fallen_off_bus").value == 0


async def test_the_probe_is_found_by_its_nodes() -> None:
    """A probe's series carry the probe's namespace; the nodes are the service's, so they count."""
    times = [stamp for stamp, _ in synthetic_points()]
    lines = "".join(
        f'watchkeeper_probe_kernel_xid_total{{namespace="monitoring",node="{node}",gpu="0",UUID="",xid="119"}} 1 {t}\n'
        for node in ("node-1", "node-99")
        for t in times
    )
    finding = await ask(
        "gpu_xid", gauge(XID, 0, 0, **gpu(1)), more=f"# TYPE watchkeeper_probe_kernel_xid counter\n{lines}"
    )
    assert of_service(finding, "xid_gsp").value == 1
    assert values(finding, "node", "xid_gsp") == {"node-1"}


def synthetic_points() -> list[tuple[str, int]]:
    """Timestamps of the minutes since the onset."""
    return [(f"{synthetic.ONSET.timestamp() + 60 * minute:.3f}", minute) for minute in range(1, 13)]


async def test_a_pending_remap_is_bad_though_dcgm_calls_the_gpu_healthy() -> None:
    """DCGM's verdict does not know about the reset that waits; the driver's recommendation does."""
    healthy = gauge("DCGM_EXP_GPU_HEALTH_STATUS", 0, 0, **gpu(1), health_watch="ALL")
    pending = gauge("DCGM_FI_DEV_ROW_REMAP_PENDING", 0, 1, **gpu(1))
    memory = await ask("gpu_ecc", healthy, pending, running(1))
    assert memory.status is Status.BAD
    assert values(memory, "pod") == {"chat-vllm-1"} == values(memory, "pod", "row_remap_pending")
    assert values(memory, "rack") == {"rack-0"}
    assert (await ask("gpu_health", healthy, pending)).status is Status.OK
    action = gauge("DCGM_FI_DEV_GPU_RECOVERY_ACTION", 0, 4, **gpu(1))
    health = await ask("gpu_health", healthy, pending, action)
    assert health.status is Status.BAD
    assert "drain the node and reset the GPU" in health.summary
    assert values(health, "node", "gpu_recovery_action") == {"node-1"}


async def test_a_failed_watch_is_named() -> None:
    """DCGM tells which of its watches fails; a warning alone is no failure."""
    name = "DCGM_EXP_GPU_HEALTH_STATUS"
    failed = await ask("gpu_health", gauge(name, 0, 20, **gpu(1), health_watch="NVLINK"))
    assert failed.status is Status.BAD
    assert "NVLINK" in failed.summary
    warned = await ask("gpu_health", gauge(name, 0, 10, **gpu(1), health_watch="MEM"))
    assert warned.status is Status.OK
    assert "warns about 1" in warned.summary


@pytest.mark.parametrize(
    ("generation", "width", "limit"), [(5, 16, 31), (4, 16, 16), (4, 8, 8), (3, 16, 8), (9, 16, 31)]
)
def test_the_replay_limit_follows_the_link(generation: int, width: int, limit: int) -> None:
    """DCGM's limits per lane and generation; a generation that we do not know counts as the fifth."""
    assert limit_of(generation, width) == limit


async def test_replays_and_a_narrow_link_are_bad() -> None:
    """Forty replays a minute pass the limit of 31; a link that lost half its lanes is told beside it."""
    name = "DCGM_FI_DEV_PCIE_REPLAY_COUNTER"
    noisy = await ask("gpu_pcie", more=ticking(name, 0, 40 / 60, **gpu(1)))
    assert noisy.status is Status.BAD
    assert values(noisy, "node", "pcie_replays_per_min") == {"node-1"}
    width = gauge("DCGM_FI_DEV_PCIE_LINK_WIDTH", 16, 8, **gpu(1))
    narrow = await ask("gpu_pcie", width, more=ticking(name, 0, 0, **gpu(1)))
    assert "8 lanes instead of 16" in narrow.summary


async def test_a_broken_fabric_is_bad_and_a_sound_one_leaves_the_links_unknown() -> None:
    """The fabric manager failed: bad. It runs, but nobody counts link errors: the finding names the line."""
    name = "DCGM_FI_DEV_FABRIC_MANAGER_STATUS"
    assert (await ask("gpu_nvlink", gauge(name, 3, 4, **gpu(1)))).status is Status.BAD
    sound = await ask("gpu_nvlink", gauge(name, 3, 3, **gpu(1)))
    assert sound.status is Status.UNKNOWN
    assert f"{NVLINK} is not exported; uncomment" in sound.summary


async def test_a_reloaded_driver_counts_from_zero_and_is_no_error() -> None:
    """Volatile counters begin anew with the driver; a count that fell is neither an error nor negative."""
    stamps = [(synthetic.END.timestamp() - 35 * 60 + 30 * step) for step in range(71)]
    labels = 'namespace="chat",Hostname="node-1",gpu="0",UUID="GPU-1"'
    lines = "".join(f"{NVLINK}{{{labels}}} {0 if at > stamps[60] else 5000} {at:.3f}\n" for at in stamps)
    finding = await ask("gpu_nvlink", more=f"# TYPE {NVLINK} gauge\n{lines}")
    assert finding.status is Status.OK
    assert of_service(finding, "nvlink_errors_per_min").value == 0


async def test_reasons_come_from_the_mask_where_events_are_not_counted() -> None:
    """0x44 is a power cap and heat at once; the cap alone is normal, the heat is not."""
    clocks = [gauge(CLOCK, 1900, 1100, **gpu(1)), gauge(CLOCK, 1900, 1900, **gpu(2))]
    masks = [gauge("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", 0x4, 0x44, **gpu(1))]
    finding = await ask("gpu_throttling", *clocks, *masks, running(1), running(2))
    assert "because of heat" in finding.summary
    assert of_service(finding, "thermal_slowdowns").value == 1
    assert values(finding, "node", "sm_clock") == {"node-1"}
    assert values(finding, "rack", "sm_clock") == {"rack-0"}


async def test_time_capped_by_heat_counts_as_heat() -> None:
    """DCGM counts it in nanoseconds: a tenth of the time is a slowdown, a touch of the limit is none."""
    name = "DCGM_FI_DEV_THERMAL_VIOLATION"
    clock = gauge(CLOCK, 1900, 1850, **gpu(1))
    assert (await ask("gpu_throttling", clock, more=ticking(name, 0, 1e8, **gpu(1)))).status is Status.BAD
    assert (await ask("gpu_throttling", clock, more=ticking(name, 0, 1e6, **gpu(1)))).status is Status.OK


async def test_a_gpu_without_work_is_not_throttled() -> None:
    """Its pod crashed: the clock falls to idle, and nothing holds it back."""
    idle = [gauge(CLOCK, 1900, 345, **gpu(1)), gauge("DCGM_FI_DEV_GPU_UTIL", 92, 0, **gpu(1))]
    busy = [gauge(CLOCK, 1900, 1900, **gpu(2)), gauge("DCGM_FI_DEV_GPU_UTIL", 92, 92, **gpu(2))]
    finding = await ask("gpu_throttling", *idle, *busy)
    assert finding.status is Status.OK
    assert of_service(finding, "sm_clock").value == pytest.approx(1900)


async def test_a_driver_that_does_not_answer_is_bad() -> None:
    """nvidia-smi answered in the baseline and hangs now; a node on which it never worked is no news."""
    ok = "watchkeeper_probe_nvidia_smi_ok"
    clocks = [gauge(CLOCK, 1900, 1900, **gpu(n)) for n in (1, 2)]
    finding = await ask("gpu_missing", *clocks, gauge(ok, 1, 0, node="node-1"), gauge(ok, 0, 0, node="node-2"))
    assert finding.status is Status.BAD
    assert "node-1" in finding.summary
    assert values(finding, "node", "nvidia_smi_fails") == {"node-1"}


async def test_a_vanished_gpu_is_found_beside_the_living() -> None:
    """One series ends while its neighbours go on; where all end, the exporter is gone and nothing is known."""
    one = await ask("gpu_missing", gauge(CLOCK, 1900, 1900, **gpu(1)), gauge(CLOCK, 1900, None, **gpu(2)))
    assert values(one, "node", "gpus_missing") == {"node-2"}
    everyone = await ask("gpu_missing", gauge(CLOCK, 1900, None, **gpu(1)), gauge(CLOCK, 1900, None, **gpu(2)))
    assert everyone.status is Status.UNKNOWN


@pytest.mark.parametrize(("check", "trouble"), [("gpu_xid", XID), ("gpu_throttling", CLOCK), ("gpu_missing", CLOCK)])
async def test_a_strangers_gpu_convicts_nobody(check: str, trouble: str) -> None:
    """On a shared cluster DCGM says whose pod a GPU works for; without that every GPU of the selector counts."""
    since = {"gpu_xid": (0, 79), "gpu_throttling": (1900, 900), "gpu_missing": (1900, None)}[check]
    calm = {XID: (0, 0), CLOCK: (1900, 1900)}[trouble]
    mine = {**gpu(1), "exported_pod": "chat-vllm-1", "pod": "dcgm-exporter-a"}
    theirs = {**gpu(9), "exported_pod": "training-7", "pod": "dcgm-exporter-b"}
    finding = await ask(check, gauge(trouble, *calm, **mine), gauge(trouble, *since, **theirs), running(1))
    assert finding.status is Status.OK, finding.summary
    unattributed = [{**labels, "exported_pod": ""} for labels in (mine, theirs)]
    blamed = await ask(
        check, gauge(trouble, *calm, **unattributed[0]), gauge(trouble, *since, **unattributed[1]), running(1)
    )
    assert blamed.status is Status.BAD, blamed.summary


async def test_without_the_clock_heat_and_power_still_speak() -> None:
    """A brake convicts; a GPU that draws less and gets hotter is measured; and nobody calls unseen clocks normal."""
    warm = [gauge("DCGM_FI_DEV_GPU_TEMP", 60, 60 + 28 * (number == 2), **gpu(number)) for number in (1, 2)]
    power = [gauge("DCGM_FI_DEV_POWER_USAGE", 600, 600 - 250 * (number == 2), **gpu(number)) for number in (1, 2)]
    measured = await ask("gpu_throttling", *warm, *power, running(1), running(2))
    assert (measured.status, CLOCK in measured.summary) == (Status.UNKNOWN, True)
    assert of_service(measured, "gpu_temperature").value == 88
    assert of_service(measured, "gpu_power").value == 350

    brake = gauge("DCGM_EXP_CLOCK_EVENTS_COUNT", 0, 4, **gpu(2), clock_event="hw_power_brake")
    braked = await ask("gpu_throttling", *warm, *power, brake, running(1), running(2))
    assert braked.status is Status.BAD
    assert values(braked, "node") == {"node-2"}


@pytest.mark.parametrize("value", ["NaN", "+Inf", "9223372036854775794"])
@pytest.mark.parametrize(
    ("check", "name"),
    [
        ("gpu_ecc", "DCGM_FI_DEV_ROW_REMAP_PENDING"),
        ("gpu_health", "DCGM_FI_DEV_GPU_RECOVERY_ACTION"),
        ("gpu_pcie", "DCGM_FI_DEV_PCIE_REPLAY_COUNTER"),
        ("gpu_nvlink", NVLINK),
        ("gpu_throttling", CLOCK),
        ("gpu_xid", XID),
        ("gpu_missing", CLOCK),
    ],
)
async def test_values_that_are_none_convict_nobody(check: str, name: str, value: str) -> None:
    """NaN, infinity and DCGM's blank value say that there is no number."""
    labels = 'namespace="chat",Hostname="node-1",gpu="0",UUID="GPU-1"'
    lines = "".join(
        f"{name}{{{labels}}} {value} {synthetic.END.timestamp() - 60 * ago:.3f}\n" for ago in range(34, -1, -1)
    )
    finding = await ask(check, more=f"# TYPE {name} gauge\n{lines}")
    assert finding.status is not Status.BAD, finding.summary
    assert all(measure.value in (None, 0.0) for measure in finding.measures), finding.measures


async def test_missing_labels_are_no_crash() -> None:
    """A DCGM without Hostname or UUID still has a clock; what cannot be named is not named."""
    finding = await ask("gpu_throttling", gauge(CLOCK, 1900, 900))
    assert finding.status is Status.BAD
    assert not [measure for measure in finding.measures if any(not value for _, value in measure.scope)]


async def test_an_xid_after_a_reboot_counts_from_zero() -> None:
    """The log of the boot before is gone with its three; one has come since."""
    labels = {"node": "node-0", "gpu": "0", "UUID": "GPU-0", "xid": "79"}
    finding = await ask("gpu_xid", running(0), gauge("watchkeeper_probe_kernel_xid_total", 3, 1, **labels))
    assert finding.status is Status.BAD
    assert of_service(finding, "xid_fallen_off_bus").value == 1


async def test_a_remap_that_waits_since_long_is_bad_and_no_evidence() -> None:
    """The GPU needs its reset all the same; the trouble of today did not come from it."""
    finding = await ask("gpu_ecc", gauge("DCGM_FI_DEV_ROW_REMAP_PENDING", 1, 1, **gpu(1)), running(1))
    assert finding.status is Status.BAD
    assert "a row remap waits for a reset, and did before the trouble" in finding.summary
    assert of_service(finding, "row_remap_pending").value == 0


async def test_one_of_two_flags_is_enough() -> None:
    """A GPU reports both kinds of repair: what remapping waits for is not outweighed by retirement that does not."""
    flags = [
        gauge("DCGM_FI_DEV_ROW_REMAP_PENDING", 0, 1, **gpu(0)),
        gauge("DCGM_FI_DEV_RETIRED_PENDING", 0, 0, **gpu(0)),
    ]
    finding = await ask("gpu_ecc", *flags)
    assert finding.status is Status.BAD
    assert of_service(finding, "row_remap_pending").value == 1


async def test_a_gpu_that_another_pod_of_the_exporter_tells_of_is_not_gone() -> None:
    """Without a node's name, dcgm-exporter's Hostname is its pod's, and changes when that restarts."""
    before, since = ({"Hostname": f"dcgm-exporter-{pod}", "gpu": "0", "UUID": "GPU-0"} for pod in ("abcde", "fghij"))
    finding = await ask("gpu_missing", gauge(CLOCK, 1900, None, **before), gauge(CLOCK, None, 1900, **since))
    assert finding.status is Status.OK, finding.summary


async def test_a_gpu_that_is_exported_under_its_new_name_is_not_gone() -> None:
    """DCGM is upgraded node by node, and a node's GPUs change their metrics' names."""
    clocks = [gauge(CLOCK, 1900, 1900, **gpu(0)), gauge(CLOCK, 1900, None, **gpu(1))]
    finding = await ask("gpu_missing", *clocks, gauge(f"{CLOCK}_MHZ", None, 1900, **gpu(1)))
    assert finding.status is Status.OK, finding.summary


async def test_a_gpu_that_no_pod_uses_any_more_is_not_gone() -> None:
    """A drained node's GPU has no pod, and dcgm-exporter reports it without the service's namespace."""
    before, since = gpu(1), {**gpu(1), "namespace": ""}
    clocks = [gauge(CLOCK, 1900, 1900, **gpu(0)), gauge(CLOCK, 1900, None, **before), gauge(CLOCK, None, 120, **since)]
    finding = await ask("gpu_missing", *clocks)
    assert finding.status is Status.OK, finding.summary
