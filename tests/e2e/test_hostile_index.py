"""The index of attacks and faults (tests/hostile/index.tsv) names no proof that is not there."""

import re
import sys

import pytest

from broker import ROOT

sys.path.append(str(ROOT / "tests" / "wire"))

import suite  # noqa: E402  (where it lives is known only now)

INDEX = ROOT / "tests" / "hostile" / "index.tsv"
ROWS = [line.split("\t") for line in INDEX.read_text().splitlines() if line and not line.startswith("#")]
# How many rows each group has: none is lost.
GROUPS = {
    "FH": 30, "CN": 25, "PB": 20, "SB": 17, "QS": 11, "RT": 2, "WL": 5, "SS": 8, "RS": 13, "AU": 15,
    "WS": 13, "TL": 6, "OV": 16, "FD": 12, "DK": 18, "CL": 6, "SH": 18, "CF": 20, "OP": 21,
}  # fmt: skip
WAITS_FOR = re.compile(
    r"waits for: (bridges|rate limits for each client|limits for each address|rules for each listener)"
)

pytestmark = pytest.mark.sol


def has_test(proof: str) -> bool:
    """Whether a `path::test` exists: the file, and a test function of that name in it."""
    path, _, name = proof.partition("::")
    file = ROOT / path
    if not name or not file.is_file():
        return False
    text = file.read_text()
    if path.endswith(".py"):
        return name.startswith("test_") and bool(re.search(rf"^def {name}\(", text, re.M))
    marked = rf"#\[test\]\s*(?:#\[[^\]]*\]\s*)*fn {name}\("
    in_proptest = rf"proptest! \{{.*\bfn {name}\("
    on_each_backend = rf"^on_each_backend! \{{[^}}]*\b{name}\b"
    return any(re.search(pattern, text, re.S | re.M) for pattern in (marked, in_proptest, on_each_backend))


def test_every_attack_has_its_row():
    """Each group is whole, numbered without a gap, and each row says what the attack is and what Sol does."""
    assert all(len(row) == 4 and all(field.strip() for field in row) for row in ROWS), "a row has four fields"
    wanted = [f"{group}-{n:02}" for group, count in GROUPS.items() for n in range(1, count + 1)]
    assert [row[0] for row in ROWS] == wanted


def test_a_proof_that_is_not_there_is_found():
    """The check below bites: wrong names, wrong files and functions that are no tests are no proofs."""
    assert has_test("engine/tests/suite/hostile.rs::deadlines_due_at_once_are_sliced")
    for wrong in ("engine/tests/suite/hostile.rs::deadlines", "engine/tests/suite/gone.rs::x", "engine/src/engine.rs::handle", "x"):
        assert not has_test(wrong), wrong


def test_every_proof_exists():
    """A proof is a test that is there, a row of the wire suite that is played, or what it waits for."""
    played = {case.row for case in suite.load()}
    missing = []
    for identifier, _, _, proof in ROWS:
        if proof == "tests/wire":
            found = any(identifier in row.split() for row in played)
        elif proof.startswith("waits for: "):
            found = bool(WAITS_FOR.fullmatch(proof))
        else:
            found = all(has_test(one) for one in proof.split("; "))
        if not found:
            missing.append(f"{identifier}: {proof}")
    assert not missing, "\n".join(missing)
