"""What the GPUs are like: how warm, how fast, what is broken in them; healthy unless something happened to them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from math import exp

from lab.exposition import STEP

_FIVE_MINUTES = round(300 / STEP.total_seconds())  # in steps

_IDLE_C, _BUSY_C = 34.0, 62.0
_UNCOOLED_IDLE_C, _UNCOOLED_BUSY_C = 47.0, 89.0
_BRAKED_BY_C = 7.0
_NEIGHBOUR_C = 4.0
"""What a GPU gains from air that an uncooled, busy node of its rack has warmed."""
_WARMING_S, _UNCOOLED_WARMING_S = 45.0, 150.0
"""Time constants: with its fans a GPU settles in two minutes; without them it creeps, six minutes for nine tenths."""

BUSY_MHZ = 1900
_THROTTLED_BY_MHZ, _BRAKED_BY_MHZ = 800, 950
_LOWEST_MHZ = 510  # nothing holds a busy GPU back further
_SLOWDOWN_FROM_C, _SLOWEST_AT_C, _HARD_SLOWDOWN_C = 78.0, 87.0, 89.5
_BUSY_W, _THROTTLED_BY_W, _BRAKED_BY_W, _WAITING_FOR_LINKS_W = 480, 130, 190, 80
_SLOWNESS_EXPONENT = 0.65
"""A decode waits for memory as well as for the clock: 1100 of 1900 MHz make it slower by 1.43, not by 1.73."""
_LINKS_SLOW_DECODE, _LINKS_SLOW_PREFILL = 0.318, 0.5
"""By what share of their time decode and prefill grow where a tensor-parallel group repeats what its links lost."""

NVLINK_ERRORS = ("REPLAY", "RECOVERY", "CRC_FLIT", "CRC_DATA")


@dataclass(frozen=True, kw_only=True)
class Brake:
    """
    Clocks held down for want of power: `reason` is the clock event, `hw_power_brake` or `power_cap`.

    `depth` 1 halves the clock; 0 is none.
    """

    reason: str
    depth: float


@dataclass(kw_only=True)
class Chip:
    """One GPU's own state. Counters count from the last time its driver was loaded."""

    last_xid: int = 0
    xids: Counter[int] = field(default_factory=Counter)
    single_bit_errors: int = 0
    double_bit_errors: int = 0
    remapped_correctable: int = 0
    remapped_uncorrectable: int = 0
    is_remap_pending: bool = False
    is_remap_failed: bool = False
    is_memory_bad: bool = False  # what is loaded into it does not last
    recovery_action: int = 0  # NVML's codes: 0 none, 1 reset the GPU, 2 reboot the node
    is_lost: bool = False  # fallen off the bus
    is_hung: bool = False  # its firmware answers nobody
    silent_from: int | None = None  # the step from which its exporter says nothing about it
    link_faults: float = 0.0  # 1 is thirty errors a minute
    corruption: float = 0.0  # the share of answers that wrong arithmetic spoils
    _recent: deque[tuple[int, int]] = field(default_factory=deque)

    def strike(self, xid: int, step: int) -> None:
        """Let the driver log an XID."""
        self.last_xid = xid
        self.xids[xid] += 1
        self._recent.append((step, xid))

    def recent(self, xid: int, step: int) -> int:
        """How many of these XIDs the last five minutes saw."""
        while self._recent and self._recent[0][0] <= step - _FIVE_MINUTES:
            self._recent.popleft()
        return sum(seen == xid for _, seen in self._recent)


@dataclass(frozen=True, kw_only=True)
class Drive:
    """How hard the host drives a busy GPU, as factors on what it reads at rest: kernels to run, and watts for them."""

    util: float = 1.0
    power: float = 1.0


@dataclass(kw_only=True)
class Hardware:
    """
    How warm each node's GPUs are, which nodes lost cooling or power, and what is broken in which chip.

    A temperature moves to where load, cooling and clocks let it settle. From 78 C on a GPU lowers its clock. A node
    that gets its load taken away cools, but stays warmer than one whose cooling works. `uncooled` says by how much the
    clock of a node without fans falls in the end: 1 is to 1100 MHz at 88 C.
    """

    uncooled: dict[str, float] = field(default_factory=dict)
    braked: dict[str, Brake] = field(default_factory=dict)
    drives: dict[str, Drive] = field(default_factory=dict)
    now: int = 0  # in steps
    _chips: dict[tuple[str, int], Chip] = field(default_factory=dict)
    _temperatures: dict[str, float] = field(default_factory=dict)
    _held_back: dict[str, deque[frozenset[str]]] = field(default_factory=dict)

    def step(self, racks: Mapping[str, str], busy: AbstractSet[str]) -> None:
        """Let one scrape interval pass over these nodes, given by name with the rack of each."""
        self.now += 1
        warm_racks = {racks[node] for node in self.uncooled.keys() & busy & racks.keys()}
        for node, rack in racks.items():
            target = self._settles_at(node, is_busy=node in busy)
            if rack in warm_racks and node not in self.uncooled:
                target += _NEIGHBOUR_C
            constant_s = _UNCOOLED_WARMING_S if node in self.uncooled else _WARMING_S
            share = 1 - exp(-STEP.total_seconds() / constant_s)
            before = self._temperatures.get(node, target)
            self._temperatures[node] = before + share * (target - before)
            recent = self._held_back.setdefault(node, deque(maxlen=_FIVE_MINUTES))
            recent.append(self._held_back_by(node) if node in busy else frozenset())

    # What happens to it, and what mends it

    def chip(self, node: str, gpu: int = 0) -> Chip:
        return self._chips.setdefault((node, gpu), Chip())

    def strike(self, node: str, xid: int, gpu: int = 0) -> None:
        self.chip(node, gpu).strike(xid, self.now)

    def repair(self, node: str) -> None:
        """Reset a node's GPUs with a reboot and, where that is not enough, other parts; cooling is another matter."""
        for place in [place for place in self._chips if place[0] == node]:
            del self._chips[place]

    # How it works under load

    def slowness(self, node: str) -> float:
        """By how much this node's GPUs decode slower than healthy ones."""
        clock = float((BUSY_MHZ / self.clock_mhz(node)) ** _SLOWNESS_EXPONENT)
        return clock * (1 + _LINKS_SLOW_DECODE * self._link_faults(node))

    def prefill_slowness(self, node: str) -> float:
        """Prefill exchanges whole prompts over the links; it is short, so that clocks matter less to it."""
        return 1 + _LINKS_SLOW_PREFILL * self._link_faults(node)

    def is_stalled(self, node: str) -> bool:
        """Whether nothing that was given to this node's GPUs comes back."""
        return any(chip.is_hung for chip in self._of(node))

    def corrupts(self, node: str) -> float:
        """The share of a node's answers that are spoilt by wrong arithmetic, 0 to 1."""
        return max((chip.corruption for chip in self._of(node)), default=0.0)

    def lost(self, node: str) -> int:
        """How many of a node's GPUs are gone from its bus."""
        return sum(chip.is_lost for chip in self._of(node))

    def has_bad_memory(self, node: str) -> bool:
        return any(chip.is_memory_bad for chip in self._of(node))

    # What its sensors show

    def temperature_c(self, node: str) -> float:
        return self._temperatures.get(node, _IDLE_C)

    def clock_mhz(self, node: str) -> float:
        """Of a busy GPU."""
        by_heat = self._heat(node) * self.uncooled.get(node, 1.0) * _THROTTLED_BY_MHZ
        return max(_LOWEST_MHZ, BUSY_MHZ - max(by_heat, self._brake(node) * _BRAKED_BY_MHZ))

    def drive(self, node: str) -> Drive:
        return self.drives.get(node) or Drive()

    def power_w(self, node: str) -> float:
        """Of a busy GPU."""
        by_heat = self._heat(node) * self.uncooled.get(node, 1.0) * _THROTTLED_BY_W
        by_links = min(2.0, self._link_faults(node)) * _WAITING_FOR_LINKS_W
        held_back = max(by_heat, self._brake(node) * _BRAKED_BY_W, by_links)
        return max(120.0, (_BUSY_W - held_back) * self.drive(node).power)

    def clock_events(self, node: str, event: str) -> int:
        """In how many scrape intervals of the last five minutes this reason held the clock back."""
        return sum(event in reasons for reasons in self._held_back.get(node, ()))

    def is_held_back_by(self, node: str, *events: str) -> bool:
        """Whether one of these reasons holds the clock back right now."""
        recent = self._held_back.get(node)
        return recent is not None and not recent[-1].isdisjoint(events)

    def _settles_at(self, node: str, *, is_busy: bool) -> float:
        if node in self.uncooled:
            hotter = min(1.6, max(0.3, self.uncooled[node])) - 1
            return _UNCOOLED_BUSY_C + 4 * hotter if is_busy else _UNCOOLED_IDLE_C
        return _BUSY_C - _BRAKED_BY_C * min(1.5, self._brake(node)) if is_busy else _IDLE_C

    def _heat(self, node: str) -> float:
        """0 while the GPU may run as fast as it can, 1 at the lowest clock that its heat brings about."""
        over = self.temperature_c(node) - _SLOWDOWN_FROM_C
        return min(1.0, max(0.0, over / (_SLOWEST_AT_C - _SLOWDOWN_FROM_C)))

    def _brake(self, node: str) -> float:
        return self.braked[node].depth if node in self.braked else 0.0

    def _link_faults(self, node: str) -> float:
        return max((chip.link_faults for chip in self._of(node)), default=0.0)

    def _held_back_by(self, node: str) -> frozenset[str]:
        reasons = {"sw_thermal"} if self._heat(node) > 0 else set()
        if self.temperature_c(node) >= _HARD_SLOWDOWN_C:
            reasons |= {"hw_thermal", "hw_slowdown"}
        if self._brake(node) > 0:
            reasons.add(self.braked[node].reason)
            if self.braked[node].reason == "hw_power_brake":
                reasons.add("hw_slowdown")
        return frozenset(reasons)

    def _of(self, node: str) -> list[Chip]:
        return [chip for (name, _), chip in self._chips.items() if name == node]
