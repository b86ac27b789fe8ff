"""The wire suite (tests/wire) against the broker: one test for each of its cases, named as there."""

import os
import pathlib
import subprocess
import sys

import pytest

from broker import ROOT, Broker

sys.path.append(str(ROOT / "tests" / "wire"))

import suite  # noqa: E402  (where it lives is known only now)

pytestmark = pytest.mark.sol
RUN = ROOT / "tests" / "wire" / "run"
SECONDS = 300
CASES = suite.load()


class WireBroker(Broker):
    """With the defaults of a broker that has no configuration file."""

    def _config_text(self, config: str) -> str:
        return f"listener {self.port} {self.host}\nallow_anonymous true\nmetrics off\n{config}\n"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict[str, list[str]]:
    """Case -> its line of the report. The suite runs once."""
    folder = tmp_path_factory.mktemp("wire")
    file = pathlib.Path(os.environ.get("WIRE_REPORT") or folder / "wire.tsv").resolve()
    broker = WireBroker(folder)
    try:
        command = [RUN, broker.host, str(broker.port), "--report", file, "--pid", str(broker.pid), "--wait", "10"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        assert broker.alive(), f"the broker died:\n{broker.log()[-4000:]}"
    finally:
        broker.stop()
    assert file.exists(), done.stdout + done.stderr
    return {row[0]: row for row in (line.split("\t") for line in file.read_text().splitlines())}


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_wire(report, name):
    """The answer is the one that the case expects, and the healthy clients are served after it."""
    _, verdict, came, row, group = report[name]
    assert verdict == "ok", f"{group}: {name} ({row}): {came}"


@pytest.mark.parametrize("group", sorted({case.group for case in CASES}))
def test_memory(report, group):
    """A whole group of cases leaves the broker's resident memory where it was."""
    _, verdict, came, *_ = report[f"memory@{group}"]
    assert verdict == "ok", came


def test_size(report):
    """The suite is as large as it claims: at least 600 different packets or sequences, each with its answer."""
    assert len({case.name.partition("@")[0] for case in CASES}) >= 600


def test_announced_limits(tmp_path):
    """Without a configuration: Maximum Packet Size 2,000,000 as Mosquitto, and a Receive Maximum that is kept to."""
    broker = WireBroker(tmp_path)
    try:
        properties = broker.wire(5).connect("limits").properties
        assert properties["maximum_packet_size"] == 2_000_000
        assert 0 < properties["receive_maximum"] <= 256
    finally:
        broker.stop()
