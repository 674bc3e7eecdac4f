"""The schemas against what is really said and taken: `test_schema.py [SPECS]`.

A bridge runs beside a real broker and a simulated gateway; every message it sends has to fit its
channel's schema. The example configurations have to fit the configuration's schema, and those with a value of
the wrong form may not. SPECS is the folder of @asyncapi/specs, to check the document itself.
"""

import collections
import contextlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import jsonschema

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests/deploy"))
from programs import BRIDGE, free_port, get, running, until  # noqa: E402

CONNECTED = 'gsdk_gateway_devices{gateway="lobby",connected="true"}'
# Wrong by the form of a value, an unknown key or word, a name or a range; the other bad ones a
# schema cannot see.
WRONG_FORM = ["bad-wrong-form", "bad-table-expected", "bad-unknown-key", "bad-unknown-table",
              "bad-key-in-wrong-table", "bad-protocol", "bad-connect-word", "bad-command",
              "bad-metrics-group", "bad-device-port", "bad-device-id", "bad-bridge-name",
              "bad-gateway-name", "bad-gateway-named-bridge", "bad-out-of-range"]


def printed(*args):
    return json.loads(subprocess.check_output([BRIDGE, "schema", *args]))


def validator(schema):
    kind = jsonschema.Draft202012Validator
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


def document_is_valid(document, specs):
    schema = json.loads((specs / "schemas" / "3.0.0.json").read_text())
    jsonschema.Draft7Validator(schema).validate(document)
    wrong = {**document, "operations": {"x": {"action": "shout"}}}
    assert list(jsonschema.Draft7Validator(schema).iter_errors(wrong)), "it takes anything"
    print("the AsyncAPI document is one")


def channels_of(document):
    """Each channel's topics as a pattern, with the validator of its payload."""
    found = []
    for name, channel in document["channels"].items():
        (message,) = channel["messages"].values()
        message = document["components"]["messages"][message["$ref"].split("/")[-1]]
        schema = {"components": document["components"], **message["payload"]}
        parts = re.split(r"(\{\w+\})", channel["address"])
        words = {"{command}": ".+", "{gateway}": "(?!bridge(_|/))[^/]+", "{device_id}": r"\d+"}
        pattern = "".join(words.get(part, "[^/]+") if part[:1] == "{" else re.escape(part)
                          for part in parts)
        found.append((name, re.compile(pattern), validator(schema), message["contentType"]))
    return found


def payloads_fit(document):
    """A broker, a listener, and only then gateway and bridge: so the first events are heard too."""
    channels = channels_of(document)
    port, gateway, control, http = (str(free_port()) for _ in range(4))
    asked = ["devices", "search", "pending", "accept_filter/get", "slaves/get", "history", "connect",
             "xx", "ssl/enable"]
    wanted = {"bridgeState", "bridgeInfo", "gatewayState", "gatewayInfo", "gatewayEvent",
              "deviceState", "deviceEvent", "response", "bridgeResponse", "request",
              "bridgeEvent", "gatewayEvent unreachable", "gatewayEvent reachable",
              "gatewayEvent command", "bridgeResponse forget"}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder = Path(folder)

        def start(name, *command):
            stack.enter_context(running(*command, log=folder / f"{name}.log"))

        control = f"http://127.0.0.1:{control}"
        broker = stack.enter_context(contextlib.ExitStack())
        start_broker(broker, port, folder)
        # Its session outlives the broker, which keeps for it what comes before it is back.
        start("spied", "mosquitto_sub", "-V", "5", "-p", port, "-t", "#", "-F", "%t %p", "-q", "1",
              "-c", "-i", "spy", "-x", "3600")
        until("the listener listens", lambda: heard(port, folder / "spied.log"))
        start("gateway", BRIDGE, "simulate", "--listen", f"127.0.0.1:{gateway}", "--control",
              control.removeprefix("http://"), "--certs", folder, "--devices", "8", "--manage",
              "--reconnect-interval", "1")
        until("there is a certificate", (folder / "ca.crt").exists)
        (folder / "config.toml").write_text(
            f'state_dir = "{folder}/state"\n[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n'
            f'[http]\nlisten = "127.0.0.1:{http}"\n[outbox]\nmax_events = 5\n'
            f'[commands]\nallow = ["*"]\n[gateways.lobby]\nunknown_after = "1s"\n'
            f'address = "127.0.0.1:{gateway}"\nca_file = "{folder}/ca.crt"\n')
        start("bridge", BRIDGE, "run", "--config", folder / "config.toml")
        until("the bridge is ready", lambda: get(f"http://127.0.0.1:{http}/readyz"))
        fault(control, {"do": "drop", "devices": {"random": 3}})
        device = json.loads(get(f"{control}/devices"))[0]["device_id"]
        for command in asked:
            request = {"ssl/enable": {"device_ids": [device], "timeout_s": 30}}.get(
                command, {"transaction": "1", "wait_s": 0.2})
            publish(port, f"gsdk/lobby/request/{command}", json.dumps(request))
        publish(port, "gsdk/bridge/request/republish", "{}")
        publish(port, "gsdk/bridge/request/xx", "[]")
        publish(port, "gsdk/site3/state", "online", "-r")
        publish(port, "gsdk/bridge/request/forget", '{"gateway":"site3"}')

        def spied():
            return all_kinds(channels, (folder / "spied.log").read_text())

        until("every command is answered", lambda: set(asked) <= spied()["answers"])
        broker.close()
        until("the outbox is too full", lambda: one_more_is_dropped(control, http))
        until("all are back", lambda: metric(http, CONNECTED) == 8)
        start_broker(broker, port, folder)
        until("the losses are told", lambda: {
            "deviceEvent lost", "bridgeEvent events_lost"} <= spied()["seen"].keys())
        fault(control, {"do": "restart", "down_s": 3})
        until("every kind of message", lambda: wanted <= spied()["seen"].keys())
        answers_fit(printed("--openapi"), f"http://127.0.0.1:{http}/api/v1", device)
        seen = spied()["seen"]
        print("payloads fit:", ", ".join(f"{count} {name}" for name, count in seen.items()))


def answers_fit(document, api, device):
    """Every answer of the API, with events of every kind, and what it says of wrong requests."""
    assert json.loads(get(f"{api}/openapi.json")) == document, "the bridge serves what schema prints"
    names = {"gateway": "lobby", "device_id": device}
    fitting = 0
    for path, operations in document["paths"].items():
        responses = operations["get"]["responses"]
        content = responses["200"]["content"]
        if "application/json" not in content:
            continue
        url = api + path.format(**names)
        events = "?from=0&limit=10000" if path == "/events" else ""
        asked = [(url + events, 200), (url + "?no_such=1", 400)]
        if "{gateway}" in path:
            asked.append((api + path.format(gateway="annex", device_id=device), 404))
        for address, wanted in asked:
            status, kind, body = fetched(address)
            assert status == wanted, f"{address}: {status} {body}"
            response = responses[str(status)]
            response = document["components"]["responses"]["Problem"] if "$ref" in response else response
            schema = {"components": document["components"], **response["content"][kind]["schema"]}
            errors = [error.message for error in validator(schema).iter_errors(json.loads(body))]
            assert not errors, f"{address} {body[:3000]}: {errors[:3]}"
            fitting += 1
    types = {event["event_type"] for event in
             json.loads(get(f"{api}/events?from=0&limit=10000"))["events"]}
    assert {"disconnected", "reachable", "events_lost"} <= types, types
    print(f"{fitting} answers of the API fit")


def fetched(address):
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status, answer.headers.get_content_type(), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get_content_type(), error.read().decode()


def start_broker(stack, port, folder):
    """A broker that keeps sessions while it is away."""
    (folder / "broker.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n"
        f"persistence true\npersistence_location {folder}/\n")
    stack.enter_context(running("mosquitto", "-c", folder / "broker.conf",
                                log=folder / "broker.log"))
    until("the broker listens", lambda: socket.create_connection(("127.0.0.1", int(port))))


def fault(control, what):
    urllib.request.urlopen(f"{control}/fault", data=json.dumps(what).encode())


def metric(http, name):
    lines = get(f"http://127.0.0.1:{http}/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def one_more_is_dropped(control, http):
    """Drops devices one at a time, so that what is told of the first loss is not lost itself."""
    before = metric(http, "gsdk_outbox_events ")
    if metric(http, "gsdk_outbox_dropped_total ") == 0:
        fault(control, {"do": "drop", "devices": {"random": 1}})
        until("it is recorded", lambda: metric(http, "gsdk_outbox_events ") > before
              or metric(http, "gsdk_outbox_dropped_total ") > 0)
        until("it is back", lambda: metric(http, CONNECTED) == 8)
    return metric(http, "gsdk_outbox_dropped_total ") > 0


def heard(port, log):
    """Whether the listener hears what is published."""
    publish(port, "probe", "x")
    return "probe" in log.read_text()


def all_kinds(channels, text):
    """How many of each kind there are, and which commands were answered; every one has to fit."""
    seen, answers = collections.Counter(), set()
    for line in text.split("\n")[:-1]:
        topic, _, payload = line.partition(" ")
        if topic == "probe" or not payload:  # an empty one clears a topic
            continue
        name = fits(channels, topic, payload)
        seen[name] += 1
        if name.endswith("Event"):
            event = json.loads(payload)
            seen[f"{name} {event['event_type']}"] += 1
            seen[f"{name} lost"] += "lost" in event
        if name == "bridgeResponse":
            answer = json.loads(payload)
            assert answer["bridge"] == "bridge", payload
            seen[f"{name} {answer['command']}"] += answer["result"] == "ok"
        if name == "response":
            answers.add(topic.split("/response/")[1])
            answer = json.loads(payload)
            assert "steps" in answer["data"] or answer["command"] != "ssl/enable", payload
    return {"seen": +seen, "answers": answers}


def publish(port, topic, payload, *options):
    subprocess.check_call(["mosquitto_pub", "-V", "5", "-q", "1", "-p", port, "-t", topic, "-m",
                           payload, *options])


def fits(channels, topic, payload):
    for name, pattern, schema, content_type in channels:
        if pattern.fullmatch(topic):
            read = payload if content_type == "text/plain" else json.loads(payload)
            if name in ("request", "bridgeRequest"):
                return name
            errors = [error.message for error in schema.iter_errors(read)]
            assert not errors, f"{topic} {payload}: {errors}"
            return name
    raise AssertionError(f"{topic} is of no channel")


def schemas_refuse(document):
    """A schema that takes anything would pass above."""
    for name, _, schema, content_type in channels_of(document):
        if name not in ("request", "bridgeRequest"):
            wrong = "maybe" if content_type == "text/plain" else {"event_type": "exploded"}
            assert list(schema.iter_errors(wrong)), f"{name} takes {wrong}"
    answer = {"command": "devices", "result": "ok", "device_errors": [], "warnings": [],
              "duration_s": 0.1}
    for data in ({"door": 1}, {"steps": [{"step": "x"}]}, {"devices": [{}]}, None):
        schema = next(schema for name, _, schema, _ in channels_of(document) if name == "response")
        assert list(schema.iter_errors({**answer, "data": data})), f"an answer takes {data}"


def configurations():
    jsonschema.Draft7Validator.check_schema(schema := printed("--config"))
    schema = jsonschema.Draft7Validator(schema)
    good = [path.read_text() for path in ROOT.glob("deploy/**/*.toml")]
    good.append((ROOT / "tests/config/good-full.toml").read_text())
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        if page.name != "simulator.md":
            blocks = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
            good.extend(blocks)
    assert len(good) >= 2, "no example was found"
    for text in good:
        errors = [f"{list(error.path)}: {error.message}"
                  for error in schema.iter_errors(tomllib.loads(text))]
        assert not errors, f"{text}\n{errors}"
    for name in WRONG_FORM:
        text = (ROOT / "tests/config" / f"{name}.toml").read_text()
        assert list(schema.iter_errors(tomllib.loads(text))), f"{name} is taken"
    print(f"{len(good)} configurations fit, {len(WRONG_FORM)} wrong ones do not")


if __name__ == "__main__":
    configurations()
    api = printed()
    if len(sys.argv) > 1:
        document_is_valid(api, Path(sys.argv[1]))
    schemas_refuse(api)
    payloads_fit(api)
