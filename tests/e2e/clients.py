"""The real clients: mosquitto_pub, mosquitto_sub and paho-mqtt, with every wait bounded."""

import collections
import queue
import subprocess
import threading

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from broker import Broker
from wire import TIMEOUT, V5, V31, V311

MOSQUITTO_VERSIONS = {V31: "mqttv31", V311: "mqttv311", V5: "mqttv5"}

Received = collections.namedtuple("Received", "topic qos retain payload")


def _target(broker: Broker) -> list[str]:
    if isinstance(broker.address, str):
        return ["--unix", broker.address]
    return ["-h", broker.host, "-p", str(broker.port)]


def mosquitto_pub(broker: Broker, *args: str, version: int = V311, check: bool = True, stdin=None):
    command = ["mosquitto_pub", *_target(broker), "-V", MOSQUITTO_VERSIONS[version], *args]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False, stdin=stdin)
    assert not check or done.returncode == 0, f"{command}: {done.stderr.decode()}"
    return done


class MosquittoSub:
    """A running mosquitto_sub, past its SUBACK when the constructor returns."""

    def __init__(self, broker: Broker, *args: str, version: int = V311):
        # stdbuf: into a pipe mosquitto_sub buffers whole blocks, and its lines are what we wait for.
        command = ["stdbuf", "-oL", "mosquitto_sub", *_target(broker), "-V", MOSQUITTO_VERSIONS[version]]
        command += ["-d", "-F", "MSG\t%t\t%q\t%r\t%x", *args]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.lines: queue.Queue = queue.Queue()
        self.seen: list[str] = []
        threading.Thread(target=self._pump, daemon=True).start()
        self.wait_for("Subscribed (mid")

    def _pump(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line.decode().rstrip("\n"))
        self.lines.put(None)

    def wait_for(self, text: str) -> str:
        while True:
            try:
                line = self.lines.get(timeout=TIMEOUT)
            except queue.Empty:
                line = None
            assert line is not None, f"mosquitto_sub never printed {text!r}: {self.seen}"
            self.seen.append(line)
            if text in line:
                return line

    def take(self) -> Received:
        _, topic, qos, retain, payload = self.wait_for("MSG\t").split("\t")
        return Received(topic, int(qos), bool(int(retain)), bytes.fromhex(payload))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(TIMEOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Paho:
    """A paho client on its own loop thread. Callbacks fill queues; the methods wait on them."""

    def __init__(
        self,
        broker: Broker,
        client_id: str = "",
        version: int = V311,
        clean: bool = True,
        properties=None,
        login=None,
        tls=None,
        **kw,
    ):
        v5 = version == V5
        options = {} if v5 else {"clean_session": clean}
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=version, **options, **kw)
        if login:
            self.client.username_pw_set(*login)
        if tls:
            self.client.tls_set(ca_certs=str(tls))
        self.client.on_connect = lambda _c, _u, flags, reason, props: self.connected.put((flags, reason, props))
        self.client.on_disconnect = lambda _c, _u, _f, reason, props: self.disconnected.put((reason, props))
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_subscribe = lambda _c, _u, mid, reasons, _p: self.subscribed.put((mid, reasons))
        self.client.on_unsubscribe = lambda _c, _u, mid, reasons, _p: self.unsubscribed.put((mid, reasons))
        self.connected, self.disconnected, self.messages = queue.Queue(), queue.Queue(), queue.Queue()
        self.subscribed, self.unsubscribed = queue.Queue(), queue.Queue()
        more = {"clean_start": clean, "properties": properties} if v5 else {}
        self.client.connect(broker.host, broker.port, 60, **more)
        self.client.loop_start()
        self.flags, self.reason, self.properties = self.connected.get(timeout=TIMEOUT)

    def subscribe(self, *args, **kw):
        result, mid = self.client.subscribe(*args, **kw)
        assert result == 0
        got, reasons = self.subscribed.get(timeout=TIMEOUT)
        assert got == mid
        return [r.value for r in reasons]

    def unsubscribe(self, topic_filter):
        self.client.unsubscribe(topic_filter)
        return self.unsubscribed.get(timeout=TIMEOUT)[1]

    def publish(self, topic, payload=None, qos=0, retain=False, properties=None):
        info = self.client.publish(topic, payload, qos, retain, properties)
        info.wait_for_publish(TIMEOUT)
        assert info.is_published(), f"no acknowledgement for {topic}"
        return info

    def take(self):
        return self.messages.get(timeout=TIMEOUT)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
