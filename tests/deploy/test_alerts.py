"""Which notifications go out, in a real Prometheus and Alertmanager that watch a real bridge.

The rules are the mixin's with waits of seconds, the Alertmanager's configuration is the shipped one
with a webhook as its receiver. One story in order: a master unreachable at first, doors down, the
bridge killed and back, its target removed and back, a gateway killed and back, broker and bridge down and back.
"""

import contextlib
import http.server
import json
import pathlib
import signal
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

import yaml

from programs import BRIDGE, ROOT, free_port, get, running, until

sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "deploy/mixin"))
import generate  # noqa: E402

FAST = {
    # Longer than a bridge that starts on a busy machine takes to connect.
    "bridgeDownFor": "2s",
    "gatewayUnreachableFor": "4s",
    "brokerDownFor": "4s",
    "targetGoneFor": "1m",
    "deviceDownSeconds": 1,
    # Tested with promtool; here they would add to the notifications.
    "lostDevices": 1000,
    "flappingDisconnects": 1000,
}
# The simulator gives these IDs to the first devices of every gateway.
FRONT, BACK = 540092578, 540092615


class Webhook:
    """Records what Alertmanager sends: each change of an alert, in order."""

    def __init__(self):
        self.changes = []
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in body["alerts"]:
                    webhook.record(alert)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.last = {}
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def record(self, alert):
        labels = alert["labels"]
        who = labels["alertname"], labels.get("gateway", labels.get("master")), labels.get("name")
        if self.last.get(who) != alert["status"]:
            self.last[who] = alert["status"]
            self.changes.append((alert["status"], *[part for part in who if part]))


class Site:
    """Broker, two gateways, a master, bridge, Prometheus, Alertmanager, each of which can be stopped."""

    def __init__(self, folder, stack):
        self.folder, self.stack = folder, stack
        self.ports = {name: free_port() for name in (
            "broker", "bridge", "lobby", "annex", "lobby-control", "annex-control", "campus",
            "prometheus", "alertmanager")}
        self.webhook = Webhook()
        self.stack.callback(self.webhook.server.shutdown)
        self.write()
        self.programs = {}
        # For its certificates.
        self.start("campus")
        until("the master's certificates", lambda: (self.folder / "campus/tenant.key").exists())
        self.kill("campus")
        for name in ("prometheus", "broker", "lobby", "annex", "bridge"):
            self.start(name)
        self.scraped("sum(gsdk_device_connected)", 6)
        # A Prometheus that starts has no targets for some seconds.
        self.scraped('count(ALERTS{alertname!="GsdkMasterUnreachable"})', None)
        self.start("alertmanager")

    def write(self):
        port = self.ports
        self.file("mosquitto.conf", f"user root\nlistener {port['broker']} 127.0.0.1\nallow_anonymous true\n")
        gateways = "".join(
            f'[gateways.{name}]\naddress = "127.0.0.1:{port[name]}"\nca_file = "{self.folder}/{name}/ca.crt"\n'
            f'audit_interval = "1s"\nunknown_after = "1s"\n[gateways.{name}.devices]\n'
            f'{FRONT} = {{ name = "{name} front" }}\n{BACK} = {{ name = "{name} back" }}\n'
            for name in ("lobby", "annex"))
        campus = f"{self.folder}/campus"
        gateways += (
            f'[masters.campus]\naddress = "127.0.0.1:{port["campus"]}"\nca_file = "{campus}/ca.crt"\n'
            f'cert_file = "{campus}/tenant.crt"\nkey_file = "{campus}/tenant.key"\n')
        self.file("bridge.toml", f'state_dir = "{self.folder}/state"\n[mqtt]\nurl = "mqtt://127.0.0.1:{port["broker"]}"\n'
                  f'[http]\nlisten = "127.0.0.1:{port["bridge"]}"\n{gateways}')
        self.file("rules.yml", generate.rules(FAST))
        self.target(True)
        self.file("prometheus.yml", json.dumps({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
            "rule_files": ["rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{port['alertmanager']}"]}]}]},
            "scrape_configs": [{"job_name": "gsdk2mqtt", "file_sd_configs": [{"files": ["targets.json"]}]}],
        }))
        shipped = yaml.safe_load((ROOT / "deploy/prometheus/alertmanager.yml").read_text())
        shipped["route"] |= {"group_wait": "500ms", "group_interval": "500ms", "repeat_interval": "1h"}
        shipped["receivers"][0]["webhook_configs"] = [
            {"url": f"http://127.0.0.1:{self.webhook.port}/", "send_resolved": True}]
        self.file("alertmanager.yml", json.dumps(shipped))

    def file(self, name, text):
        (self.folder / name).write_text(text)

    def target(self, there):
        targets = [f"127.0.0.1:{self.ports['bridge']}"] if there else []
        # Prometheus reads the file as soon as it changes: it must never see half of it.
        self.file("targets.new", json.dumps([{"targets": targets}]))
        (self.folder / "targets.new").rename(self.folder / "targets.json")

    def start(self, name):
        at = lambda which: f"127.0.0.1:{self.ports[which]}"
        simulator = [
            BRIDGE, "simulate", "--listen", at(name), "--control", f"127.0.0.1:{self.ports.get(name + '-control')}",
            "--certs", self.folder / name, "--devices", "3", "--manage", "--reconnect-interval", "1",
            "--keep-alive", "1"]
        command = {
            "broker": ["mosquitto", "-c", self.folder / "mosquitto.conf"],
            "lobby": simulator,
            "annex": simulator,
            "campus": [
                BRIDGE, "simulate", "--gateways", "1", "--listen", at(name),
                "--certs", self.folder / name, "--devices", "1", "--manage"],
            "bridge": [BRIDGE, "run", "--config", self.folder / "bridge.toml"],
            "prometheus": [
                "prometheus", f"--config.file={self.folder}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/tsdb", f"--web.listen-address={at(name)}",
                "--rules.alert.resend-delay=500ms"],
            "alertmanager": [
                "prometheus-alertmanager", f"--config.file={self.folder}/alertmanager.yml",
                f"--storage.path={self.folder}/alerts", f"--web.listen-address={at(name)}",
                "--cluster.listen-address="],
        }[name]
        if name == "bridge":
            until("the gateways' certificates", lambda: all(
                (self.folder / gateway / "ca.crt").exists() for gateway in ("lobby", "annex")))
        log = self.folder / f"{name}.{time.monotonic_ns()}.log"
        self.programs[name] = self.stack.enter_context(running(*command, log=log))

    def kill(self, name):
        self.programs[name].send_signal(signal.SIGKILL)
        self.programs[name].wait()

    def fault(self, gateway, do, *devices):
        order = json.dumps({"do": do, "devices": devices}).encode()
        url = f"http://127.0.0.1:{self.ports[gateway + '-control']}/fault"
        until(f"{do} at {gateway}", lambda: urllib.request.urlopen(url, order, timeout=10).close() or True)

    def value(self, expr):
        url = f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/query"
        answer = json.loads(get(f"{url}?query={urllib.request.quote(expr)}"))["data"]["result"]
        return float(answer[0]["value"][1]) if answer else None

    def scraped(self, expr, value):
        until(f"{expr} is {value}", lambda: self.value(expr) == value)

    def states(self):
        """Of each alert that Alertmanager has: active, or suppressed by another."""
        alerts = json.loads(get(f"http://127.0.0.1:{self.ports['alertmanager']}/api/v2/alerts"))
        names = lambda labels: (labels[name] for name in ("alertname", "gateway", "name") if name in labels)
        return {tuple(names(alert["labels"])): alert["status"]["state"] for alert in alerts}

    def settled(self):
        """Waits for four more evaluations: what was to be sent and notified has been by then."""
        start = time.time()
        name = "prometheus_rule_group_last_evaluation_timestamp_seconds"

        def evaluated():
            lines = get(f"http://127.0.0.1:{self.ports['prometheus']}/metrics").splitlines()
            # The group of recording rules has its own interval of an hour.
            return max(float(line.split()[1]) for line in lines if line.startswith(name))

        until("four more evaluations", lambda: evaluated() > start + 2)


class Notifications(unittest.TestCase):
    def test_a_lost_bridge_or_gateway_resolves_no_alert_of_a_door(self):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            self.site = Site(pathlib.Path(folder), stack)
            self.a_master_is_unreachable()
            self.doors_are_down()
            self.the_bridge_is_killed()
            self.its_target_is_removed()
            self.a_gateway_is_killed()
            self.broker_and_bridge_are_down()

    def sends(self, *expected):
        """The notifications since the last call are these, in any order."""
        sent = self.site.webhook.changes
        until(f"{len(expected)} notifications", lambda: len(sent) >= len(expected))
        self.assertEqual(sorted(sent), sorted(expected))
        del sent[:len(expected)]

    def then_is(self, states):
        """No notification follows, and Alertmanager has these alerts."""
        self.site.settled()
        self.assertEqual(self.site.webhook.changes, [])
        self.assertEqual(self.site.states(), states)

    def a_master_is_unreachable(self):
        # It has never listed its gateways, so that the bridge has no series of them.
        self.sends(("firing", "GsdkMasterUnreachable", "campus"))
        self.site.start("campus")
        self.sends(("resolved", "GsdkMasterUnreachable", "campus"))
        self.site.scraped("sum(gsdk_device_connected)", 7)

    def doors_are_down(self):
        site = self.site
        site.fault("lobby", "power_off", FRONT, BACK)
        site.fault("annex", "power_off", FRONT)
        self.sends(
            ("firing", "GsdkDeviceDown", "lobby", "lobby front"),
            ("firing", "GsdkDeviceDown", "lobby", "lobby back"),
            ("firing", "GsdkDeviceDown", "annex", "annex front"))

    def the_bridge_is_killed(self):
        site = self.site
        site.kill("bridge")
        self.sends(("firing", "GsdkBridgeDown"))
        self.then_is({
            ("GsdkBridgeDown",): "active",
            ("GsdkDeviceDown", "lobby", "lobby front"): "suppressed",
            ("GsdkDeviceDown", "lobby", "lobby back"): "suppressed",
            ("GsdkDeviceDown", "annex", "annex front"): "suppressed"})
        # One door comes back while the bridge cannot see it.
        site.fault("lobby", "power_on", FRONT)
        site.start("bridge")
        self.sends(("resolved", "GsdkBridgeDown"), ("resolved", "GsdkDeviceDown", "lobby", "lobby front"))
        self.then_is({
            ("GsdkDeviceDown", "lobby", "lobby back"): "active",
            ("GsdkDeviceDown", "annex", "annex front"): "active"})

    def its_target_is_removed(self):
        site = self.site
        site.target(False)
        self.sends(("firing", "GsdkBridgeAbsent"))
        self.then_is({
            ("GsdkBridgeAbsent",): "active",
            ("GsdkDeviceDown", "lobby", "lobby back"): "suppressed",
            ("GsdkDeviceDown", "annex", "annex front"): "suppressed"})
        site.target(True)
        self.sends(("resolved", "GsdkBridgeAbsent"))

    def a_gateway_is_killed(self):
        site = self.site
        site.kill("lobby")
        self.sends(("firing", "GsdkGatewayUnreachable", "lobby"))
        self.then_is({
            ("GsdkGatewayUnreachable", "lobby"): "active",
            ("GsdkDeviceDown", "lobby", "lobby back"): "suppressed",
            ("GsdkDeviceDown", "annex", "annex front"): "active"})
        # Started again it has all its devices.
        site.start("lobby")
        self.sends(
            ("resolved", "GsdkGatewayUnreachable", "lobby"),
            ("resolved", "GsdkDeviceDown", "lobby", "lobby back"))

    def broker_and_bridge_are_down(self):
        site = self.site
        site.kill("broker")
        self.sends(("firing", "GsdkBrokerDown"))
        site.kill("bridge")
        self.sends(("firing", "GsdkBridgeDown"))
        self.then_is({
            ("GsdkBridgeDown",): "active",
            ("GsdkBrokerDown",): "suppressed",
            ("GsdkDeviceDown", "annex", "annex front"): "suppressed"})
        site.start("broker")
        site.fault("annex", "power_on", FRONT)
        site.start("bridge")
        self.sends(
            ("resolved", "GsdkBridgeDown"), ("resolved", "GsdkBrokerDown"),
            ("resolved", "GsdkDeviceDown", "annex", "annex front"))
        self.then_is({})


if __name__ == "__main__":
    unittest.main()
