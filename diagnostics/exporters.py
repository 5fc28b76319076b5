"""Which exporter setting supplies a metric: what a person changes when a check cannot tell."""

from __future__ import annotations

_REMEDIES = (
    ("DCGM_EXP_XID_ERRORS_COUNT", "switch it on in dcgm-exporter's counters file (it is off by default)"),
    ("DCGM_EXP_CLOCK_EVENTS_COUNT", "switch it on in dcgm-exporter's counters file (it is off by default)"),
    ("DCGM_EXP_GPU_HEALTH_STATUS", "switch it on in dcgm-exporter's counters file (it is off by default)"),
    (
        "DCGM_FI_DEV_GPU_RECOVERY_ACTION",
        'add "DCGM_FI_DEV_GPU_RECOVERY_ACTION, gauge, recovery action" to dcgm-exporter\'s counters file',
    ),
    ("DCGM_FI_DEV_ROW_REMAP_PENDING", "add its line to dcgm-exporter's counters file (it is not there by default)"),
    ("DCGM_FI_DEV_ECC_", "uncomment the ECC lines in dcgm-exporter's counters file (they are off by default)"),
    ("DCGM_FI_DEV_NVLINK_", "uncomment the NVLink error lines in dcgm-exporter's counters file (off by default)"),
    ("DCGM_", "run dcgm-exporter on the GPU nodes and scrape it (port 9400)"),
    ("vllm:iteration_tokens_total", "scrape the engine's /metrics (vLLM V1 or newer exports it)"),
    ("vllm:", "scrape the engine's /metrics (vLLM exports it unless started with --disable-log-stats)"),
    ("litellm_", 'add "prometheus" to litellm_settings.callbacks and scrape the proxy\'s /metrics'),
    ("kube_", "run kube-state-metrics and scrape it"),
    ("container_", "scrape the kubelet's cAdvisor endpoint (/metrics/cadvisor)"),
    ("llm_app_", "instrument the application, or rename its own metrics by recording rules (docs/telemetry.md)"),
    ("watchkeeper_probe_nvidia_smi", "run `watchkeeper probe` on the GPU nodes and scrape it"),
    ("watchkeeper_probe_kernel_xid", "run `watchkeeper probe` on the GPU nodes and scrape it"),
    ("watchkeeper_probe_", "export it from a job of your own (docs/telemetry.md says what it must measure)"),
    ("http_requests_total", "scrape the API server's /metrics (its HTTP instrumentation exports it)"),
    ("up", "ask the telemetry that scrapes the engines itself"),
)


def remedy_for(metric: str) -> str:
    """What to do so that this metric exists; a general hint for a name we do not know."""
    for prefix, remedy in _REMEDIES:
        if metric.startswith(prefix):
            return remedy
    return "export it and scrape the exporter"
