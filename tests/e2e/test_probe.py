"""What only real threads show: shards that do not wait for each other lose a message now and then.

`LONG=1` takes a million rounds of each; `PROBE_ROUNDS` says otherwise.
"""

import os

import pytest

from sharded import IS_LONG, Sharded, probe

ROUNDS = int(os.environ.get("PROBE_ROUNDS", 1_000_000 if IS_LONG else 2_000))


@pytest.mark.sol
@pytest.mark.parametrize("shards", [2, 5])
@pytest.mark.parametrize("mode", ["subscribe", "retained"])
def test_shards_under_load_lose_nothing(start_broker, mode, shards):
    """A message published through another shard at once after SUBACK arrives, and a retained message is replayed through
    another shard at once after its PUBACK, in every round, exact filters and wildcards, while all shards are busy."""
    b = start_broker(cls=Sharded, shards=shards)
    before = b.at_rest()
    found = probe(mode, b, rounds=ROUNDS if shards == 2 or IS_LONG else ROUNDS // 2)
    assert (found["missing"], found["shards"]) == (0, shards)
    assert found["load_messages"] > 0
    b.expect_rest(before)
