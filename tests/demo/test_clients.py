"""Common MQTT clients against the broker of `gsdk2mqtt demo`: mosquitto and paho, MQTT 3.1.1 and 5.

Run: pip install -r tests/demo/requirements.txt && cargo build
     target/tools/venv/bin/python tests/demo/test_clients.py
The program is target/debug/gsdk2mqtt, or what BRIDGE names. Another broker: test_clients.py HOST:PORT.
"""

import contextlib
import pathlib
import queue
import socket
import subprocess
import sys
import tempfile
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "deploy"))
from programs import BRIDGE, free_port, running, until  # noqa: E402

DEADLINE_S = 10
QUIET_S = 0.5  # how long no message may arrive where none is expected
VERSIONS = {"3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}


class Paho:
    """A connected paho client; received messages wait in a queue."""

    def __init__(self, broker, version, client_id="", will=None):
        self.version = version
        self.received, self.acknowledged = queue.Queue(), queue.Queue()
        self.refused = None
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=version,
                                  reconnect_on_failure=False)
        if will:
            self.client.will_set(*will, qos=1, retain=True)
        connected = queue.Queue()
        self.client.on_connect = lambda *call: connected.put(call[3])
        self.client.on_disconnect = lambda *call: connected.put(call[3])
        self.client.on_message = lambda *call: self.received.put(call[2])
        self.client.on_subscribe = lambda *call: self.acknowledged.put(call[3])
        self.client.connect(broker[0], broker[1], keepalive=5)
        # Not loop_start: its loop_stop fails if the thread ends by itself at that moment.
        self.thread = threading.Thread(target=self.client.loop_forever, daemon=True)
        self.thread.start()
        reason = connected.get(timeout=DEADLINE_S)
        assert not reason.is_failure, f"not connected: {reason}"

    def subscribe(self, topic, **options):
        if options:
            self.client.subscribe(topic, options=SubscribeOptions(qos=1, **options))
        else:
            self.client.subscribe(topic, qos=1)
        codes = self.acknowledged.get(timeout=DEADLINE_S)
        assert not codes[0].is_failure, f"subscription refused: {codes}"

    def publish(self, topic, payload, qos=1, retain=False, properties=None):
        sent = self.client.publish(topic, payload, qos, retain, properties)
        sent.wait_for_publish(DEADLINE_S)
        assert sent.is_published(), f"not acknowledged: {topic}"

    def next(self):
        return self.received.get(timeout=DEADLINE_S)

    def nothing(self):
        with contextlib.suppress(queue.Empty):
            message = self.received.get(timeout=QUIET_S)
            raise AssertionError(f"unexpected: {message.topic} {message.payload}")

    def close(self):
        self.client.disconnect()
        self.thread.join(DEADLINE_S)

    def die(self):
        """Closes the connection without DISCONNECT."""
        self.client.socket().shutdown(socket.SHUT_RDWR)
        self.thread.join(DEADLINE_S)


def properties(**fields):
    made = Properties(PacketTypes.PUBLISH)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def wildcards_and_qos(broker, version, base):
    reader, writer = Paho(broker, version), Paho(broker, version)
    for topic in (f"{base}/+/state", f"{base}/all/#"):
        reader.subscribe(topic)
    for qos in (0, 1, 2):
        for topic in (f"{base}/a/state", f"{base}/all/b/c"):
            payload = f"{topic} {qos}"
            writer.publish(topic, payload, qos)
            message = reader.next()
            got = (message.topic, message.payload.decode(), message.qos, message.retain)
            assert got == (topic, payload, min(qos, 1), False), got
    writer.publish(f"{base}/a/b/state", "not subscribed")
    reader.nothing()
    reader.client.unsubscribe(f"{base}/+/state")
    writer.publish(f"{base}/all", "a level above")
    assert reader.next().topic == f"{base}/all"
    reader.client.subscribe([(f"{base}/x", 1), (f"{base}/y", 0)])
    assert len(reader.acknowledged.get(timeout=DEADLINE_S)) == 2
    large = b"x" * 200_000
    writer.publish(f"{base}/x", large)
    assert reader.next().payload == large
    for client in (reader, writer):
        client.close()


def retained(broker, version, base):
    writer = Paho(broker, version)
    topics = {f"{base}/kept/{number}" for number in range(200)}
    for topic in topics:
        writer.publish(topic, "value", retain=True)
    reader = Paho(broker, version)
    reader.subscribe(f"{base}/kept/+")
    messages = [reader.next() for _ in topics]
    assert {message.topic for message in messages} == topics
    assert all(message.retain for message in messages)
    reader.nothing()
    for topic in topics:
        writer.publish(topic, b"", retain=True)
        assert reader.next().payload == b""
    late = Paho(broker, version)
    late.subscribe(f"{base}/kept/+")
    late.nothing()
    for client in (writer, reader, late):
        client.close()


def last_will(broker, version, base):
    reader = Paho(broker, version)
    reader.subscribe(f"{base}/will/#")
    dead = Paho(broker, version, will=(f"{base}/will/dead", "offline"))
    clean = Paho(broker, version, will=(f"{base}/will/clean", "offline"))
    clean.close()
    dead.die()
    message = reader.next()
    assert (message.topic, message.payload) == (f"{base}/will/dead", b"offline")
    reader.nothing()
    late = Paho(broker, version)
    late.subscribe(f"{base}/will/+")
    assert late.next().retain
    late.client.publish(f"{base}/will/dead", b"", 1, True)
    for client in (reader, late):
        client.close()


def session_taken_over(broker, version, base):
    first = Paho(broker, version, client_id=f"{base}-one")
    gone = queue.Queue()
    first.client.on_disconnect = lambda *call: gone.put(call)
    first.client.on_connect = None
    first.client.reconnect_delay_set(60)
    second = Paho(broker, version, client_id=f"{base}-one")
    gone.get(timeout=DEADLINE_S)
    second.subscribe(f"{base}/own")
    second.publish(f"{base}/own", "to myself")
    assert second.next().payload == b"to myself"
    for client in (first, second):
        client.close()


def keep_alive(broker, version, base):
    """An idle connection answers pings and stays."""
    client = Paho(broker, version)
    gone = queue.Queue()
    client.client.on_disconnect = lambda *call: gone.put(call)
    client.subscribe(f"{base}/idle")
    with contextlib.suppress(queue.Empty):
        raise AssertionError(f"closed: {gone.get(timeout=9)}")
    client.publish(f"{base}/idle", "still here")
    assert client.next().payload == b"still here"
    client.close()


def response_topic(broker, base):
    """MQTT 5: a request with response topic and correlation data is answered by another client."""
    asking, answering = Paho(broker, mqtt.MQTTv5), Paho(broker, mqtt.MQTTv5)
    answering.subscribe(f"{base}/request/+")
    asking.subscribe(f"{base}/response/me")
    asking.publish(f"{base}/request/devices", "{}", properties=properties(
        ResponseTopic=f"{base}/response/me", CorrelationData=b"\x00\xff42",
        ContentType="application/json", MessageExpiryInterval=30, PayloadFormatIndicator=1,
        UserProperty=("key", "value")))
    request = answering.next()
    assert request.properties.ContentType == "application/json"
    assert ("key", "value") in request.properties.UserProperty
    assert request.properties.MessageExpiryInterval <= 30
    answering.publish(request.properties.ResponseTopic, "answer", properties=properties(
        CorrelationData=request.properties.CorrelationData))
    answer = asking.next()
    assert answer.payload == b"answer"
    assert answer.properties.CorrelationData == b"\x00\xff42"
    for client in (asking, answering):
        client.close()


def subscription_options(broker, base):
    """MQTT 5: retain handling, retain as published, and no local."""
    client, writer = Paho(broker, mqtt.MQTTv5), Paho(broker, mqtt.MQTTv5)
    writer.publish(f"{base}/option", "kept", retain=True)
    client.subscribe(f"{base}/option", retainHandling=2, noLocal=True, retainAsPublished=True)
    client.nothing()
    client.publish(f"{base}/option", "own")
    client.nothing()
    writer.publish(f"{base}/option", b"", retain=True)
    assert client.next().retain
    for each in (client, writer):
        each.close()


def versions_meet(broker, base):
    old, new = Paho(broker, mqtt.MQTTv311), Paho(broker, mqtt.MQTTv5)
    for reader, writer in ((old, new), (new, old)):
        reader.subscribe(f"{base}/meet/#")
        writer.publish(f"{base}/meet/x", "across")
        assert reader.next().payload == b"across"
        reader.client.unsubscribe(f"{base}/meet/#")
    for each in (old, new):
        each.close()


def mosquitto(broker, version, base):
    where = ["-h", broker[0], "-p", str(broker[1]), "-V", {"3.1.1": "311", "5": "5"}[version]]
    call = {"capture_output": True, "text": True, "timeout": DEADLINE_S}
    topic = f"{base}/mosquitto/a"
    for qos in "012":
        sent = subprocess.run(["mosquitto_pub", *where, "-q", qos, "-r", "-t", topic, "-m", qos],
                              **call)
        assert (sent.returncode, sent.stderr) == (0, ""), sent
        got = subprocess.run(["mosquitto_sub", *where, "-v", "-C", "1", "-q", qos,
                              "-t", f"{base}/mosquitto/#"], **call)
        assert (got.stdout, got.stderr) == (f"{topic} {qos}\n", ""), got
    if version == "5":
        answering = Paho(broker, mqtt.MQTTv5)
        answering.subscribe(f"{base}/rr")
        answering.client.on_message = lambda _client, _data, request: answering.client.publish(
            request.properties.ResponseTopic, "answer")
        asked = subprocess.run(["mosquitto_rr", *where, "-t", f"{base}/rr", "-e", f"{base}/me",
                                "-m", "{}"], **call)
        assert asked.stdout == "answer\n", asked
        answering.close()


def bridge_answers(broker):
    """The bridge itself, through its own demo's broker."""
    where = ["-h", broker[0], "-p", str(broker[1])]
    asked = subprocess.run(
        ["mosquitto_rr", *where, "-V", "5", "-t", "gsdk/demo/request/devices",
         "-e", "gsdk-reply/me", "-m", "{}"],
        capture_output=True, text=True, timeout=DEADLINE_S)
    assert '"result":"ok"' in asked.stdout, asked


CHECKS = (wildcards_and_qos, retained, last_will, session_taken_over, keep_alive)
CHECKS_OF_5 = (response_topic, subscription_options, versions_meet)


def check(broker):
    """Runs every check; returns the names of those that failed."""
    failed = []

    def attempt(name, function, *arguments):
        try:
            function(*arguments)
            print(f"ok      {name}")
        except Exception as error:  # noqa: BLE001  (each check is reported)
            failed.append(name)
            print(f"FAILED  {name}: {type(error).__name__}: {str(error)[:300]}")

    for label, version in VERSIONS.items():
        for function in CHECKS:
            base = f"t{label.replace('.', '')}-{function.__name__}"
            attempt(f"paho {label}: {function.__name__}", function, broker, version, base)
        attempt(f"mosquitto {label}", mosquitto, broker, label, f"m{label.replace('.', '')}")
    for function in CHECKS_OF_5:
        attempt(f"paho 5: {function.__name__}", function, broker, function.__name__)
    return failed


def main():
    if len(sys.argv) > 1:
        host, port = sys.argv[1].rsplit(":", 1)
        sys.exit(1 if check((host, int(port))) else 0)
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        log = pathlib.Path(folder) / "demo.log"
        with running(BRIDGE, "demo", "--mqtt", f"127.0.0.1:{port}", log=log):
            until("the demo runs", lambda: "Ctrl-C" in log.read_text())
            failed = check(("127.0.0.1", port))
            bridge_answers(("127.0.0.1", port))
            assert not failed, failed
    print("demo: mosquitto and paho can use its broker, with MQTT 3.1.1 and 5")


if __name__ == "__main__":
    main()
