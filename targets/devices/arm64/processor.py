"""The files of /proc and /sys from which an emulated program learns what its processor is.

QEMU answers the processor's own registers for the emulated one, but passes most reads of /proc and /sys on: a runtime
that looks there finds the host's x86, and crashes, or sizes its work by the host's caches. QEMU reads a file under its
prefix instead where there is one, so the answers, and with them the instructions that are executed, are the same on
every host.
"""

from __future__ import annotations

from pathlib import Path

#: As QEMU calls it. Products of the processor that it takes by default ("max") were wrong under QEMU 7.2.
CPU = "cortex-a76"
CHIP = "Cortex-A76"
CORES = 4
#: Of pipeline.run.provenance's names, what the processor has.
VECTOR_EXTENSIONS = ("asimd", "asimddp")

# HWCAP of QEMU 7.2's cortex-a76, 0x119ffb, in the names of arch/arm64/kernel/cpuinfo.c.
_FEATURES = "fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
# MIDR_EL1 of QEMU's cortex-a76, 0x414fd0b1: r4p1.
_CPUINFO = """processor\t: {core}
BogoMIPS\t: 100.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
# Cortex-A76 Core Technical Reference Manual: L1 of 64 KB each, a private L2 of 128 to 512 KB; L3 is the cluster's.
_CACHES = (
    ("index0", 1, "Data", "64K", "{core}"),
    ("index1", 1, "Instruction", "64K", "{core}"),
    ("index2", 2, "Unified", "512K", "{core}"),
    ("index3", 3, "Unified", "2048K", "{all}"),
)
_FREQUENCY_KHZ = "2400000"


def files() -> dict[str, str]:
    """Path below `/` -> text, of /proc/cpuinfo and /sys/devices/system/cpu."""
    all_cores = f"0-{CORES - 1}"
    found = {"proc/cpuinfo": "".join(_CPUINFO.format(core=core, features=_FEATURES) for core in range(CORES))}
    top = {"possible": all_cores, "present": all_cores, "online": all_cores, "kernel_max": str(CORES - 1)}
    for core in range(CORES):
        top |= {
            f"cpu{core}/topology/core_id": str(core),
            f"cpu{core}/topology/physical_package_id": "0",
            f"cpu{core}/topology/cluster_cpus_list": all_cores,
            f"cpu{core}/topology/core_siblings_list": all_cores,
            f"cpu{core}/cpufreq/cpuinfo_max_freq": _FREQUENCY_KHZ,
            f"cpu{core}/cpufreq/cpuinfo_min_freq": _FREQUENCY_KHZ,
        }
        for index, level, kind, size, shared in _CACHES:
            cache = f"cpu{core}/cache/{index}"
            of = shared.format(core=core, all=all_cores)
            top |= {f"{cache}/level": str(level), f"{cache}/type": kind, f"{cache}/size": size}
            top |= {f"{cache}/shared_cpu_list": of, f"{cache}/coherency_line_size": "64"}
    return found | {f"sys/devices/system/cpu/{name}": f"{text}\n" for name, text in top.items()}


def write(root: Path) -> None:
    for name, text in files().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
