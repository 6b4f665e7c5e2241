"""Energy of the processor: its own counters where they may be read, else a stated model."""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
CORE_WATTS = 12.0
"""What one busy core is taken to draw where nothing measures it.

References
----------
L. Lannelongue, J. Grealey, M. Inouye, "Green Algorithms: quantifying the carbon footprint of computation", Advanced Science
8(12), 2021: thermal design power per core; 12 W is its calculator's figure for a processor that it does not know.
"""


class Rapl:
    """The processor's energy counters (Intel and AMD RAPL, through Linux's powercap): packages and their memory.

    They count everything that runs on the machine, idle power included. Since 2020 only root may read them.

    Parameters
    ----------
    domains : sequence of Path
        Folders with ``energy_uj`` and ``max_energy_range_uj``.

    References
    ----------
    https://docs.kernel.org/power/powercap/powercap.html
    """

    def __init__(self, domains: list[Path]) -> None:
        self._counters = [(each / "energy_uj", _number(each / "max_energy_range_uj")) for each in domains]
        self._last = [_number(file) for file, _ in self._counters]
        self._total_uj = 0

    @classmethod
    def find(cls, root: Path = POWERCAP) -> Rapl | None:
        """Those of this machine, or ``None`` where there are none or they may not be read."""
        found = []
        for domain in sorted(root.glob("intel-rapl:*")):
            try:
                name = (domain / "name").read_text().strip()
                if name.startswith("package") or name == "dram":  # psys would count both again
                    _number(domain / "energy_uj")
                    found.append(domain)
            except (OSError, ValueError):
                continue
        return cls(found) if found else None

    def joules(self) -> float:
        """Since this object was made. Ask more often than the counters wrap around: a minute or more, at full load."""
        for place, (file, wraps_uj) in enumerate(self._counters):
            now = _number(file)
            gone = now - self._last[place]
            self._total_uj += gone if gone >= 0 else gone + wraps_uj
            self._last[place] = now
        return self._total_uj / 1e6


def _number(file: Path) -> int:
    return int(file.read_text())
