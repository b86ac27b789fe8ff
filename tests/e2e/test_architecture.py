"""The architecture's invariants, as far as reading the source can hold them. A failure says `path:line: use X`."""

import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CRATES = ("codec", "engine", "transport", "server")


def sources(*folders: str, tests: bool = False):
    """(path, number, line) of every line of Rust that is neither a comment nor, unless asked for, a test."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.rs")):
            parts = path.relative_to(ROOT).parts
            if "target" in parts or (not tests and ({"tests", "benches", "examples"} & set(parts) or path.stem == "tests")):
                continue
            lines = path.read_text().splitlines()
            for number, line in enumerate(lines, 1):
                if not tests and (line.startswith("#[cfg(test)]") or line.startswith("#[cfg(all(test,") and lines[number].startswith("mod ")):
                    break  # tests stand at the bottom of a file
                if not line.lstrip().startswith("//"):
                    yield path.relative_to(ROOT), number, line


def found(pattern: str, *folders: str, **options) -> list[str]:
    expression = re.compile(pattern)
    return [f"{path}:{number}: {line.strip()}" for path, number, line in sources(*folders, **options) if expression.search(line)]


def found_outside_switches(pattern: str, *folders: str) -> list[str]:
    """The same, but for the switches of the feature `mutants`, which no release has: they read which one is on."""
    return [line for line in found(pattern, *folders) if not line.startswith("codec/src/mutants.rs:")]


def lib(crate: str) -> str:
    return (ROOT / crate / "src" / "lib.rs").read_text()


def dependencies(crate: str) -> set[str]:
    manifest = tomllib.loads((ROOT / crate / "Cargo.toml").read_text())
    tables = [manifest, *manifest.get("target", {}).values()]
    return {name for table in tables for name in table.get("dependencies", {})}


def test_every_dependency_has_its_row():
    """ARCHITECTURE.md's table names each dependency with the crates that have it, and nothing else."""
    text = (ROOT / "ARCHITECTURE.md").read_text().split("## Dependencies")[1]
    told = {}
    for names, where, why in re.findall(r"^\| ([a-z0-9_, -]+) \| ([a-z/, ()]+) \| (.+) \|$", text, re.M):
        for name in names.split(", "):
            if name != "crate":
                assert name not in told and why, name
                told[name] = where
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    there: dict = {}
    for crate in workspace["members"]:
        manifest = tomllib.loads((ROOT / crate / "Cargo.toml").read_text())
        for table in (manifest, *manifest.get("target", {}).values()):
            for kind, mark in (("dependencies", ""), ("build-dependencies", ""), ("dev-dependencies", " (tests)")):
                for name in table.get(kind, {}):
                    if not name.startswith("sol-"):
                        there.setdefault((name, mark), set()).add(crate)
    wanted = {}
    for (name, mark), crates in there.items():
        row = ", ".join(crate for crate in workspace["members"] if crate in crates) + mark
        wanted[name] = f"{wanted[name]}, {row}" if name in wanted else row
    assert told == wanted
    declared = {name for name in workspace["dependencies"] if not name.startswith("sol-")}
    assert declared == set(wanted), "Cargo.toml declares what nobody uses, or a manifest does not share its version"


@pytest.mark.parametrize("crate", ["codec", "engine"])
def test_codec_and_engine_cannot_reach_the_world(crate):
    """`#![no_std]` and `#![forbid(unsafe_code)]`: they cannot open, read, wait, log or ask the time."""
    assert re.search(r"^#!\[(no_std|cfg_attr\(not\(test\), no_std\))\]", lib(crate), re.M), f"{crate}/src/lib.rs: use #![no_std]"
    assert "#![forbid(unsafe_code)]" in lib(crate), f"{crate}/src/lib.rs: use #![forbid(unsafe_code)]"
    assert not found_outside_switches(r"\bstd::|extern crate std", f"{crate}/src"), "use core or alloc"


def test_unsafe_stands_in_the_transport_only():
    """Every other crate forbids it, and there it stands in the four files that hand memory or descriptors to the kernel."""
    assert not found(r"\bunsafe\b(?!_)", "codec", "engine", "server", "benches", tests=True)
    places = {line.split(":")[0] for line in found(r"\bunsafe\b(?!_)", "transport", tests=True)}
    uring = "transport/src/backend/uring"
    allowed = {"transport/src/listener.rs", f"{uring}/buffers.rs", f"{uring}/ring.rs", f"{uring}/send.rs"}
    assert places - {"transport/tests/suite/ladder.rs"} == allowed
    assert "#![deny(unsafe_code)]" in lib("transport"), "transport/src/lib.rs: use #![deny(unsafe_code)]"
    for crate, root in (("server", "lib.rs"), ("server", "main.rs"), ("engine/sim", "lib.rs"), ("benches", "lib.rs"), ("transport/journal", "lib.rs")):
        path = ROOT / crate / "src" / root
        assert not path.exists() or "#![forbid(unsafe_code)]" in path.read_text(), f"{path}: use #![forbid(unsafe_code)]"


def test_the_clock_is_read_in_one_place():
    """`Instant::now()` stands once in the workspace; everybody else is handed the time. The simulator's program tells how
    fast it was, and its worlds have a clock of their own."""
    places = [place for place in found(r"\bInstant::now\(", *CRATES) if not place.startswith("engine/sim/src/bin/")]
    assert len(places) == 1 and places[0].startswith("transport/src/clock.rs"), places


def test_dependencies_point_down():
    """server → transport → engine → codec, and nothing up or beside."""
    own = {"sol-codec", "sol-engine", "sol-journal", "sol-transport", "sol"}
    assert dependencies("codec") & own == set()
    assert dependencies("engine") & own <= {"sol-codec"}
    assert dependencies("transport") & own <= {"sol-codec", "sol-engine", "sol-journal"}
    assert dependencies("transport/journal") & own == set()
    assert dependencies("engine/sim") & own <= {"sol-codec", "sol-engine", "sol-journal"}


def test_the_codec_knows_no_sessions():
    """codec is bytes and packets: no Session, Subscription store or routing type is named in it."""
    assert not found(r"\b(struct|enum|trait|impl|use)\b.*\b(Session|Engine|Router|Broker)\b", "codec/src")


def test_the_engine_knows_no_sockets_or_encoded_bytes():
    """engine has no socket type and never encodes or decodes a packet: what it makes bytes of are its own records."""
    assert not found(r"\b(TcpStream|UnixStream|RawFd|OwnedFd|mio|socket2|libc)\b", "engine/src")
    coded = found(r"\bsol_codec::(decode|encode)\b|\.encode\(|\bdecode\(", "engine/src")
    assert not [line for line in coded if not line.startswith("engine/src/record/payload")]


def test_no_function_of_the_engine_is_async_or_takes_a_callback():
    """A pure state machine: plain inputs, plain outputs."""
    assert not found(r"\basync\b|\bawait\b|\bdyn Fn|Box<dyn FnMut|\bFuture\b", "engine/src")


def test_the_transport_knows_no_topics():
    """transport moves bytes and connections: no topic, filter or Subscription is named in it."""
    assert not found(r"\b(TopicName|TopicFilter|Subscription|SubscriptionOptions|Retained|ShareName)\b", "transport/src")


def test_only_the_server_reads_files_and_the_environment():
    """server alone knows configuration. (The transport removes the file that a Unix socket leaves behind.)"""
    assert not found_outside_switches(r"\bstd::(env|fs)\b|\benv::var", "codec/src", "engine/src")
    assert not found(r"\benv::|\bfs::(read|write|File\b|OpenOptions)|\bFile::", "transport/src")


def test_the_gate_for_rights_stands_at_its_seven_places():
    """`may` is asked once for each of its seven actions, and nowhere else."""
    actions = re.findall(r"^    (\w+),$", (ROOT / "engine/src/rights.rs").read_text(), re.M)
    assert sorted(actions) == ["Deliver", "Publish", "Replay", "Retained", "Share", "Subscribe", "Will"]
    asked = re.findall(r"\bmay\(\s*(?:&mut )?[\w.]+, \w+, (?:Action::)?([\w.]+)", "".join(found(r"\bmay\(", "engine/src")))
    assert sorted(a for a in asked if a != "Action") == sorted(actions), asked


def test_the_protocol_version_is_a_value():
    """One packet type per Control Packet: there is no second tree for a version."""
    for crate in CRATES:
        for path in (ROOT / crate).rglob("*"):
            assert not re.fullmatch(r"(v3|v31|v311|v4|v5|mqtt3|mqtt5)(\.rs)?", path.name) or "data" in path.parts, path
    assert not found(r"\b(struct|enum) \w*(V3|V31|V311|V4|V5)\b", "codec/src", "engine/src")


# What waits for others, or keeps them waiting, and why it is none of the data path's.
LOCKS = r"\b(Mutex|RwLock|Condvar|Barrier|OnceLock|LazyLock|parking_lot|mpsc|bounded|select!|thread::park|recv(?:_timeout|_deadline)?\()"
NO_LOCK_OF_THE_DATA_PATH = {
    ("transport/src/mailbox.rs", "OnceLock"): "how a shard is woken: set at its start, and only read afterwards",
    ("transport/src/tables.rs", "Mutex"): "for a moment when a connection comes or goes, and only where addresses, users or Sessions have a limit",
    ("transport/src/shards.rs", "bounded"): "the thread that starts and ends the shards waits for them, and no shard for it",
    ("transport/src/shards.rs", "recv("): "the same",
    ("transport/src/shards.rs", "recv_timeout("): "the same, until they have started",
    ("transport/src/durable/restore.rs", "bounded"): "at the start, before anybody is let in, records are handed out as fast as they are taken",
    ("transport/src/shard.rs", "recv("): "the same",
    ("transport/src/handle.rs", "bounded"): "the admin plane waits for answers; a shard never waits to give one",
    ("transport/src/handle.rs", "select!"): "the same",
    ("transport/src/handle.rs", "recv("): "the same",
}


def test_no_lock_stands_on_the_data_path():
    """What crosses between shards crosses by value through a mailbox: nothing in codec, engine and transport locks or waits,
    but for what is named with its reason, and no reason outlives what it excuses."""
    there = set()
    for path, number, line in sources("codec/src", "engine/src", "transport/src"):
        if str(path) == "codec/src/mutants.rs":
            continue  # no release has it
        for word in re.findall(LOCKS, line):
            assert (str(path), word) in NO_LOCK_OF_THE_DATA_PATH, f"{path}:{number}: use a mailbox, not {word}"
            there.add((str(path), word))
    assert there == set(NO_LOCK_OF_THE_DATA_PATH)
    for crate in ("codec", "engine", "transport"):
        assert not dependencies(crate) & {"parking_lot", "spin", "dashmap", "tokio", "async-std", "flume", "event-listener"}


def test_files_stay_readable():
    """No file has more than 600 lines outside its tests."""
    counts: dict = {}
    for path, number, _ in sources(*CRATES):
        counts[path] = number
    assert not {str(path): lines for path, lines in counts.items() if lines > 600}


def test_no_unfinished_code():
    """No todo!, unimplemented!, dbg! or ignored test is committed."""
    assert not found(r"\b(todo|unimplemented|dbg)!\(|#\[ignore", *CRATES, "benches", tests=True)
