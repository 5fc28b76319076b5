"""Every fault of the catalogue, by its id."""

from __future__ import annotations

from collections.abc import Mapping

from lab.scenarios import faults_gpu, faults_integration, faults_quality, faults_serving
from lab.scenarios.fault import Fault

FAULTS: Mapping[str, type[Fault]] = {
    **faults_gpu.FAULTS,
    **faults_serving.FAULTS,
    **faults_integration.FAULTS,
    **faults_quality.FAULTS,
}
