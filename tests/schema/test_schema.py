"""The schemas against what is really said and taken: `test_schema.py PROGRAM [SPECS]`.

A bridge runs beside the demo's broker and gateway; every message it sends has to fit its channel's
schema. The example configurations have to fit the configuration's schema, and those with a value of
the wrong form may not. SPECS is the folder of @asyncapi/specs, to check the document itself.
"""

import json
import re
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import jsonschema

PATIENCE_S = 60
PROGRAM = sys.argv[1]
ROOT = Path(__file__).resolve().parents[2]
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
    channels = channels_of(document)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    demo = subprocess.Popen([PROGRAM, "demo", "--for", f"{PATIENCE_S}s", "--mqtt",
                             f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL)
    spy = None
    try:
        until = time.monotonic() + PATIENCE_S
        while socket.socket().connect_ex(("127.0.0.1", int(port))) != 0:
            assert time.monotonic() < until, "the demo's broker does not listen"
            time.sleep(0.1)
        spy = subprocess.Popen(["mosquitto_sub", "-V", "5", "-p", port, "-t", "gsdk/#", "-F",
                                "%t %p"], stdout=subprocess.PIPE, text=True)
        asked = ["devices", "search", "pending", "accept_filter/get", "slaves/get", "connect", "xx"]
        wanted = {"bridgeState", "bridgeInfo", "gatewayState", "gatewayInfo", "gatewayEvent",
                  "deviceState", "deviceEvent", "response", "bridgeResponse", "request"}
        seen, answers = {}, set()
        for command in asked:
            publish(port, f"gsdk/demo/request/{command}", '{"transaction":{"n":1},"wait_s":0.2}')
        publish(port, "gsdk/bridge/request/republish", "{}")
        publish(port, "gsdk/bridge/request/xx", "[]")
        for line in spy.stdout:
            topic, _, payload = line.rstrip("\n").partition(" ")
            name = fits(channels, topic, payload)
            seen[name] = seen.get(name, 0) + 1
            if name == "response":
                answers.add(topic.split("/response/")[1])
            if wanted <= seen.keys() and answers >= set(asked):
                break
            assert time.monotonic() < until, f"not seen: {wanted - seen.keys()}, {answers}"
        assert wanted <= seen.keys(), f"not seen: {wanted - seen.keys()}"
        print("payloads fit:", ", ".join(f"{count} {name}" for name, count in seen.items()))
    finally:
        for process in (spy, demo):
            if process:
                process.terminate()
                process.wait()


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
