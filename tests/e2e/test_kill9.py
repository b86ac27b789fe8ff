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


LOSSES = ("the Session is gone", " lacks ", "the Shared Subscriptions lack ", "retained in ", "not subscribed to")
"""What it says of Sessions, messages, retained messages and Subscriptions that were acknowledged and are not there."""


@pytest.mark.parametrize("mode", ["none", "os"])
def test_the_harness_sees_what_is_lost(tmp_path, mode):
    """It names what is lost by a broker that keeps nothing, and by one that loses the end of what it wrote: its silence means
    something. What the broker itself says of that is no proof."""
    rig = Rig(tmp_path, mode, 1)
    rig.drain_secs = 1
    if mode == "os":
        # Some of it may have been marked as durable: then it would refuse to start.
        rig.broker.config += "\npersistence_damage salvage"
        rig.after_kill = lambda: cut_the_end(rig.broker.segments)
    try:
        # A kill may come before anything is acknowledged that is then cut off: it need not come so each time.
        assert not rig.run(2 * ROUNDS)
    finally:
        rig.broker.stop()
    named = [text for text in rig.violations if "the log says" not in text and any(loss in text for loss in LOSSES)]
    assert named, rig.violations


def cut_the_end(segments) -> None:
    """Takes the second half of what the newest segment has."""
    written = [path for path in segments if path.stat().st_size > 2000]
    if written:
        os.truncate(written[-1], written[-1].stat().st_size // 2)
