#!/usr/bin/env python3
"""What must not grow unnoticed: the size of the release binary and the instructions of the hot paths.

usage: benches/count.py [--move]

Without --move it compares with benches/ceilings.toml, and its exit status is 1 if anything is above its ceiling by more
than the tolerance written there. With --move it writes what it found there as the new ceilings. Where valgrind is missing only
the size is compared.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CEILINGS = ROOT / "benches" / "ceilings.toml"
# The difference of the two is what so many rounds cost, without start and preparation.
FEW, MANY = 2, 12
# One variant of the C library's copying and clearing on every machine: with ERMS one instruction clears a whole block,
# and valgrind counts it as thousands.
TUNABLES = "glibc.cpu.hwcaps=-ERMS,-FSRM,-AVX512F_Usable,-AVX512VL_Usable,-Prefer_No_AVX512_Probing"
HEAD = """\
# What `benches/count.py` compares with: the stripped release binary in bytes, and instructions per round of each path in
# `benches/counts.rs`, on x86_64. Moved on purpose, with the reason in the commit: `benches/count.py --move`.
"""


def build(*arguments):
    """Builds, and gives the executables that came of it, by name."""
    command = ["cargo", "build", "--message-format=json-render-diagnostics", *arguments]
    out = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    artifacts = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return {a["target"]["name"]: a["executable"] for a in artifacts if a.get("executable")}


def instructions(program, path, rounds):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, path, str(rounds)]
    run = subprocess.run(command, env={**os.environ, "GLIBC_TUNABLES": TUNABLES}, capture_output=True, text=True)
    counted = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or not counted:
        sys.exit(f"{path}: valgrind failed\n{run.stderr}")
    return int(counted[1])


def measured():
    size = os.path.getsize(build("--release", "--bin", "outlast")["outlast"])
    if not shutil.which("valgrind"):
        return {"binary_bytes": size}
    counts = build("--release", "--bench", "counts", "--features", "fuzzing")["counts"]
    paths = subprocess.run([counts], check=True, capture_output=True, text=True).stdout.split()
    per_round = lambda path: (instructions(counts, path, MANY) - instructions(counts, path, FEW)) // (MANY - FEW)
    return {"binary_bytes": size, **{path: per_round(path) for path in paths}}


def written(tolerance, found):
    rows = "".join(f"{name} = {number}\n" for name, number in found.items())
    CEILINGS.write_text(f"{HEAD}tolerance_percent = {tolerance}\n\n[ceilings]\n{rows}")


def main():
    kept = tomllib.loads(CEILINGS.read_text())
    tolerance, ceilings = kept["tolerance_percent"], kept["ceilings"]
    found = measured()
    if len(found) == 1:
        print("valgrind is missing: only the size is compared")
    above = set(found) - set(ceilings) if len(found) == 1 else set(found) ^ set(ceilings)
    for name, number in found.items():
        ceiling = ceilings.get(name, 0)
        change = f"{(number / ceiling - 1) * 100:+6.1f} %" if ceiling else "   new"
        if number > ceiling * (1 + tolerance / 100):
            above.add(name)
        print(f"{name:16} {number:12,} {ceiling:12,} {change}{'  ABOVE' if name in above else ''}")
    if "--move" in sys.argv[1:]:
        written(tolerance, {**ceilings, **found} if len(found) == 1 else found)
    elif above:
        sys.exit(f"above the ceiling, or unknown there: {', '.join(sorted(above))}. On purpose? benches/count.py --move")


if __name__ == "__main__":
    main()
