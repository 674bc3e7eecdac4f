"""The schemas against what is really said and taken: `test_schema.py PROGRAM [SPECS]`.

A bridge runs beside a real broker and a simulated gateway; every message it sends has to fit its
channel's schema. The example configurations have to fit the configuration's schema, and those with a value of
the wrong form may not. SPECS is the folder of @asyncapi/specs, to check the document itself.
"""

import contextlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
from pathlib import Path

import jsonschema

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests/deploy"))
from programs import free_port, get, running, until  # noqa: E402

PROGRAM = sys.argv[1]
# Wrong by the form of a value or by an unknown key; the other bad ones a schema cannot see.
WRONG_FORM = ["bad-wrong-form", "bad-table-expected", "bad-unknown-key", "bad-unknown-table",
              "bad-key-in-wrong-table", "bad-protocol", "bad-connect-word"]


def printed(*args):
    return json.loads(subprocess.check_output([PROGRAM, "schema", *args]))


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
    asked = ["devices", "search", "pending", "accept_filter/get", "slaves/get", "connect", "xx"]
    wanted = {"bridgeState", "bridgeInfo", "gatewayState", "gatewayInfo", "gatewayEvent",
              "deviceState", "deviceEvent", "response", "bridgeResponse", "request"}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder = Path(folder)

        def start(name, *command):
            stack.enter_context(running(*command, log=folder / f"{name}.log"))

        (folder / "broker.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
        start("broker", "mosquitto", "-c", folder / "broker.conf")
        until("the broker listens", lambda: socket.create_connection(("127.0.0.1", int(port))))
        start("spied", "mosquitto_sub", "-V", "5", "-p", port, "-t", "#", "-F", "%t %p")
        until("the listener listens", lambda: heard(port, folder / "spied.log"))
        start("gateway", PROGRAM, "simulate", "--listen", f"127.0.0.1:{gateway}", "--control",
              f"127.0.0.1:{control}", "--certs", folder, "--devices", "8", "--manage",
              "--reconnect-interval", "1")
        until("there is a certificate", (folder / "ca.crt").exists)
        (folder / "config.toml").write_text(
            f'state_dir = "{folder}/state"\n[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n'
            f'[http]\nlisten = "127.0.0.1:{http}"\n[gateways.lobby]\n'
            f'address = "127.0.0.1:{gateway}"\nca_file = "{folder}/ca.crt"\n')
        start("bridge", PROGRAM, "run", "--config", folder / "config.toml")
        until("the bridge is ready", lambda: get(f"http://127.0.0.1:{http}/readyz"))
        urllib.request.urlopen(f"http://127.0.0.1:{control}/fault",
                               data=b'{"do":"drop","devices":{"random":3}}')
        for command in asked:
            publish(port, f"gsdk/lobby/request/{command}", '{"transaction":{"n":1},"wait_s":0.2}')
        publish(port, "gsdk/bridge/request/republish", "{}")
        publish(port, "gsdk/bridge/request/xx", "[]")
        seen = until("every kind of message", lambda: all_kinds(
            channels, (folder / "spied.log").read_text(), wanted, set(asked)))
        print("payloads fit:", ", ".join(f"{count} {name}" for name, count in seen.items()))


def heard(port, log):
    """Whether the listener hears what is published."""
    publish(port, "probe", "x")
    return "probe" in log.read_text()


def all_kinds(channels, text, wanted, asked):
    """How many of each kind there are, once there is one of each; every one has to fit."""
    seen, answers = {}, set()
    lines = text.split("\n")[:-1]
    for line in lines:
        topic, _, payload = line.partition(" ")
        if topic == "probe":
            continue
        name = fits(channels, topic, payload)
        seen[name] = seen.get(name, 0) + 1
        if name == "response":
            answers.add(topic.split("/response/")[1])
    return seen if wanted <= seen.keys() and answers >= asked else None


def publish(port, topic, payload):
    subprocess.check_call(["mosquitto_pub", "-V", "5", "-q", "1", "-p", port, "-t", topic, "-m",
                           payload])


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
    if len(sys.argv) > 2:
        document_is_valid(api, Path(sys.argv[2]))
    schemas_refuse(api)
    payloads_fit(api)
