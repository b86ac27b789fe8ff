"""Rules of mosquitto's ACL files as clients see them, and what becomes of what is there when they change."""

import re

import pytest

import wire
from broker import IS_MOSQUITTO, Listening, free_port
from clients import MosquittoSub, Paho, mosquitto_pub
from hostile import GOOD_HASH
from test_server import refused
from wire import V5, V311

RULES = """\
# For clients without a name.
topic read public/#
topic write in/#

user ann
topic readwrite #
topic deny secret/#

user bob
topic read house/#
topic write house/bob/with space
topic deny house/safe/#

pattern readwrite client/%c/#
pattern read name/%u
"""

NOT_AUTHORIZED = 0x87


@pytest.fixture
def acl(tmp_path):
    path = tmp_path / "acl"
    path.write_text(RULES)
    path.chmod(0o600)
    return path


@pytest.fixture
def limited(start_broker, acl):
    return start_broker(f"acl_file {acl}", cls=Listening)


def reload(broker, acl, text: str) -> None:
    """Puts other rules in force."""
    acl.write_text(text)
    broker.reload()


def user(name: str) -> dict:
    return {"username": name, "password": "x"}


def test_publishing_needs_a_right(limited):
    """What mosquitto_pub may not publish reaches nobody and is not kept, as retained neither; what it may does. A topic with
    spaces is one of a rule."""
    with MosquittoSub(limited, "-u", "ann", "-P", "x", "-t", "#", "-q", "1") as sub:
        for topic, name in (("public/x", None), ("house/x", "bob"), ("secret/x", "ann"), ("client/other/x", "bob")):
            who = ["-u", name, "-P", "x"] if name else []
            for version in (V311, V5):
                options = ["-i", "me", "-t", topic, "-m", "no", "-q", "1", "-r"]
                mosquitto_pub(limited, *options, *who, version=version, check=False)
        mosquitto_pub(limited, "-t", "house/bob/with space", "-m", "1", "-u", "bob", "-P", "x")
        mosquitto_pub(limited, "-t", "in/x", "-m", "2")
        mosquitto_pub(limited, "-t", "client/me/x", "-m", "3", "-i", "me")
        got = [sub.take() for _ in range(3)]
        assert [(m.topic, m.payload) for m in got] == [
            ("house/bob/with space", b"1"),
            ("in/x", b"2"),
            ("client/me/x", b"3"),
        ]
    with Paho(limited, "five", version=V5) as client:
        client.client.on_publish = lambda _c, _u, _m, reason, _p: client.messages.put(reason.value)
        client.publish("public/x", qos=1)
        client.publish("in/x", qos=1)
        assert [client.take() for _ in range(2)][0] == NOT_AUTHORIZED
    with limited.client("five", V5) as client:
        assert client.publish("public/x", qos=2).reason == NOT_AUTHORIZED
        assert client.publish("in/x", qos=2).reason < 0x80
    with limited.client("late", **user("ann")) as late:
        late.subscribe(("#", 0))
        late.ping()


TOPICS = ["house/a", "house/safe/a", "other/a", "client/me/a", "client/you/a", "name/bob", "name/ann", "house"]
# Of these for bob as the client `me`.
READABLE = ["client/me/a", "house", "house/a", "name/bob"]


def test_a_wildcard_delivers_what_may_be_read(limited):
    """`#` delivers what a rule allows, live and retained, and nothing else."""
    with limited.client("publisher", **user("ann")) as publisher, limited.client("me", **user("bob")) as bob:
        for topic in TOPICS:
            publisher.publish(topic, b"kept", qos=1, retain=True)
        bob.subscribe(("#", 0))
        assert sorted(bob.take().topic for _ in READABLE) == READABLE
        for topic in TOPICS:
            publisher.publish(topic, b"live", qos=1)
        assert sorted(bob.take().topic for _ in READABLE) == READABLE
        bob.ping()


@pytest.mark.sol
def test_a_shared_subscription_delivers_what_may_be_read(limited):
    """Of a Shared Subscription only messages that a rule allows come to its member."""
    with limited.client("publisher", **user("ann")) as publisher, limited.client("me", **user("bob")) as bob:
        bob.subscribe(("$share/g/#", 0))
        for topic in TOPICS:
            publisher.publish(topic, b"live", qos=1)
        assert sorted(bob.take().topic for _ in READABLE) == READABLE
        bob.ping()


@pytest.mark.sol
def test_a_filter_with_nothing_to_read_is_refused(limited):
    """SUBACK says 0x87, to 3.1.1 0x80, for a filter of which nothing can be read [MQTT-3.9.3-2]; others are granted."""
    for version, code in ((V5, NOT_AUTHORIZED), (V311, 0x80)):
        with limited.client("me", version, **user("bob")) as bob:
            suback = bob.subscribe(("secret/#", 1), ("house/safe/x", 1), ("$share/g/other", 1), ("client/+/x", 1), ("#", 1))
            assert list(suback.reasons) == [code, code, code, 1, 1]


@pytest.mark.parametrize("client_id", ["+", "#", "me/x", "m+"])
def test_names_widen_no_pattern(limited, client_id):
    """A Client Identifier with a wildcard reads and writes nobody's topics by `%c`."""
    if IS_MOSQUITTO and "/" in client_id:
        pytest.skip("mosquitto puts a / into patterns")
    with limited.client("me", **user("bob")) as me, limited.client(client_id, V5) as intruder:
        me.subscribe(("client/#", 1))
        intruder.subscribe(("client/#", 1))
        assert intruder.publish("client/me/x", b"no", qos=1).reason == NOT_AUTHORIZED
        with limited.client("me2", **user("ann")) as ann:
            ann.publish("client/me/x", b"yes", qos=1)
        assert me.take().payload == b"yes"
        intruder.ping()


def test_a_will_needs_a_right(limited):
    """A Will that its client may not publish is not published."""
    with MosquittoSub(limited, "-u", "ann", "-P", "x", "-t", "#") as sub:
        for topic in ("public/will", "in/will"):
            limited.client(f"w{len(topic)}", will=wire.Will(topic, b"gone", 1)).close()
        assert sub.take().topic == "in/will"


def test_a_change_is_in_force_for_who_is_there(limited, acl):
    """Other rules hold as soon as SIGHUP is taken: for a live Subscription, a publisher's latest topic, what waits in a queue,
    what is retained, and a Will."""
    open_to_all = "topic readwrite #\n"
    reload(limited, acl, open_to_all)
    away = limited.client("away", clean=False)
    away.subscribe(("a/#", 1))
    away.close()
    watcher, publisher = limited.client("watcher"), limited.client("publisher", V5)
    dying = limited.client("dying", will=wire.Will("a/will", b""))
    watcher.subscribe(("a/#", 0))
    for topic in ("a/no", "a/yes"):
        publisher.publish(topic, b"1", qos=1, retain=True)
        assert watcher.take().topic == topic
    reload(limited, acl, "topic read a/yes\ntopic read b\ntopic write a/yes\ntopic write a/no\n")
    publisher.publish("a/no", b"2", qos=1)
    publisher.publish("a/yes", b"2", qos=1)
    assert watcher.take().topic == "a/yes"
    dying.close()
    watcher.subscribe(("a/+", 0))
    assert watcher.take().topic == "a/yes"
    away = limited.client("away", clean=False)
    assert [away.take().payload for _ in range(2)] == [b"1", b"2"]
    reload(limited, acl, "topic read a/#\n")
    assert publisher.publish("a/yes", b"3", qos=1).reason == NOT_AUTHORIZED
    watcher.ping()
    for client in (away, watcher, publisher):
        client.close()


@pytest.mark.parametrize("checks", ["true", "false"])
def test_a_retained_message_needs_its_publishers_right(start_broker, acl, checks):
    """What somebody retained who may not publish it any more is not sent to new Subscriptions, but with
    `check_retain_source false`."""
    broker = start_broker(f"acl_file {acl}\ncheck_retain_source {checks}", cls=Listening)
    with broker.client("publisher", **user("ann")) as publisher:
        for topic in ("r/1", "r/2"):
            publisher.publish(topic, b"kept", qos=1, retain=True)
    reload(broker, acl, "topic read #\nuser ann\ntopic write r/2\n")
    with broker.client("late") as late:
        late.subscribe(("r/1", 0), ("r/2", 0))
        topics = ["r/2"] if checks == "true" else ["r/1", "r/2"]
        assert sorted(late.take().topic for _ in topics) == topics
        late.ping()


@pytest.mark.sol
def test_users_and_rules_change_together(start_broker, acl, tmp_path):
    """SIGHUP with other users and a faulty ACL file lets none of these users in, since the rules are still those of before;
    and the other way round. When both are right, both hold."""
    passwords = tmp_path / "passwords"
    passwords.write_text(f"ann:{GOOD_HASH}\n")
    broker = start_broker(f"acl_file {acl}\npassword_file {passwords}", cls=Listening)
    bob = {"username": "bob", "password": "goodpw"}
    for users, rules in ((f"bob:{GOOD_HASH}\n", "topic reed #\n"), ("bob\n", "topic readwrite #\n")):
        passwords.write_text(users)
        reload(broker, acl, rules)
        broker.says("not reloaded, the old stays in force")
        with broker.wire(V5) as w:
            w.connect("b", expect=0x86, **bob)
        with broker.client("a", V5, username="ann", password="goodpw") as ann, broker.client("n", V5) as nameless:
            assert ann.publish("house/x", qos=1).reason in (0, 0x10)
            assert nameless.publish("house/x", qos=1).reason == NOT_AUTHORIZED
    passwords.write_text(f"bob:{GOOD_HASH}\n")
    reload(broker, acl, "user bob\ntopic write house/#\n")
    with broker.client("b", V5, **bob) as w:
        assert w.publish("house/x", qos=1).reason in (0, 0x10)


@pytest.mark.sol
def test_a_faulty_file(start_broker, acl, tmp_path):
    """A file that is missing or has a faulty line refuses the start with its place, and changes nothing at a reload; one that
    all may read is told with the command that closes it."""
    acl.write_text("topic reed a b\n")
    conf = tmp_path / "sol.conf"
    conf.write_text(f"metrics off\nlistener {free_port()} 127.0.0.1\nacl_file {acl}\n")
    assert re.search(r"acl:1:7: `reed` is no access", refused("-c", str(conf)))
    conf.write_text(f"metrics off\nlistener {free_port()} 127.0.0.1\nacl_file {tmp_path}/missing\n")
    assert "missing: acl_file cannot be read" in refused("-c", str(conf))

    acl.write_text("topic readwrite ok\n")
    acl.chmod(0o644)
    broker = start_broker(f"acl_file {acl}", cls=Listening)
    broker.says(f"chmod o-rwx '{acl}'")
    with broker.client("watcher") as watcher, broker.client("publisher", V5) as publisher:
        watcher.subscribe(("ok", 0))
        reload(broker, acl, "topic\n")
        broker.says("acl:1:6: a Topic Filter is missing")
        publisher.publish("ok", b"", qos=1)
        assert watcher.take().topic == "ok"
        assert publisher.publish("no", qos=1).reason == NOT_AUTHORIZED
        broker.says("no right to publish")
