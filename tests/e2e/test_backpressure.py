"""Publishers that are faster than their subscribers, towards busy shards: memory stays bounded, every message is accounted
for, and nobody else feels it.

`LONG=1` presses for a minute each; `PRESSURE_SECS` says otherwise.
"""

import os

import pytest

from sharded import IS_LONG, Sharded, probe

SECONDS = int(os.environ.get("PRESSURE_SECS", 60 if IS_LONG else 10))
MB = 1 << 20


@pytest.mark.sol
@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("policy", ["refuse", "drop_newest", "drop_oldest"])
def test_a_publisher_faster_than_its_subscribers(start_broker, policy, shards):
    """For as long as publishers press on slow subscribers, a slow shard and full mailboxes, QoS 0, 1 and 2, 3.1.1 and 5.0:
    delivered, refused with 0x97 and counted as dropped add up to what was published, in order and without repeats; the
    mailboxes and the process stay below their bounds; every PINGREQ is answered; and two clients that publish to each
    other and read only when they have written come free."""
    b = start_broker(
        f"queue_full {policy}\nmax_queued_messages 500\nmax_queued_bytes 1MB", cls=Sharded, shards=shards
    )
    before = b.at_rest()
    found = probe("pressure", b, pid=b.pid, seconds=SECONDS if shards == 2 or IS_LONG else max(3, SECONDS // 4))
    assert found["shards"] == shards
    assert found["published"] == found["delivered"] + found["refused"] + found["dropped"], found
    assert (found["refused"] > 0) == (policy == "refuse"), found
    assert found["refused"] == found["refused_told"]
    assert found["dropped"] > 0, "no queue was ever full"
    # A queue of 1 MB and 4 MB of output for each of five subscribers on each shard, and what lies in the mailboxes.
    assert found["resident_max"] - found["resident_before"] < (32 + 32 * shards) * MB, found
    # Twice the mark of 1 MB, and a message of each publisher and of a tray, in 8 KB each.
    assert found["mailbox_max"] <= shards * (shards - 1) * (2 * MB + 300 * 9_000), found
    assert (found["mailbox_max"] > MB) == (shards > 1), "no mailbox was ever full"
    # A generous bound: machines are busy. The figures themselves are printed.
    assert all(found[f"{what}_during_max_us"] < 20_000_000 for what in ("ping", "message", "slow_ping", "slow_message")), found
    b.expect_rest(before)
