"""TLS, mutual TLS and WebSocket with real clients, and certificates that openssl makes for the test."""

import signal
import socket
import ssl

import pytest

from authority import Authority
from broker import IS_MOSQUITTO, Listening, wait_until
from clients import MosquittoSub, Paho, mosquitto_pub
from wire import TIMEOUT, V5, V311

VERSIONS = {"tlsv1.2": ssl.TLSVersion.TLSv1_2, "tlsv1.3": ssl.TLSVersion.TLSv1_3}


@pytest.fixture
def start_tls(start_broker, authority):
    """start_tls(lines): a broker with a certificate of the authority."""
    certificate, key = authority.issue("broker")

    def start(lines=""):
        return start_broker(f"certfile {certificate}\nkeyfile {key}\n{lines}", cls=Listening)

    return start


def client(authority, identity=None):
    args = ["--cafile", str(authority.cafile)]
    return args + (["--cert", str(identity[0]), "--key", str(identity[1])] if identity else [])


def shake_hands(broker, authority, identity=None, version=None, resume=None, alpn=()):
    """A socket that speaks TLS."""
    context = ssl.create_default_context(cafile=authority.cafile)
    if version:
        context.minimum_version = context.maximum_version = version
    if identity:
        context.load_cert_chain(*identity)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    plain = socket.create_connection(broker.address, TIMEOUT)
    return context.wrap_socket(plain, server_hostname="localhost", session=resume)


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
@pytest.mark.parametrize("algorithm", [None, ("rsa:2048",)], ids=["ecdsa", "rsa"])
def test_messages_pass(start_broker, authority, version, algorithm):
    """mosquitto_pub and mosquitto_sub exchange messages of every size over both versions and both kinds of key."""
    certificate, key = authority.issue("own", algorithm=algorithm)
    broker = start_broker(f"certfile {certificate}\nkeyfile {key}", cls=Listening)
    args = [*client(authority), "--tls-version", version]
    with MosquittoSub(broker, *args, "-t", "t/#", "-q", "1", version=V5) as sub:
        for payload in (b"x", b"y" * 16_384, b"z" * 900_000):
            path = authority.folder / "payload"
            path.write_bytes(payload)
            mosquitto_pub(broker, *args, "-t", "t/1", "-q", "2", "-f", str(path), version=V5)
            assert sub.take().payload == payload


def test_only_the_versions_that_are_wanted(start_tls, authority):
    """tls_version is the least that is spoken; who offers less is told so, and the log says why."""
    broker = start_tls("tls_version tlsv1.3")
    shake_hands(broker, authority, version=ssl.TLSVersion.TLSv1_3).close()
    with pytest.raises(ssl.SSLError):
        shake_hands(broker, authority, version=ssl.TLSVersion.TLSv1_2)
    if not IS_MOSQUITTO:
        broker.says("offers no version of TLS")


def test_clients_show_certificates(start_tls, authority, tmp_path):
    """With require_certificate only who has a certificate of the authority, that is not revoked, comes in."""
    good, bad = authority.issue("good"), authority.issue("bad")
    foreign = Authority(tmp_path, "foreign").issue("good")
    crl = authority.revoke("bad")
    broker = start_tls(f"cafile {authority.cafile}\ncrlfile {crl}\nrequire_certificate true")
    mosquitto_pub(broker, *client(authority, good), "-t", "t", "-m", "x")
    for identity in (None, bad, foreign):
        done = mosquitto_pub(broker, *client(authority, identity), "-t", "t", "-m", "x", check=False)
        assert done.returncode != 0
    mosquitto_pub(broker, *client(authority, good), "-t", "t", "-m", "x")


@pytest.mark.parametrize(
    "option, user",
    [("use_identity_as_username", "jill"), ("use_subject_as_username", "CN=jill,OU=tower\\, west,O=house")],
)
def test_certificates_name_clients(start_tls, authority, tmp_path, option, user):
    """The name of the certificate is the User Name, whatever the client claims, and the rules of that user hold."""
    jill = authority.issue("jill", subject="/O=house/OU=tower, west/CN=jill")
    rules = tmp_path / "rules"
    rules.write_text(f"user {user}\ntopic readwrite of/jill\n")
    rules.chmod(0o600)
    broker = start_tls(f"cafile {authority.cafile}\nrequire_certificate true\n{option} true\nacl_file {rules}")
    args = [*client(authority, jill), "-u", "mallory", "-P", "wrong"]
    with MosquittoSub(broker, *args, "-t", "of/jill") as sub:
        mosquitto_pub(broker, *args, "-t", "of/nobody", "-m", "refused")
        mosquitto_pub(broker, *args, "-t", "of/jill", "-m", "mine")
        assert sub.take().payload == b"mine"


def test_a_certificate_without_a_name_is_refused(start_tls, authority):
    """Who is to be named by the Common Name and has none is refused in CONNACK, as Mosquitto does it."""
    nameless = authority.issue("nameless", subject="/O=house")
    broker = start_tls(f"cafile {authority.cafile}\nrequire_certificate true\nuse_identity_as_username true")
    done = mosquitto_pub(broker, *client(authority, nameless), "-t", "t", "-m", "x", check=False)
    assert done.returncode != 0 and b"Connection error" in done.stderr + done.stdout


@pytest.mark.sol
def test_another_certificate_after_sighup(start_tls, authority, tmp_path):
    """SIGHUP shows a new certificate to those who come later; who is there stays, and a bad file changes nothing."""
    broker = start_tls()
    certificate, key = authority.folder / "broker.crt", authority.folder / "broker.key"
    early = Paho(broker, "early", tls=authority.cafile)
    other = Authority(tmp_path, "other")
    for path, renewed in zip((certificate, key), other.issue("broker")):
        path.write_bytes(renewed.read_bytes())
    broker.reload()

    def is_renewed():
        try:
            shake_hands(broker, other).close()
            return True
        except ssl.SSLError:
            return False

    wait_until(is_renewed, "new certificate")
    early.subscribe("t", 0)
    key.write_text("no key")
    broker.process.send_signal(signal.SIGHUP)
    broker.says("there is no private key in it")
    shake_hands(broker, other).close()
    mosquitto_pub(broker, *client(other), "-t", "t", "-m", "x")
    early.close()


@pytest.mark.sol
def test_a_bad_file_refuses_to_start(start_broker, authority):
    """A key that does not fit is named, with the certificate that it should fit."""
    (certificate, _), (_, key) = authority.issue("own"), authority.issue("other")
    with pytest.raises(AssertionError, match="the key is not that of the certificate"):
        start_broker(f"certfile {certificate}\nkeyfile {key}", cls=Listening)


def test_a_session_is_resumed(start_tls, authority):
    """A client that comes again needs no full handshake, whichever shard it comes to."""
    broker = start_tls()
    context = ssl.create_default_context(cafile=authority.cafile)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    session, resumed = None, 0
    for _ in range(5):
        plain = socket.create_connection(broker.address, TIMEOUT)
        with context.wrap_socket(plain, server_hostname="localhost", session=session) as tls:
            session, resumed = tls.session, resumed + tls.session_reused
    assert resumed == 4


@pytest.mark.sol
def test_alpn(start_tls, authority):
    """A client that asks for `mqtt` is granted it."""
    with shake_hands(start_tls(), authority, alpn=["mqtt"]) as tls:
        assert tls.selected_alpn_protocol() == "mqtt"


@pytest.mark.sol
def test_one_speaks_tls_and_the_other_does_not(start_tls, start_broker, authority):
    """Either way round both are closed, and the log says what was wrong, once."""
    broker = start_tls()
    assert mosquitto_pub(broker, "-t", "t", "-m", "x", check=False).returncode != 0
    wait_until(lambda: broker.log().count("it does not speak TLS") == 1, "line of the log")
    plain = start_broker("", cls=Listening)
    assert mosquitto_pub(plain, *client(authority), "-t", "t", "-m", "x", check=False).returncode != 0
    wait_until(lambda: plain.log().count("it speaks TLS, and this listener does not") == 1, "line of the log")


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("version", [V311, V5])
def test_paho_over_websocket(start_tls, start_broker, authority, is_encrypted, version):
    """paho speaks MQTT in WebSocket frames, plain and inside of TLS, with payloads of every form of length."""
    lines = "protocol websockets"
    broker = start_tls(lines) if is_encrypted else start_broker(lines, cls=Listening)
    options = {"transport": "websockets", "tls": authority.cafile if is_encrypted else None}
    subscriber = Paho(broker, "subscribes", version, **options)
    publisher = Paho(broker, "publishes", version, **options)
    subscriber.subscribe("t/#", 1)
    for payload in (b"", b"x" * 100, b"y" * 200, b"z" * 100_000):
        publisher.publish("t/1", payload, 1)
        assert subscriber.take().payload == payload
    publisher.close()
    subscriber.close()
