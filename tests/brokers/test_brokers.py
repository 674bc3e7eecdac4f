"""The bridge beside other brokers than mosquitto: a matrix.

Run: make test-brokers, or
     target/tools/venv/bin/python tests/brokers/test_brokers.py [--write] [NAME ...]
The program is target/debug/gsdk2mqtt, or what BRIDGE names. --write puts the table into docs/brokers.md.
What a broker is known not to do stands in KNOWN; anything else that fails ends this with 1.
"""

import json
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import traceback
import urllib.error
import urllib.request

import paho.mqtt.client as mqtt
from brokers import ALL, PASSWORD, ROOT, SMALL, USER, missing
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from programs import BRIDGE, free_port, get, running, until

PAGE = ROOT / "docs/brokers.md"
BEGIN, END = "<!-- the matrix, by make test-brokers -->", "<!-- end of the matrix -->"
DEVICES, CHANGES = 20, 2_000
VERSIONS = {"3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}
DEADLINE_S = 150

# (broker, version, check): what it does instead, as the page says it.
SILENT = "drops a forbidden message without an error, so the bridge cannot report it"
KNOWN = {
    ("mosquitto", "3.1.1", "access list"): SILENT,
    ("RabbitMQ", "3.1.1", "retained"): "keeps retained messages for exact topics only: a client that "
                                       "subscribes with a wildcard sees no state until it changes",
    ("NATS", "3.1.1", "access list"): SILENT,
    ("amqtt", "3.1.1", "access list"): SILENT,
}


class Client:
    """A subscriber of everything, with what it has received."""

    def __init__(self, broker, version, topic="gsdk/#"):
        self.version, self.seen = version, []
        self.subscribed = queue.Queue()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, f"test{free_port()}",
                             protocol=VERSIONS[version])
        client.username_pw_set(USER, PASSWORD)
        client.on_connect = lambda *call: client.subscribe([(topic, 1), ("gsdk-reply/#", 1)])
        client.on_subscribe = lambda *call: self.subscribed.put(True)
        client.on_message = lambda *call: self.seen.append(call[2])
        client.connect("127.0.0.1", broker.port, keepalive=30)
        # Not loop_start: its loop_stop fails if the thread ends by itself at that moment.
        self.thread = threading.Thread(target=client.loop_forever, daemon=True)
        self.thread.start()
        self.client = client
        self.subscribed.get(timeout=DEADLINE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.disconnect()
        self.thread.join(DEADLINE_S)

    def latest(self, topic):
        return next((one for one in reversed(self.seen) if one.topic == topic), None)

    def has(self, topic, payload):
        found = self.latest(topic)
        return found is not None and found.payload.decode() == payload

    def events(self):
        messages = [one for one in self.seen if "/event/" in one.topic]
        return [json.loads(one.payload) for one in messages if one.topic.split("/")[2].isdigit()]

    def request(self, command, payload):
        """Where the answer comes."""
        topic, properties = f"gsdk/lobby/response/{command}", None
        if self.version == "5":
            topic = "gsdk-reply/test/1"
            properties = Properties(PacketTypes.PUBLISH)
            properties.ResponseTopic = topic
        sent = self.client.publish(f"gsdk/lobby/request/{command}", json.dumps(payload), 1,
                                   properties=properties)
        sent.wait_for_publish(DEADLINE_S)
        return topic


class Site:
    """A simulated gateway, and a configuration for one broker."""

    def __init__(self, folder, broker, version, gateway):
        self.folder, self.broker, self.version, self.gateway = folder, broker, version, gateway
        self.http, self.runs = free_port(), 0
        self.configure()

    def configure(self, password=PASSWORD):
        folder = self.folder
        folder.mkdir(exist_ok=True)
        (folder / "password").write_text(password)
        # Not every broker announces its limit.
        limit = f'max_answer = "{SMALL}"\n' if self.broker.small else ""
        (folder / "config.toml").write_text(
            f'state_dir = "{folder}/state"\n[mqtt]\nurl = "mqtt://127.0.0.1:{self.broker.port}"\n'
            f'protocol = "{self.version}"\nusername = "{USER}"\npassword_file = "{folder}/password"\n'
            f'{limit}[http]\nlisten = "127.0.0.1:{self.http}"\n[commands]\nallow = ["*"]\n'
            f'[gateways.lobby]\naddress = "{self.gateway["address"]}"\n'
            f'ca_file = "{self.gateway["ca_file"]}"\n')

    def bridge(self):
        self.runs += 1
        return running(BRIDGE, "run", "--config", self.folder / "config.toml",
                       log=self.folder / f"bridge{self.runs}.log")

    def is_ready(self):
        return get(f"http://127.0.0.1:{self.http}/readyz")

    def readyz(self):
        try:
            return self.is_ready()
        except urllib.error.HTTPError as error:
            return error.read().decode()

    def check(self):
        run = subprocess.run([BRIDGE, "check", "--connect", "--config", self.folder / "config.toml"],
                             capture_output=True, text=True, check=False)
        return run.returncode, run.stdout

    def fault(self, what):
        urllib.request.urlopen(f"{self.gateway['control']}/fault", data=json.dumps(what).encode())

    def devices(self):
        return json.loads(get(f"{self.gateway['control']}/devices"))


def states(client, count=DEVICES):
    topics = {one.topic for one in client.seen
              if one.topic.endswith("/state") and one.payload and one.topic.count("/") == 3}
    return len(topics) >= count


def start(site):
    with site.broker.up(), site.bridge():
        until("ready", site.is_ready)
        with Client(site.broker, site.version) as client:
            site.fault({"do": "drop", "devices": {"random": 1}})
            until("an event", lambda: any(event["event_type"] == "disconnected"
                                          for event in client.events()))


def retained(site):
    with site.broker.up(), site.bridge():
        until("ready", site.is_ready)
        device = site.devices()[0]["device_id"]
        topic = f"gsdk/lobby/{device}/state"
        with Client(site.broker, site.version, topic) as exact:
            until("the state by its topic", lambda: exact.latest(topic))
        with Client(site.broker, site.version) as client:
            until("all states by a wildcard", lambda: states(client))


def commands(site):
    with site.broker.up(), site.bridge(), Client(site.broker, site.version) as client:
        until("ready", site.is_ready)
        topic = client.request("devices", {"transaction": "1"})
        answer = until("the answer", lambda: client.latest(topic))
        answer = json.loads(answer.payload)
        assert answer["result"] == "ok" and len(answer["data"]["devices"]) == DEVICES, answer


def restart(site):
    with site.bridge():
        with site.broker.up():
            until("ready", site.is_ready)
        with site.broker.up():
            until("ready again", site.is_ready)
            # What the broker has forgotten is there again, by its topic.
            for topic in ("bridge/state", "lobby/info", f"lobby/{site.devices()[0]['device_id']}/state"):
                with Client(site.broker, site.version, f"gsdk/{topic}") as client:
                    until(topic, lambda client=client: client.seen)


def last_will(site):
    with site.broker.up(), Client(site.broker, site.version) as client:
        with site.bridge() as bridge:
            until("online", lambda: client.has("gsdk/bridge/state", "online"))
            bridge.kill()
            until("offline", lambda: client.has("gsdk/bridge/state", "offline"))


def outage(site):
    with site.broker.up(), site.bridge():
        until("ready", site.is_ready)
    with site.bridge():
        until("the gateway's list is read", lambda: "gateway" not in site.readyz())
        site.fault({"do": "storm", "changes": CHANGES, "per_second": 1000})
        waiting = "gsdk_outbox_events "
        until("the changes wait", lambda: CHANGES <= sum(
            float(line.split()[-1]) for line in
            get(f"http://127.0.0.1:{site.http}/metrics").splitlines() if line.startswith(waiting)))
    with site.broker.up(), Client(site.broker, site.version) as client, site.bridge():
        def events():
            return {event["event_id"]: event for event in client.events()}

        until("every change", lambda: len(events()) >= CHANGES)
        chains = {}
        for event in events().values():
            before = chains.get(event["device_id"])
            assert before in (None, event["seq"] - 1), f"a gap before {event}"
            chains[event["device_id"]] = event["seq"]


def small_packets(site):
    with site.broker.up(), site.bridge(), Client(site.broker, site.version) as client:
        until("ready", site.is_ready)
        code = None

        def answered():
            nonlocal code
            topic = client.request("devices", {})
            found = client.latest(topic)
            code = found and json.loads(found.payload).get("error", {}).get("code")
            return code

        until("a short answer", answered)
        assert code == "answer_too_large", code
        site.fault({"do": "drop", "devices": {"random": 1}})
        until("events go on", client.events)


def wrong_password(site):
    site.configure("wrong")
    with site.broker.up():
        code, text = site.check()
        assert code == 1 and "mqtt.password_file" in text, text


def access(site):
    with site.broker.up(), site.bridge(), Client(site.broker, site.version) as client:
        until("ready", site.is_ready)
        until("the refusal is told", lambda: "messages_refused" in site.readyz())
        site.fault({"do": "drop", "devices": {"random": 1}})
        until("events go on", client.events)


def check(site):
    with site.broker.up():
        code, text = site.check()
        assert code == 0, next(line for line in text.splitlines() if line.startswith("fail"))


# Each with a heading, and how its broker is set up.
CHECKS = [
    ("start, events", start, {}),
    ("retained", retained, {}),
    ("commands", commands, {}),
    ("kill, restart", restart, {}),
    ("last will", last_will, {}),
    ("2,000 changes while away", outage, {}),
    ("small packets", small_packets, {"small": True}),
    ("wrong password", wrong_password, {"secure": True}),
    ("access list", access, {"secure": True}),
    ("`check --connect`", check, {}),
]


def cell(kind, version, heading, test, options, gateway, folder):
    """`yes`, what is known, or what failed."""
    if ("small" in options and not kind.limited) or (test is access and not kind.restricted):
        return "not settable", False
    known = KNOWN.get((kind.name, version, heading))
    broker = kind(folder / "broker", version, **options)
    try:
        test(Site(folder / "site", broker, version, gateway))
    except Exception as error:  # whatever it is, it belongs into the table
        if known:
            return f"no: {known}", False
        traceback.print_exc()
        return f"FAILED: {str(error)[:200]}", True
    if known:
        return f"FAILED: passes, although KNOWN says that it {known}", True
    return "yes", False


def row(kind, version, gateway, folder):
    cells, failed = [], False
    for number, (heading, test, options) in enumerate(CHECKS):
        text, is_failure = cell(kind, version, heading, test, options, gateway,
                                folder / f"{kind.name}{version}-{number}")
        print(f"{kind.name} {version}: {heading}: {text}", flush=True)
        cells.append(text)
        failed |= is_failure
    return cells, failed


def table(rows):
    """Long cells are notes below."""
    notes, lines = [], []
    lines.append("| broker | MQTT | " + " | ".join(heading for heading, *_ in CHECKS) + " |")
    lines.append("| --- | --- |" + " --- |" * len(CHECKS))
    for kind, version, cells in rows:
        shown = []
        for text in cells:
            if text.startswith("no: "):
                note = f"{kind.name} {text.removeprefix('no: ')}."
                if note not in notes:
                    notes.append(note)
                text = f"no ({notes.index(note) + 1})"
            shown.append(text)
        release = "" if missing(kind) else f" {kind.version()}"
        lines.append(f"| {kind.name}{release} | {version} | " + " | ".join(shown) + " |")
    return "\n".join(lines + [""] + [f"{at}. {note}" for at, note in enumerate(notes, 1)])


def main():
    names = [word for word in sys.argv[1:] if word != "--write"]
    rows, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for kind in ALL:
            if names and kind.name not in names:
                continue
            if why := missing(kind):
                print(f"{kind.name}: {why}")
                rows += [(kind, version, ["not run"] * len(CHECKS)) for version in kind.versions]
                continue
            for version in kind.versions:
                at, control = free_port(), free_port()
                certs = folder / f"{kind.name}{version}"
                certs.mkdir()
                gateway = {"address": f"127.0.0.1:{at}", "ca_file": certs / "ca.crt",
                           "control": f"http://127.0.0.1:{control}"}
                with running(BRIDGE, "simulate", "--listen", gateway["address"], "--certs", certs,
                             "--devices", DEVICES, "--manage", "--control", f"127.0.0.1:{control}",
                             "--reconnect-interval", "1", log=certs / "gateway.log"):
                    until("the gateway listens", (certs / "ca.crt").exists)
                    cells, is_failure = row(kind, version, gateway, folder)
                rows.append((kind, version, cells))
                failed |= is_failure
    text = table(rows)
    print(text)
    if "--write" in sys.argv and not failed:
        page = PAGE.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
