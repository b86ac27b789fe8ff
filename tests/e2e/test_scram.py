"""Enhanced authentication with SCRAM-SHA-256 (MQTT 5.0, section 4.12; RFC 5802 and 7677), against the real binary.

The client's side is written here a second time, on hashlib and hmac.
"""

import base64
import hashlib
import hmac
import re
import secrets
import subprocess
import time

import pytest

import wire
from broker import sol_bin
from wire import AUTH, CONNACK, PUBLISH, TIMEOUT, V5, V311, Wire

pytestmark = pytest.mark.sol

METHOD = "SCRAM-SHA-256"
PASSWORDS = {"alice": "open sesame", "bob": "builder", "jürgen": "grüße, =Welt="}


class Scram:
    """The client's side of one exchange."""

    def __init__(self, user: str, password: str, gs2: str = "n,,", nonce: str | None = None):
        self.gs2, self.password = gs2, password
        self.nonce = nonce or secrets.token_urlsafe(18)
        self.bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={self.nonce}"

    def first(self) -> bytes:
        return (self.gs2 + self.bare).encode()

    def last(self, challenge: bytes) -> bytes:
        fields = dict(field.split("=", 1) for field in challenge.decode().split(","))
        assert fields["r"].startswith(self.nonce) and len(fields["r"]) >= len(self.nonce) + 18, challenge
        assert int(fields["i"]) >= 4096, challenge
        salted = hashlib.pbkdf2_hmac(
            "sha256", self.password.encode(), base64.b64decode(fields["s"], validate=True), int(fields["i"])
        )
        without_proof = f"c={base64.b64encode(self.gs2.encode()).decode()},r={fields['r']}"
        signed = f"{self.bare},{challenge.decode()},{without_proof}".encode()
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        self.expected = b"v=" + base64.b64encode(
            hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
        )
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()


def auth(reason: int, data: bytes | None = None, method: str | None = METHOD) -> bytes:
    values = {} if method is None else {"authentication_method": method}
    if data is not None:
        values["authentication_data"] = data
    return wire.packet(0xF0, bytes([reason]) + wire.properties(values))


def begin(w: Wire, client_id: str, first: bytes | None, method: str = METHOD, **options) -> None:
    values = {"authentication_method": method, **options.pop("properties_", {})}
    if first is not None:
        values["authentication_data"] = first
    w.send(wire.connect(client_id, V5, properties_=values, **options))


def challenge(w: Wire) -> bytes:
    p = w.expect(AUTH)
    assert p.reason == 0x18 and set(p.properties) == {"authentication_method", "authentication_data"}, p
    assert p.properties["authentication_method"] == METHOD
    return p.properties["authentication_data"]


def login(w: Wire, client_id: str, scram: Scram, expect: int = 0, **options):
    """The whole exchange; checks what the server proves in its turn."""
    begin(w, client_id, scram.first(), **options)
    w.send(auth(0x18, scram.last(challenge(w))))
    p = w.expect(CONNACK)
    assert p.reason == expect, f"CONNACK 0x{p.reason:02x}, not 0x{expect:02x}"
    if expect == 0:
        assert p.properties["authentication_method"] == METHOD
        assert p.properties["authentication_data"] == scram.expected
    else:
        w.expect_closed()
    return p


def reauthenticate(w: Wire, scram: Scram) -> None:
    w.send(auth(0x19, scram.first()))
    w.send(auth(0x18, scram.last(challenge(w))))


def passwd(*args: str, text: str = "") -> None:
    done = subprocess.run([sol_bin(), "passwd", *args], input=text, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def password_file(tmp_path_factory):
    """Users with keys for SCRAM, written by `sol passwd`, and one with a crypt(3) hash."""
    path = tmp_path_factory.mktemp("scram") / "passwords"
    for user, password in PASSWORDS.items():
        passwd("--scram", "--iterations", "4096", str(path), user, text=password + "\n")
    passwd(str(path), "carol", text="crypt\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def scram_broker(start_broker, password_file):
    return start_broker(f"log_level INFO\nallow_anonymous false\npassword_file {password_file}")


def test_a_good_login(scram_broker):
    """Whoever knows the password gets in with the right name, both flags without channel binding and any characters; the
    server proves that it has the keys.

    Proves 5.0: MQTT-4.12.0-2, MQTT-4.12.0-5.
    """
    for user, password in PASSWORDS.items():
        for gs2 in ("n,,", "y,,"):
            with scram_broker.wire(V5) as w:
                login(w, user, Scram(user, password, gs2))
                w.publish("t", b"x", qos=1)
                w.disconnect()
    with scram_broker.wire(V5) as w:
        login(w, "named", Scram("alice", PASSWORDS["alice"], "n,a=alice,"), username="alice", password="not looked at")


def test_plain_passwords_serve_beside_scram(scram_broker):
    """The same entry checks a plain password, on every version; a crypt(3) hash serves the plain password only."""
    for version in (V311, V5):
        for user, password in {**PASSWORDS, "carol": "crypt"}.items():
            scram_broker.client("x", version, username=user, password=password).disconnect()
        with scram_broker.wire(version) as w:
            w.connect("x", username="alice", password="Open sesame", expect=0x86 if version == V5 else 4)
    with scram_broker.wire(V5) as w:
        login(w, "x", Scram("carol", "crypt"), expect=0x87)


def test_a_wrong_password_and_an_unknown_user_look_alike(scram_broker):
    """Both are challenged, the unknown one with a salt that stays the same, and refused with 0x87 after it.

    Proves 5.0: MQTT-4.12.0-4, MQTT-3.1.4-2.
    """
    shapes = {}
    for user in ("alice", "eve", "carol"):
        salts = set()
        for _ in range(2):
            with scram_broker.wire(V5) as w:
                scram = Scram(user, "wrong", nonce="n" * 24)
                begin(w, "x", scram.first())
                data = challenge(w)
                salts.add(re.search(rb"s=([^,]+)", data).group(1))
                shapes[user] = (len(data), data.rpartition(b",")[2])
                w.send(auth(0x18, scram.last(data)))
                assert [p.reason for p in w.expect_closed()] == [0x87]
        assert len(salts) == 1
    assert len(set(shapes.values())) == 1, shapes


@pytest.mark.parametrize(
    "first",
    [
        None,
        b"",
        b"n,,",
        b"p=tls-unique,,n=alice,r=x",
        b"n,a=bob,n=alice,r=x",
        b"n,,m=1,n=alice,r=x",
        b"n,,n=alice,r=",
        b"n,,n=al=ice,r=x",
        b"\xff,,n=alice,r=x",
        b"n,,n=alice,r=" + b"x" * 5000,
    ],
)
def test_a_malformed_first_message(scram_broker, first):
    """It is refused like a wrong password, and the broker goes on."""
    with scram_broker.wire(V5) as w:
        begin(w, "x", first)
        assert [p.reason for p in w.expect_closed()] == [0x87]
    with scram_broker.wire(V5) as w:
        login(w, "x", Scram("alice", PASSWORDS["alice"]))


def test_a_proof_of_another_exchange(scram_broker):
    """What was said in one exchange is of no use in another one: the nonce of the server is new each time."""
    nonces = set()
    with scram_broker.wire(V5) as w:
        scram = Scram("alice", PASSWORDS["alice"], nonce="same")
        begin(w, "x", scram.first())
        data = challenge(w)
        nonces.add(data)
        recorded = scram.last(data)
        w.send(auth(0x18, recorded))
        assert w.expect(CONNACK).reason == 0
    for _ in range(3):
        with scram_broker.wire(V5) as w:
            begin(w, "x", scram.first())
            nonces.add(challenge(w))
            w.send(auth(0x18, recorded))
            assert [p.reason for p in w.expect_closed()] == [0x87]
    assert len(nonces) == 4


def test_unknown_methods(scram_broker, broker, name):
    """Another method is refused with 0x8C, and so is SCRAM where there is no password file.

    Proves 5.0: MQTT-4.12.0-1.
    """
    for b, method in ((scram_broker, "SCRAM-SHA-1"), (scram_broker, "scram-sha-256"), (broker, METHOD)):
        with b.wire(V5) as w:
            begin(w, name, Scram("alice", PASSWORDS["alice"]).first(), method)
            assert [(p.kind, p.reason) for p in w.expect_closed()] == [(CONNACK, 0x8C)]


def test_a_user_name_beside_scram_must_be_the_same(scram_broker):
    """Somebody who proves to be alice is not let in as bob."""
    with scram_broker.wire(V5) as w:
        login(w, "x", Scram("alice", PASSWORDS["alice"]), expect=0x87, username="bob", password=PASSWORDS["bob"])


def test_wrong_order_while_connecting(scram_broker):
    """Between CONNECT and CONNACK anything but AUTH 0x18 of the same method and DISCONNECT ends the connection.

    Proves 5.0: MQTT-3.1.2-30, MQTT-4.12.0-3, MQTT-4.12.0-5.
    """
    early = wire.publish("t", b"early", version=V5)
    for sent, reason in (
        (early, 0x82),
        (wire.subscribe([("t", 0)], version=V5), 0x82),
        (wire.packet(0xC0), 0x82),
        (wire.connect("x", V5), 0x82),
        (auth(0x19, b"x"), 0x82),
        (auth(0x00), 0x82),
        (wire.packet(0xF0), 0x82),
        (auth(0x18, b"x", "SCRAM-SHA-1"), 0x8C),
        (auth(0x18, b"x", None), 0x82),
        (auth(0x18, b"x"), 0x87),
        (auth(0x18), 0x87),
    ):
        with scram_broker.wire(V5) as w:
            begin(w, "x", Scram("alice", PASSWORDS["alice"]).first())
            challenge(w)
            w.send(sent)
            assert [(p.kind, p.reason) for p in w.expect_closed()] == [(CONNACK, reason)], sent.hex()
    with scram_broker.wire(V5) as w:
        begin(w, "x", Scram("alice", PASSWORDS["alice"]).first())
        challenge(w)
        w.send(wire.disconnect(V5))
        assert w.expect_closed() == []


def test_malformed_auth(scram_broker):
    """Flags in the Fixed Header of AUTH, and a Reason Code that it does not have, end the connection, before CONNACK and
    later.

    Proves 5.0: MQTT-3.15.1-1, MQTT-3.15.2-1.
    """
    flags = wire.packet(0xF1, auth(0x19, b"x")[2:])
    for sent, reason in ((flags, 0x81), (auth(0x01, b"x"), 0x82)):
        with scram_broker.wire(V5) as w:
            begin(w, "x", Scram("alice", PASSWORDS["alice"]).first())
            challenge(w)
            w.send(sent)
            assert [(p.kind, p.reason) for p in w.expect_closed()] == [(CONNACK, reason)]
        with scram_broker.wire(V5) as w:
            login(w, "x", Scram("alice", PASSWORDS["alice"]))
            w.send(sent)
            w.expect_disconnect(reason)


def test_the_servers_auth_has_no_more_than_it_needs(scram_broker):
    """A client may allow as little as the bytes of the AUTH itself: neither Reason String nor User Property swells it.

    Proves 5.0: MQTT-3.15.2-2, MQTT-3.15.2-3.
    """
    with scram_broker.wire(V5) as w:
        begin(w, "x", Scram("alice", PASSWORDS["alice"], nonce="n").first())
        p = w.expect(AUTH)
        size = len(wire.packet(0xF0, p.body))
    for maximum, fits in ((size, True), (size - 1, False)):
        with scram_broker.wire(V5) as w:
            first = Scram("alice", PASSWORDS["alice"], nonce="n").first()
            begin(w, "x", first, properties_={"maximum_packet_size": maximum})
            p = w.recv()
            assert (p.kind, p.reason) == ((AUTH, 0x18) if fits else (CONNACK, 0x83))


def test_without_a_method_there_is_no_auth(scram_broker):
    """A client with a plain password gets no method in CONNACK, and an AUTH of its own is a Protocol Error.

    Proves 5.0: MQTT-4.12.0-6, MQTT-4.12.0-7.
    """
    for reason in (0x00, 0x18, 0x19):
        with scram_broker.client("x", V5, username="alice", password=PASSWORDS["alice"]) as w:
            assert not {"authentication_method", "authentication_data"} & set(w.connack.properties)
            w.send(auth(reason, Scram("alice", PASSWORDS["alice"]).first()))
            w.expect_disconnect(0x82)


def test_reauthentication_beside_traffic(scram_broker):
    """A client may prove itself again while it publishes and is published to, and hears AUTH 0x00 with the server's proof;
    traffic goes on before, between and after the steps.

    Proves 5.0: MQTT-4.12.1-1, MQTT-4.12.0-5.
    """
    with scram_broker.wire(V5) as w:
        login(w, "x", Scram("alice", PASSWORDS["alice"]))
        w.subscribe(("t", 1))
        for _ in range(3):
            scram = Scram("alice", PASSWORDS["alice"])
            w.send(auth(0x19, scram.first()), wire.publish("t", b"1", version=V5))
            seen = [w.recv(), w.recv()]
            data = [p.properties["authentication_data"] for p in seen if p.kind == AUTH]
            assert sorted(p.kind for p in seen) == [PUBLISH, AUTH] and len(data) == 1
            w.publish("t", b"2")
            assert w.expect(PUBLISH).payload == b"2"
            w.ping()
            w.send(auth(0x18, scram.last(data[0])))
            done = w.expect(AUTH)
            assert (done.reason, done.properties["authentication_method"]) == (0x00, METHOD)
            assert done.properties["authentication_data"] == scram.expected
            w.publish("t", b"3")
            assert w.expect(PUBLISH).payload == b"3"


def test_failed_reauthentication(scram_broker):
    """A wrong password and another user end the connection with 0x87; the Will is published.

    Proves 5.0: MQTT-4.12.1-2.
    """
    with scram_broker.client("watcher", V5, username="bob", password=PASSWORDS["bob"]) as watcher:
        watcher.subscribe("w")
        for user, password in (("alice", "wrong"), ("bob", PASSWORDS["bob"]), ("eve", "x")):
            with scram_broker.wire(V5) as w:
                login(w, "x", Scram("alice", PASSWORDS["alice"]), will=wire.Will("w", user.encode()))
                reauthenticate(w, Scram(user, password))
                w.expect_disconnect(0x87)
            assert watcher.take().payload == user.encode()


def test_reauthentication_out_of_order(scram_broker):
    """Another method, a second beginning, an answer to nothing and an end of the client's are Protocol Errors.

    Proves 5.0: MQTT-4.12.1-1.
    """
    first = Scram("alice", PASSWORDS["alice"]).first()
    for begun, sent in (
        (False, auth(0x19, first, "SCRAM-SHA-1")),
        (False, auth(0x18, first)),
        (False, auth(0x00)),
        (True, auth(0x19, first)),
        (True, auth(0x00)),
        (True, auth(0x18, first, "SCRAM-SHA-1")),
    ):
        with scram_broker.wire(V5) as w:
            login(w, "x", Scram("alice", PASSWORDS["alice"]))
            if begun:
                w.send(auth(0x19, first))
                challenge(w)
            w.send(sent)
            w.expect_disconnect(0x82)


def test_reload_between_the_steps(start_broker, password_file, tmp_path):
    """SIGHUP between challenge and answer: whoever's entry stayed gets in, whoever's changed or went does not. Whom SCRAM let
    in is ended by it, too."""
    path = tmp_path / "passwords"
    path.write_bytes(password_file.read_bytes())
    b = start_broker(f"log_level INFO\nallow_anonymous false\npassword_file {path}")
    inside = {user: b.wire(V5) for user in ("alice", "bob")}
    for user, w in inside.items():
        login(w, f"inside {user}", Scram(user, PASSWORDS[user]))
    waiting = []
    for user in PASSWORDS:
        w, scram = b.wire(V5), Scram(user, PASSWORDS[user])
        begin(w, user, scram.first())
        waiting.append((user, w, scram.last(challenge(w))))
    passwd("-D", str(path), "bob")
    passwd("-b", "--scram", "--iterations", "4096", str(path), "jürgen", PASSWORDS["jürgen"])
    b.reload()
    for user, w, last in waiting:
        with w:
            w.send(auth(0x18, last))
            assert w.expect(CONNACK).reason == (0 if user == "alice" else 0x87), user
    with b.wire(V5) as w:
        login(w, "x", Scram("jürgen", PASSWORDS["jürgen"]))
    inside["bob"].expect_disconnect(0x87)
    reauthenticate(inside["alice"], Scram("alice", PASSWORDS["alice"]))
    assert inside["alice"].expect(AUTH).reason == 0
    for w in inside.values():
        w.close()


def test_the_whole_exchange_has_one_deadline(start_broker, password_file):
    """connect_timeout counts from the connection to CONNACK: a client that has sent CONNECT, half an AUTH, or one byte of it
    at a time, is closed like one that is silent. Who is in has all the time."""
    b = start_broker(f"allow_anonymous false\npassword_file {password_file}\nconnect_timeout 2\nlog_level INFO")
    scram = Scram("alice", PASSWORDS["alice"])
    with b.wire(V5) as inside:
        login(inside, "inside", Scram("alice", PASSWORDS["alice"]))
        inside.send(auth(0x19, scram.first()))
        data = challenge(inside)
        for drip in (b"", auth(0x18, b"x" * 200)):
            with b.wire(V5) as w:
                started = time.monotonic()
                begin(w, "x", Scram("alice", PASSWORDS["alice"]).first())
                challenge(w)
                assert w_closes(w, drip) and 1.5 < time.monotonic() - started < 8
        b.says("no AUTH that was due")
        inside.send(auth(0x18, scram.last(data)))
        assert inside.expect(AUTH).reason == 0


def w_closes(w: Wire, drip: bytes) -> bool:
    """Sends a byte now and then until the connection is closed."""
    for byte in drip[:-1]:
        try:
            w.send(bytes([byte]))
            w.recv(0.05)
        except AssertionError:
            continue
        except (wire.Closed, OSError):
            return True
        return False
    return w.expect_closed() == []


def test_a_flood_of_wrong_passwords_delays_nobody(scram_broker):
    """While more guesses wait than the queue has places, whoever logs in by SCRAM for the first time gets in at once, a
    client that is in proves itself again at once, and neither hears that the server is busy."""
    inside = scram_broker.wire(V5)
    login(inside, "inside", Scram("alice", PASSWORDS["alice"]))
    guesses = [scram_broker.wire(V5) for _ in range(1_200)]
    for n, w in enumerate(guesses):
        w.send(wire.connect(f"g{n}", V5, username="carol", password=f"guess{n}"))
    scram_broker.says("too many are waiting")
    started = time.monotonic()
    with scram_broker.wire(V5) as w:
        login(w, "new", Scram("bob", PASSWORDS["bob"]))
        reauthenticate(inside, Scram("alice", PASSWORDS["alice"]))
        assert inside.expect(AUTH).reason == 0
    assert time.monotonic() - started < 1
    for w in (inside, *guesses):
        w.close()


def test_a_refusal_is_logged_once(scram_broker):
    """A wrong proof and a malformed message make one line each, with the peer and the Client Identifier, and a
    re-authentication that fails makes one, too."""
    for n, first in enumerate((Scram("alice", "wrong"), None)):
        with scram_broker.wire(V5) as w:
            begin(w, f"refused{n}", first.first() if first else b"n,,")
            if first:
                w.send(auth(0x18, first.last(challenge(w))))
            assert [p.reason for p in w.expect_closed()] == [0x87]
    with scram_broker.wire(V5) as w:
        login(w, "refused2", Scram("alice", PASSWORDS["alice"]))
        reauthenticate(w, Scram("alice", "wrong"))
        w.expect_disconnect(0x87)
    scram_broker.says("refused2")
    lines = [line for line in scram_broker.log().splitlines() if re.search("refuse|SCRAM|authenticate", line)]
    assert len(lines) == 3, lines
    assert all("127.0.0.1" in line and f"refused{n}" in line for n, line in enumerate(lines)), lines


def test_3_1_1_has_no_auth(scram_broker):
    """A 3.1.1 client that sends AUTH is closed without a word."""
    with scram_broker.client("x", V311, username="alice", password=PASSWORDS["alice"]) as w:
        w.send(wire.packet(0xF0))
        assert w.expect_closed() == []


def test_takeover_by_scram(scram_broker):
    """An exchange takes a Session over when it has succeeded, and not before."""
    with scram_broker.wire(V5) as old, scram_broker.wire(V5) as new:
        login(old, "same", Scram("alice", PASSWORDS["alice"]))
        scram = Scram("alice", PASSWORDS["alice"])
        begin(new, "same", scram.first())
        data = challenge(new)
        old.ping()
        new.send(auth(0x18, scram.last(data)))
        assert new.expect(CONNACK).reason == 0
        old.expect_disconnect(0x8E)


def test_passwd_writes_what_scram_needs(start_broker, tmp_path):
    """`sol passwd --scram` keeps no password, has a sensible number of iterations, turns plain lines into keys, and refuses
    what cannot be; a file with too many iterations is refused by its line."""
    path = tmp_path / "passwords"
    path.write_text("dave:plain\n")
    passwd("--scram", str(path))
    passwd("--scram", str(path), "erin", text="secret\n")
    lines = path.read_text().splitlines()
    key, salt = "[+/0-9A-Za-z]{43}=", "[+/0-9A-Za-z]{22}=="
    for user, line in zip(("dave", "erin"), lines, strict=True):
        assert re.fullmatch(rf"{user}:\$scram-sha-256\$15000\${salt}\${key}\${key}", line), line
    b = start_broker(f"allow_anonymous false\npassword_file {path}")
    with b.wire(V5) as w:
        login(w, "x", Scram("dave", "plain"))
    for args in (("--scram", "--iterations", "4095"), ("--scram", "-D"), ("--iterations", "5000")):
        done = subprocess.run(
            [sol_bin(), "passwd", *args, str(path), "erin"], input="x\n", capture_output=True, text=True, timeout=TIMEOUT
        )
        assert done.returncode == 2, done
    path.write_text(path.read_text().replace("erin:$scram-sha-256$15000", "erin:$scram-sha-256$4000000000"))
    config = tmp_path / "sol.conf"
    config.write_text(f"ip_port 0\nallow_anonymous false\npassword_file {path}\n")
    done = subprocess.run([sol_bin(), "-c", str(config)], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 1 and f"{path}:2:6: iterations must be from 4096 to 1000000" in done.stderr, done.stderr
