"""The disk behind the journal: not there, not ours, full, and damaged."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import wire
from broker import Listening, as_root, free_port, sol_bin, wait_until
from durable import Durable, Member
from sharded import Sharded
from wire import PUBACK, PUBLISH, V5, V311

pytestmark = pytest.mark.sol

MIB = 1 << 20
SMALL = 100 * MIB
"""Room for a few segments of 16 MiB, and no more."""
MESSAGE = 60_000

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def run_to_its_end(broker_directory: pathlib.Path, config: str) -> tuple[int, str]:
    """A broker that does not start: its exit code, and what it said."""
    path = broker_directory / "refused.conf"
    path.write_text(as_root(f"listener {free_port()} 127.0.0.1\nallow_anonymous true\nmetrics off\n{config}\n"))
    done = subprocess.run([sol_bin(), "-c", path], capture_output=True, text=True, timeout=30, cwd=broker_directory)
    return done.returncode, done.stderr.replace(f"{path}:", "FILE:")


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(bytes): a directory on a file system that is that big; gone when the test ends."""
    mounted = []

    def mount(size: int = SMALL, options: str = "") -> pathlib.Path:
        path = tmp_path / f"disk{len(mounted)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755{options}", "sol-test", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", path], check=True)


# --- A directory that cannot be had ----------------------------------------------------------------------------------


def test_a_second_broker_is_refused_with_the_pid_of_the_first(start_broker, tmp_path):
    """Two brokers never write to one directory; the second says who has it, and the first goes on."""
    first = start_broker(cls=Durable)
    code, said = run_to_its_end(tmp_path, f"persistence os\npersistence_location {first.data}")
    assert said == (
        f"sol: error: the journal in {first.data}/sol-journal cannot be used: it is in use by process {first.pid}; stop that "
        "broker first\n"
    )
    assert code == 75
    with first.client("", V5) as w:
        assert w.publish("a", b"x", 1, retain=True).reason in (0, 0x10)
    first.kill()
    first.again()


def test_a_directory_that_is_not_there_is_named(tmp_path):
    """The journal's own directory is made, the one that was named is not: one sentence, with the line of the configuration."""
    code, said = run_to_its_end(tmp_path, f"persistence os\npersistence_location {tmp_path}/none")
    assert said == (
        f"sol: error: FILE:5: no journal in {tmp_path}/none/sol-journal: No such file or directory; make {tmp_path}/none first, for the "
        "broker's user alone\n"
    )
    assert code == 74


def test_a_file_in_its_place_is_refused(tmp_path):
    """What is no directory is refused, and so is a symbolic link where the journal's directory, or a file in it, should be."""
    (tmp_path / "file").write_text("")
    code, said = run_to_its_end(tmp_path, f"persistence os\npersistence_location {tmp_path}/file")
    assert (code, said) == (74, f"sol: error: FILE:5: no journal in {tmp_path}/file/sol-journal: Not a directory\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sol-journal").symlink_to(tmp_path / "elsewhere")
    code, said = run_to_its_end(tmp_path, f"persistence os\npersistence_location {tmp_path}")
    assert code == 74 and said.count("\n") == 1 and f"no journal in {tmp_path}/sol-journal: " in said
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "other" / "sol-journal").mkdir(parents=True)
    (tmp_path / "other" / "sol-journal" / "LOCK").symlink_to(tmp_path / "file")
    code, said = run_to_its_end(tmp_path, f"persistence os\npersistence_location {tmp_path}/other")
    assert code == 74 and said.count("\n") == 1 and "cannot lock it: " in said
    assert (tmp_path / "file").read_text() == ""


def test_what_is_swapped_under_a_broker_is_not_followed(start_broker, tmp_path):
    """A broker writes to the directory that it opened, whatever has its name by then: nothing comes to be where a symbolic link
    leads that was put in its place, and what was acknowledged is where the directory went."""
    broker = start_broker(cls=Durable)
    directory, away, elsewhere = broker.data / "sol-journal", tmp_path / "away", tmp_path / "elsewhere"
    elsewhere.mkdir()
    before = {path.name for path in broker.segments}
    directory.rename(away)
    directory.symlink_to(elsewhere)
    topics = {f"t/{n}" for n in range(1000)}
    with broker.client("", V5) as pub:
        for topic in topics:
            assert pub.publish(topic, topic.encode() + b":" + b"x" * MESSAGE, 1, retain=True).reason in (0, 0x10)
    assert {path.name for path in away.glob("*.seg")} - before, "it has made segments since"
    assert list(elsewhere.iterdir()) == []
    broker.kill()
    code, said = run_to_its_end(tmp_path, f"persistence os\npersistence_location {broker.data}")
    assert code == 74 and f"no journal in {directory}: " in said
    assert list(elsewhere.iterdir()) == []
    directory.unlink()
    away.rename(directory)
    broker.again()
    assert kept(broker) == topics


@needs_root
def test_a_read_only_disk_is_refused(small_disk, tmp_path):
    """On a disk that cannot be written to the broker does not start, whether there is a journal already or not."""
    disk = small_disk()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, said = run_to_its_end(tmp_path, f"persistence os\npersistence_location {disk}")
    assert (code, said) == (74, f"sol: error: FILE:5: no journal in {disk}/sol-journal: Read-only file system\n")
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    (disk / "sol-journal").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, said = run_to_its_end(tmp_path, f"persistence os\npersistence_location {disk}")
    assert said == f"sol: error: the journal in {disk}/sol-journal cannot be used: it cannot be written: Read-only file system\n"
    assert code == 74


@needs_root
def test_files_of_another_user_are_refused():
    """A journal that root has made is not the broker's: it says what has to be done. A directory that root has made is."""
    with tempfile.TemporaryDirectory(prefix="sol-journal-") as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        config = f"persistence os\npersistence_location {directory}\nuser "
        broker = Listening(directory, f"{config}nobody")
        wait_until(lambda: "data directory: " in broker.log(), "banner")
        broker.client("", V5).publish("a", b"kept", 1, retain=True)
        broker.stop()
        code, said = run_to_its_end(directory, f"{config}daemon")
        assert code == 74 and said == (
            f"sol: error: the journal in {directory}/sol-journal cannot be used: it cannot be written: Permission denied; all that is in "
            "it has to belong to the user that the broker runs as\n"
        )


@needs_root
def test_a_disk_without_room_for_a_beginning_is_refused(small_disk, tmp_path):
    """A new journal needs room for its first segments: otherwise the broker says so at once."""
    code, said = run_to_its_end(tmp_path, f"persistence os\npersistence_location {small_disk(10 * MIB)}")
    assert code == 74 and said.endswith(": the disk is full: a new journal needs 48 MiB of room\n") and said.count("\n") == 1


# --- A full disk -----------------------------------------------------------------------------------------------------


def numbered(n: int) -> bytes:
    return b"%d:" % n + b"x" * MESSAGE


def number_in(p) -> int:
    return int(p.payload.split(b":")[0])


def fill(broker, first: int = 0, most: int = 4000) -> list[int]:
    """Publishes to `f/a` until it is refused; what was taken."""
    taken = []
    with broker.client("", V5) as pub:
        for n in range(first, first + most):
            reason = pub.publish("f/a", numbered(n), 1).reason
            if reason == 0x97:
                return taken
            assert reason == 0
            taken.append(n)
    raise AssertionError(f"{most} messages were taken")


class Narrow(Durable):
    """A broker whose journal has little room, and that tells how it is with it."""

    metrics = Sharded.metrics
    total = Sharded.total

    def __init__(self, directory: pathlib.Path, config: str = "", args=(), **options):
        self.metrics_port = free_port()
        self.full_as = 2 if "persistence_max_size" in config else 1
        """What it calls being full."""
        super().__init__(directory, f"metrics 127.0.0.1:{self.metrics_port}\nsys_interval 1\n{config}", args, **options)


@pytest.fixture(params=["disk", "persistence_max_size"])
def narrow(request, start_broker):
    """A broker whose journal has little room: on its disk, or by its configuration."""
    if request.param == "disk":
        if os.geteuid() != 0:
            pytest.skip("needs root")
        return start_broker("max_queued_messages 0", cls=Narrow, shards=2, data=request.getfixturevalue("small_disk")())
    return start_broker("persistence_max_size 100MB\nmax_queued_messages 0", cls=Narrow, shards=2)


def full(broker) -> bool:
    return "journal: the disk is full" in broker.log() or "journal: persistence_max_size is met" in broker.log()


def says_full(broker, watcher, value: int) -> None:
    """Metrics and `$SYS` come to say so."""
    wait_until(lambda: broker.total("sol_journal_full") == value, f"sol_journal_full {value}", 30)
    while watcher.take().payload != b"%d" % value:
        pass


def test_metrics_and_sys_tell_of_a_full_journal(narrow):
    """`sol_journal_full` and `$SYS/broker/journal/full` are 0, then 1 for the disk or 2 for persistence_max_size, and 0 again once
    what filled it has been taken; the other numbers of the journal are those of what it holds."""
    broker = narrow
    watcher = broker.client("watcher", V5)
    watcher.subscribe(("$SYS/broker/journal/full", 0))
    says_full(broker, watcher, 0)
    sub = Member(broker, "sub")
    sub.wire.subscribe(("f/#", 1))
    sub.wire.close()
    taken = fill(broker)
    says_full(broker, watcher, broker.full_as)
    # Sizes are looked at now and then.
    wait_until(lambda: broker.total("sol_journal_records") >= 2 * len(taken), "a body and a reference each")
    told = broker.metrics()
    assert told["sol_journal_live_bytes"] > len(taken) * MESSAGE
    assert told["sol_journal_disk_bytes"] >= told["sol_journal_live_bytes"]
    assert told["sol_journal_written_bytes_total"] > len(taken) * MESSAGE
    assert told["sol_journal_records_total"] >= told["sol_journal_records"]
    assert 0 < told["sol_journal_commits_total"] <= told["sol_journal_records_total"]
    assert told["sol_journal_waiting_transactions"] == 0
    assert told["sol_publish_refused_total"] == 1
    broker.client("new", V5, clean=False, properties_={"session_expiry_interval": 60}, expect=0x97).close()
    assert broker.metrics()['sol_connections_refused_total{limit="journal"}'] == 1
    w = sub.back()
    assert [number_in(w.take()) for _ in taken] == taken
    w.ping()
    says_full(broker, watcher, 0)
    wait_until(lambda: broker.metrics()["sol_journal_records"] < len(taken), "records gone")
    assert broker.metrics()["sol_journal_live_bytes"] < len(taken) * MESSAGE


def test_a_publisher_that_cannot_be_told_is_closed_and_the_journal_named(narrow):
    """One of 3.1.1 waits for half a minute for room; then it is closed, and the log and the metrics say what it waited for."""
    broker = narrow
    sub = Member(broker, "sub")
    sub.wire.subscribe(("f/#", 1))
    sub.wire.close()
    fill(broker)
    with broker.client("old", V311) as old:
        begun = time.monotonic()
        old.send(wire.publish("f/a", numbered(100_000), 1, 5))
        assert old.expect_closed(40) == []
        assert time.monotonic() - begun > 29
    broker.says("closed: what it published waited too long for room in the journal")
    assert "than memory allows" not in broker.log()
    assert broker.total("sol_parked_closed_total") == 1
    assert broker.client("", V5).publish("l/0", b"goes on", 1).reason in (0, 0x10)


def test_a_full_disk_refuses_what_is_new_and_frees_itself(narrow):
    """Out of room, a 5.0 publisher gets 0x97 and one of 3.1.1 waits; deliveries, acknowledgements and what is not kept go on;
    once a subscriber has taken what it was owed there is room again, by itself. Nothing acknowledged is lost."""
    broker = narrow
    sub = Member(broker, "sub")
    sub.wire.subscribe(("f/#", 1))
    sub.wire.close()
    with broker.client("", V311) as old, broker.client("", V5) as live, broker.client("", V5) as pub:
        taken = fill(broker)
        assert len(taken) > 300
        wait_until(lambda: full(broker), "word of it")
        old.send(wire.publish("f/a", numbered(100_000), 1, 5))
        old.ping()  # what comes behind it is dealt with
        live.subscribe(("l/#", 2))
        pub.publish("l/0", b"0", 0)
        assert [pub.publish("l/0", b"%d" % qos, qos).reason for qos in (1, 2)] == [0, 0], "nobody is to keep it"
        assert [live.take().payload for _ in range(3)] == [b"0", b"1", b"2"]
        assert pub.publish("r", b"x", 1, retain=True).reason == 0x97
        assert pub.publish("f/a", b"small", 2, packet_id=9).reason == 0x97
        w = sub.back()
        for n in taken:
            p = w.expect(PUBLISH)
            assert number_in(p) == n and not p.dup
            if n == 0:
                assert w.subscribe(("g/#", 1)).reasons == [0x97], "it would be kept"
            w.send(wire.ack(PUBACK, p.packet_id))
        assert old.expect(PUBACK, 30).packet_id == 5, "it waited, and was taken when there was room"
        assert number_in(w.take()) == 100_000
        broker.says("journal: there is room again")
        wait_until(lambda: pub.publish("f/a", numbered(100_001), 1).reason == 0, "room on its shard")
        assert number_in(w.take()) == 100_001
        w.ping()
    assert " ERROR " not in broker.log().replace("ERROR journal: the disk is full", "").replace(
        "ERROR journal: persistence_max_size is met", ""
    )


def test_nothing_is_lost_when_a_broker_on_a_full_disk_is_killed(narrow):
    """Killed while the disk is full, it starts again on the full disk, still refuses, still delivers, and frees itself."""
    broker = narrow
    sub = Member(broker, "sub")
    sub.wire.subscribe(("f/#", 1))
    sub.wire.close()
    taken = fill(broker)
    for shards in (1, 3):
        broker.restart(shards=shards)
        wait_until(lambda: full(broker), "word of it")
        with broker.client("", V5) as pub:
            assert pub.publish("f/a", numbered(100_000), 1).reason == 0x97
    w = sub.back()
    assert [number_in(w.take()) for _ in taken] == taken
    wait_until(lambda: "journal: there is room again" in broker.log(), "room", 30)
    with broker.client("", V5) as pub:
        wait_until(lambda: pub.publish("f/a", numbered(100_001), 1).reason == 0, "room on its shard")
    assert number_in(w.take()) == 100_001


def test_two_who_publish_to_each_other_free_themselves(narrow):
    """Neither waits for the other: what each of them takes makes room for what both have to say."""
    broker = narrow
    ends = [Member(broker, name, V311) for name in ("one", "two")]
    for own, end in enumerate(ends):
        end.wire.subscribe((f"f/{own}", 1), ("f/a", 1))
        end.wire.close()
    taken = fill(broker)
    expected = [*map(numbered, taken), *(b"%d" % n for n in range(10))]

    def talk(own: int) -> list[bytes]:
        w, got, acknowledged = ends[own].back(), [], 0
        w.send(wire.publish(f"f/{1 - own}", b"0", 1, 1))
        while acknowledged < 10 or len(got) < len(expected):
            p = w.recv(30)
            if p.kind == PUBLISH:
                got.append(p.payload)
                w.send(wire.ack(PUBACK, p.packet_id))
            elif (acknowledged := acknowledged + 1) < 10:
                w.send(wire.publish(f"f/{1 - own}", b"%d" % acknowledged, 1, 1))
        return got

    with ThreadPoolExecutor() as both:
        assert list(both.map(talk, range(2))) == [expected, expected]


def test_a_journal_that_fails_at_the_stop_is_told(start_broker):
    """A broker that is told to stop, and whose journal cannot be closed then, says why and ends with 74: not as if all were well."""
    broker = start_broker(cls=Durable)
    keep(broker, ["t/1"])
    # It takes back what it has made ahead.
    wait_until(lambda: len(broker.segments) > 1, "segment made ahead")
    last = broker.segments[-1]
    last.unlink()
    assert broker.terminate() == 74, broker.log()
    where = f"the journal in {broker.data}/sol-journal has failed, and nothing is acknowledged any more"
    why = f"{where}: cannot remove {last.name}: No such file or directory"
    assert f" ERROR {why}\n" in broker.log() and f"sol: error: {why}\n" in broker.log()
    broker.again()
    assert kept(broker) == {"t/1"}


def test_a_journal_where_the_broker_is_started_is_warned_about(tmp_path):
    """Without a location the journal is where the broker is started: the whole path is said, and that it depends on that; and of a
    size that is too small both numbers."""
    port = free_port()
    config = tmp_path / "here.conf"
    config.write_text(as_root(f"listener {port} 127.0.0.1\nmetrics off\npersistence os\npersistence_max_size 50MB\n"))
    done = subprocess.run([sol_bin(), "check", "-c", config], capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert done.returncode == 0
    journal = tmp_path / "sol-journal"
    assert f"the journal is in {journal}, because the broker is started here" in done.stderr
    assert "50MB is too little for a journal, which may take 80MB now" in done.stderr
    log = tmp_path / "log"
    with log.open("w") as to:
        process = subprocess.Popen([sol_bin(), "-c", config], stderr=to, cwd=tmp_path)
    try:
        wait_until(lambda: "data directory: " in log.read_text(), "banner")
    finally:
        process.terminate()
        process.wait(30)
    said = log.read_text().splitlines()
    assert any(f"data directory: {journal} (persistence os" in line for line in said)
    assert any("WARNING FILE" in line.replace(str(config), "FILE") and f"the journal is in {journal}," in line for line in said)


# --- Damage ----------------------------------------------------------------------------------------------------------


def last_written(broker) -> pathlib.Path:
    return [path for path in broker.segments if path.stat().st_size > 64][-1]


def keep(broker, topics) -> None:
    """A retained message for each; all of them acknowledged."""
    with broker.client("", V5) as pub:
        for topic in topics:
            assert pub.publish(topic, topic.encode(), 1, retain=True).reason in (0, 0x10)


def kept(broker) -> set[str]:
    with broker.client("", V5) as w:
        assert w.publish("the-last", b"x", 1, retain=True).reason in (0, 0x10)
        w.subscribe(("t/#", 1), ("the-last", 1))
        found = set()
        while (p := w.take()).topic != "the-last":
            assert p.payload.split(b":")[0] == p.topic.encode()
            found.add(p.topic)
        return found


@pytest.mark.parametrize("garbage", [b"\0" * 5000, b"garbage" * 1000, b"\xff"], ids=["zeros", "text", "byte"])
def test_a_torn_tail_is_dropped_with_a_warning(start_broker, garbage):
    """What stands behind the last whole frame is none: it is cut off, the log says how much, and all that was
    acknowledged is there; the next start finds nothing to say."""
    broker = start_broker(cls=Durable)
    topics = {f"t/{n}" for n in range(50)}
    keep(broker, topics)
    broker.kill()
    tail = last_written(broker)
    with tail.open("ab") as file:
        file.write(garbage)
    broker.again(shards=1)
    size = "1 byte" if len(garbage) == 1 else f"{len(garbage)} bytes"
    said = f"at the end of {tail}: not whole, and nothing says that it was durable"
    assert f"WARNING journal: dropped {size} (0 frames) {said}" in broker.log(), broker.log()
    assert kept(broker) == topics
    broker.restart()
    assert said not in broker.log()
    assert kept(broker) == topics


def test_a_cut_tail_is_dropped_with_a_warning(start_broker):
    """As after a power cut: the last frame is not whole, so it never was; everything before it is there."""
    broker = start_broker(cls=Durable)
    topics = [f"t/{n}" for n in range(50)]
    keep(broker, topics)
    broker.kill()
    tail = last_written(broker)
    os.truncate(tail, tail.stat().st_size - 10)
    broker.again()
    assert "not whole, and nothing says that it was durable" in broker.log()
    assert kept(broker) in (set(topics), set(topics[:-1]))


def big(broker, count: int = 400) -> set[str]:
    """More than a segment holds: so the first one is sealed."""
    topics = {f"t/{n}" for n in range(count)}
    with broker.client("", V5) as pub:
        for topic in topics:
            assert pub.publish(topic, topic.encode() + b":" + b"x" * MESSAGE, 1, retain=True).reason in (0, 0x10)
    assert len([path for path in broker.segments if path.stat().st_size > MIB]) > 1
    return topics


def flip(path: pathlib.Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def test_damage_in_the_middle_refuses_and_salvage_starts(start_broker, tmp_path):
    """A flipped bit in what was durable is never passed over: no start (65), with file, offset and what to do about it. By
    `persistence_damage salvage` it starts with what can be read, says what is lost, and the file is kept."""
    broker = start_broker(cls=Durable)
    topics = big(broker)
    broker.kill()
    first = broker.segments[0]
    flip(first, 5 * MIB)
    directory = f"{broker.data}/sol-journal"
    code, said = run_to_its_end(tmp_path, f"persistence os\npersistence_location {broker.data}")
    assert code == 65
    assert said.count("\n") == 1 and f"the journal in {directory} cannot be used: {first.name} is damaged at offset " in said
    offset = int(said.split("damaged at offset ")[1].split()[0])
    assert 5 * MIB - MESSAGE - 1000 < offset <= 5 * MIB
    for part in (f"`sol store check {directory}`", f"`sol store salvage {directory} --out FILE`", "`persistence_damage salvage`"):
        assert part in said
    again = run_to_its_end(tmp_path, f"persistence os\npersistence_location {broker.data}")
    assert again == (code, said), "looking changes nothing"
    broker.again(config="persistence_damage salvage")
    assert f"ERROR journal: {directory}/{first.name} is damaged at offset {offset}: frame" in broker.log()
    found = kept(broker)
    assert topics - found and len(topics - found) < 4, f"lost: {topics - found}"
    assert any(path.name.startswith(first.name + ".damaged") for path in (broker.data / "sol-journal").iterdir())
    assert "INFO persistence_damage salvage: the journal was damaged, and what could not be read is lost;" in broker.log()
    broker.restart()
    assert "INFO persistence_damage salvage: the journal was sound; " in broker.log()
    broker.restart(config="")
    assert "persistence_damage" not in broker.log()
    assert kept(broker) == found


def test_a_missing_segment_refuses(start_broker, tmp_path):
    """A segment that somebody has removed is missed."""
    broker = start_broker(cls=Durable)
    big(broker)
    broker.kill()
    first = broker.segments[0]
    first.rename(tmp_path / "away")
    code, said = run_to_its_end(tmp_path, f"persistence os\npersistence_location {broker.data}")
    assert code == 65 and f"{first.name} is missing, and records in it were durable" in said
    (tmp_path / "away").rename(first)
    broker.again()


def crc32c(data: bytes) -> int:
    """As RFC 3720 has it, a bit at a time."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F6_3B78 if crc & 1 else 0)
    return crc ^ 0xFFFF_FFFF


def test_a_newer_format_is_refused_as_that(start_broker, tmp_path):
    """A journal of a later format is not damaged: the broker does not start (65), says which version it takes, names no salvage,
    and changes nothing; nor does `persistence_damage salvage` touch it."""
    broker = start_broker(cls=Durable)
    keep(broker, {"t/0"})
    broker.end("stop")
    first = broker.segments[0]
    old = first.read_bytes()
    header = old[:8] + b"\x02\x00" + old[10:56]
    assert crc32c(old[:56]).to_bytes(4, "little") == old[56:60]
    newer = header + crc32c(header).to_bytes(4, "little") + old[60:]
    first.write_bytes(newer)
    for damage in ("refuse", "salvage"):
        config = f"persistence os\npersistence_location {broker.data}\npersistence_damage {damage}"
        code, said = run_to_its_end(tmp_path, config)
        assert code == 65 and said == (
            f"sol: error: the journal in {broker.data}/sol-journal cannot be used: {first.name} was written by a newer version "
            "(at offset 8); use that version, or a later one\n"
        )
        assert first.read_bytes() == newer and broker.segments == [first]
    first.write_bytes(old)
    broker.again()
    assert kept(broker) == {"t/0"}


def test_damage_under_a_running_broker_ends_it_with_file_and_offset(start_broker, tmp_path):
    """A bit turns in an old segment while the broker runs: as soon as what lives there is to be moved it ends (74), and says which
    file is damaged, and where; the next start refuses the same place (65), and says what to do."""
    broker = start_broker(cls=Durable)
    big(broker)
    first = broker.segments[0]
    flip(first, 5 * MIB)
    with broker.client("", V5) as pub:
        for n in range(4000):
            # What lives in the first segment stays as it is; what comes behind is replaced again and again.
            try:
                pub.send(wire.publish(f"again/{n % 3}", numbered(n), 1, 1, retain=True, version=V5))
                p = pub.recv()
            except (wire.Closed, OSError):
                break
            if p.kind == wire.DISCONNECT:
                assert p.reason == 0x8B
                break
            assert p.kind == PUBACK and p.reason in (0, 0x10)
    assert broker.process.wait(30) == 74
    said = broker.log().splitlines()[-1]
    failed = f"the journal in {broker.data}/sol-journal has failed, and nothing is acknowledged any more: "
    assert f"{failed}{first.name} is damaged at offset " in said
    offset = int(said.split("damaged at offset ")[1].split(":")[0])
    assert 5 * MIB - MESSAGE - 1000 < offset <= 5 * MIB
    assert said.endswith(": what was written there does not read back, as the next start will find, too")
    code, said = run_to_its_end(tmp_path, f"persistence os\npersistence_location {broker.data}")
    assert code == 65 and f"{first.name} is damaged at offset {offset} " in said and "`sol store salvage " in said


def test_a_journal_of_another_store_is_refused(start_broker, tmp_path):
    """Segments of two journals are never mixed."""
    one, two = (start_broker(cls=Durable, data=tmp_path / name) for name in ("one", "two"))
    for broker in (one, two):
        big(broker)
        broker.kill()
    shutil.copy(one.segments[1], two.segments[1])
    code, said = run_to_its_end(tmp_path, f"persistence os\npersistence_location {two.data}")
    assert code == 65 and said.endswith(" than the segments before it: move away whichever came from elsewhere\n")
