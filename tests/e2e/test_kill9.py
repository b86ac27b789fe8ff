"""A few rounds of the harness that kills the broker; `.ci/full` has it run hundreds."""

import os
import random

import pytest

from durable import MODES
from kill9 import Rig, kill9

pytestmark = pytest.mark.sol

ROUNDS = 3


@pytest.mark.parametrize("mode", MODES)
def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path, mode, capsys):
    """Real clients at work, SIGKILL at random moments, another number of shards after it: every message that was acknowledged
    arrives, QoS 2 once, and retained messages, Subscriptions and Sessions are as acknowledged."""
    seed = random.randrange(1_000_000)
    assert kill9(mode, ROUNDS, seed, tmp_path), capsys.readouterr().out


@pytest.mark.parametrize("mode, said", [("none", "the Session is gone"), ("os", "")])
def test_the_harness_sees_what_is_lost(tmp_path, mode, said):
    """It complains of a broker that keeps nothing, and of one that loses the last bytes that it wrote: its silence means
    something."""
    rig = Rig(tmp_path, mode, 1)
    rig.drain_secs = 1
    if mode == "os":
        # Some of them may have been marked as durable: then it would refuse to start.
        rig.broker.config += "\npersistence_damage salvage"
        rig.after_kill = lambda: cut_the_end(rig.broker.segments)
    try:
        assert not rig.run(ROUNDS)
    finally:
        rig.broker.stop()
    assert any(said in text for text in rig.violations), rig.violations


def cut_the_end(segments) -> None:
    """Takes the last thousand bytes that were written."""
    written = [path for path in segments if path.stat().st_size > 2000]
    if written:
        os.truncate(written[-1], written[-1].stat().st_size - 1000)
