"""The faults of quality and of security, by their ids; X04, X05 and X07 are those of keys and of spend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lab.scenarios.answer_limit import AnswersCutOff
from lab.scenarios.bad_prompts import FormLost, TooRestrictive
from lab.scenarios.changed_models import ProviderModelChanged, RolloutSkew
from lab.scenarios.excessive_agency import ExcessiveAgency
from lab.scenarios.injections import DirectInjection, PoisonedSource
from lab.scenarios.leaks import SensitiveOutput
from lab.scenarios.stricter_graders import JudgeChanged, PolicyTooStrict
from lab.scenarios.unfamiliar_inputs import UnfamiliarInputs

if TYPE_CHECKING:
    from lab.scenarios.fault import Fault

FAULTS: Mapping[str, type[Fault]] = {
    fault.id: fault
    for fault in (
        FormLost,
        TooRestrictive,
        ProviderModelChanged,
        RolloutSkew,
        AnswersCutOff,
        UnfamiliarInputs,
        JudgeChanged,
        PolicyTooStrict,
        DirectInjection,
        PoisonedSource,
        SensitiveOutput,
        ExcessiveAgency,
    )
}
