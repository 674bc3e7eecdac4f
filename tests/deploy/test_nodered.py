"""The shipped flows in a real Node-RED, with mosquitto, a simulated gateway and the bridge."""

import contextlib
import json
import pathlib
import tempfile
import urllib.request

from programs import BRIDGE, ROOT, free_port, get, running, until

NODE_RED = ROOT / "target/tools/node-red/node_modules/node-red/red.js"


def post(url, body=b"{}"):
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


def commands(mqtt):
    """The flow of commands, as an import beside the other gives it IDs of its own; what it shows at
    its end is published too."""
    nodes = json.loads((ROOT / "deploy/node-red/commands.json").read_text())
    text = json.dumps(nodes)
    for node in nodes:
        text = text.replace(f'"{node["id"]}"', f'"c_{node["id"]}"')
    nodes = json.loads(text)
    tab = next(node["id"] for node in nodes if node["type"] == "tab")
    broker = next(node for node in nodes if node["type"] == "mqtt-broker")
    broker["port"] = str(mqtt)
    ends = next(node for node in nodes if node["type"] == "switch")
    for at, word in enumerate(("done", "failed")):
        out = {"id": f"c_{word}", "type": "mqtt out", "z": tab, "topic": f"building/{word}",
               "qos": "1", "retain": "", "broker": broker["id"], "wires": []}
        nodes.append(out)
        ends["wires"][at].append(out["id"])
    return nodes


def main():
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as programs:
        folder = pathlib.Path(folder)
        mqtt, gateway, control, http, red = (free_port() for _ in range(5))

        def start(name, *command):
            programs.enter_context(running(*command, log=folder / f"{name}.log"))

        (folder / "mosquitto.conf").write_text(
            f"listener {mqtt} 127.0.0.1\nallow_anonymous true\n")
        start("mosquitto", "mosquitto", "-c", folder / "mosquitto.conf")
        start("simulator", BRIDGE, "simulate", "--listen", f"127.0.0.1:{gateway}", "--control",
              f"127.0.0.1:{control}", "--devices", "5", "--manage", "--certs", folder / "certs")
        faults = f"http://127.0.0.1:{control}"
        until("the simulator is there", lambda: get(f"{faults}/state"))
        (folder / "config.toml").write_text(
            f'state_dir = "{folder}/state"\n[mqtt]\nurl = "mqtt://127.0.0.1:{mqtt}"\n'
            f'[http]\nlisten = "127.0.0.1:{http}"\n[gateways.lobby]\n'
            f'address = "127.0.0.1:{gateway}"\nca_file = "{folder}/certs/ca.crt"\n')
        start("bridge", BRIDGE, "run", "--config", folder / "config.toml")
        until("the bridge is ready", lambda: get(f"http://127.0.0.1:{http}/readyz"))
        until("all are connected", lambda:
              'gsdk_gateway_devices{gateway="lobby",connected="true"} 5'
              in get(f"http://127.0.0.1:{http}/metrics"))
        start("said", "mosquitto_sub", "-p", mqtt, "-v", "-t", "building/#")

        flow = json.loads((ROOT / "deploy/node-red/flow.json").read_text())
        broker = next(node for node in flow if node["type"] == "mqtt-broker")
        broker["port"] = str(mqtt)
        (folder / "flows.json").write_text(json.dumps(flow + commands(mqtt)))
        (folder / "settings.js").write_text(
            'module.exports = { flowFile: "flows.json", uiHost: "127.0.0.1", '
            f"uiPort: {red}, telemetry: {{ enabled: false }} }};\n")
        start("nodered", "node", NODE_RED, "--userDir", folder, "--settings",
              folder / "settings.js")
        inject = f"http://127.0.0.1:{red}/inject/"
        said = folder / "said.log"

        def says(text, button=None):
            """What is said until now; asks again with the button, as a person would."""
            if button:
                post(inject + button)
            return text in said.read_text()

        until("the morning check knows all doors", lambda: says(
            "building/morning 5 connected, 0 down; 0 unknown\n", "gsdk_morning_go"))
        until("a command is answered", lambda: says(
            "building/answer devices: ok, 5 devices", "gsdk_ask_go"))

        device = json.loads(get(f"{faults}/devices"))
        device = (device if isinstance(device, list) else device["devices"])[0]
        number = device.get("id") or device["device_id"]
        post(f"{faults}/fault", json.dumps({"do": "power_off", "devices": [number]}).encode())
        until("a disconnect is told", lambda: says(f"({number}) has disconnected from lobby"))
        assert said.read_text().count("building/alert") == 1, "one disconnect is one alert"
        until("the morning check names it", lambda: says(
            "4 connected, 1 down: ", "gsdk_morning_go"))

        until("a command of the other flow is answered", lambda: says(
            '"command":"devices"', "c_gsdk_button"))
        until("one that is not permitted is told apart", lambda: says(
            "not_permitted", "c_gsdk_button_disconnect"))
        lines = said.read_text().splitlines()
        assert any("building/done" in line and '"devices"' in line for line in lines)
        assert any("building/failed" in line and "not_permitted" in line for line in lines)

        post(f"{faults}/fault", b'{"do": "client_network", "up": false}')
        until("a lost gateway is told", lambda: says(
            "building/alert lobby is lost: its doors are unknown"))
        until("nothing is called down that nobody can know", lambda: says(
            "0 connected, 0 down; 5 unknown: ", "gsdk_morning_go"))
        assert said.read_text().count("has disconnected") == 1, "a lost gateway is no disconnect"
    print("node-red: the flow does what it says")


if __name__ == "__main__":
    main()
