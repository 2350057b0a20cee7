"""Lines of an Arm /proc/cpuinfo in, the names of its cores out.

Numbers of implementers and parts: MIDR_EL1 of the Arm architecture; names as the Linux kernel (arch/arm64/include/asm/
cputype.h) and util-linux (sys-utils/lscpu-arm.c) have them, of the cores that boards, phones and servers of use here
are made with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

# (implementer, part) -> name
CORES: dict[tuple[int, int], str] = {
    (0x41, 0xC07): "Cortex-A7", (0x41, 0xC08): "Cortex-A8", (0x41, 0xC09): "Cortex-A9", (0x41, 0xC0E): "Cortex-A17",
    (0x41, 0xC0F): "Cortex-A15", (0x41, 0xD03): "Cortex-A53", (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55", (0x41, 0xD07): "Cortex-A57", (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73", (0x41, 0xD0A): "Cortex-A75", (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1", (0x41, 0xD0D): "Cortex-A77", (0x41, 0xD0E): "Cortex-A76AE",
    (0x41, 0xD40): "Neoverse-V1", (0x41, 0xD41): "Cortex-A78", (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1", (0x41, 0xD46): "Cortex-A510", (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD48): "Cortex-X2", (0x41, 0xD49): "Neoverse-N2", (0x41, 0xD4A): "Neoverse-E1",
    (0x41, 0xD4B): "Cortex-A78C", (0x41, 0xD4C): "Cortex-X1C", (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4E): "Cortex-X3", (0x41, 0xD4F): "Neoverse-V2",
    (0x42, 0x516): "ThunderX2", (0x48, 0xD01): "Kunpeng-920", (0x4E, 0x003): "Denver 2", (0x4E, 0x004): "Carmel",
    (0x51, 0x800): "Kryo 2xx Gold", (0x51, 0x801): "Kryo 2xx Silver", (0x51, 0x802): "Kryo 3xx Gold",
    (0x51, 0x803): "Kryo 3xx Silver", (0x51, 0x804): "Kryo 4xx Gold", (0x51, 0x805): "Kryo 4xx Silver",
    (0x61, 0x022): "Icestorm-M1", (0x61, 0x023): "Firestorm-M1", (0x61, 0x032): "Blizzard-M2",
    (0x61, 0x033): "Avalanche-M2", (0xC0, 0xAC3): "Ampere-1",
}  # fmt: skip


def names(lines: Sequence[str]) -> str:
    """ "4 × Cortex-A55, 4 × Cortex-A76", in the order of the cores; empty where there is no Arm core."""
    cores: Counter[str] = Counter()
    implementer: int | None = None
    for line in lines:
        field, _, value = (part.strip() for part in line.partition(":"))
        if field == "CPU implementer":
            implementer = _number(value)
        elif field == "CPU part":
            part = _number(value)
            if implementer is not None and part is not None:
                cores[CORES.get((implementer, part), f"Arm core {implementer:#04x}:{part:#05x}")] += 1
    return ", ".join(f"{count} × {name}" for name, count in cores.items())


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None
