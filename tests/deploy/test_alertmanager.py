"""The inhibition of deploy/prometheus in a real Alertmanager: a lost bridge or gateway silences its own
alerts and no others."""

import json
import pathlib
import tempfile
import unittest
import urllib.request

from programs import ROOT, free_port, get, running, until

CONFIG = ROOT / "deploy/prometheus/alertmanager.yml"


def alert(name, gateway=None, instance="bridge:9925", job="gsdk2mqtt", **labels):
    labels |= {"alertname": name, "gateway": gateway, "instance": instance, "job": job}
    return {"labels": {label: value for label, value in labels.items() if value}}


class Inhibition(unittest.TestCase):
    def test_a_lost_gateway_silences_its_own_devices(self):
        self.inhibits(
            silenced=[
                alert("GsdkDeviceDown", "lobby", device_id="1"),
                alert("GsdkDeviceFlapping", "lobby", device_id="2"),
                alert("GsdkManyDevicesLost", "lobby"),
                alert("GsdkViewStale", "lobby"),
                alert("GsdkCorrectionsRising", "lobby"),
                alert("GsdkClockSkew", "lobby"),
            ],
            loud=[
                alert("GsdkGatewayUnreachable", "lobby"),
                alert("GsdkCertificateEnds", "lobby"),
                alert("GsdkClockSkew", "annex"),
                alert("GsdkDeviceDown", "annex", device_id="3"),
                alert("GsdkDeviceDown", "lobby", instance="other:9925", device_id="4"),
                alert("GsdkBrokerDown"),
            ])

    def test_a_lost_master_silences_its_own_gateways_and_their_devices(self):
        self.inhibits(
            silenced=[
                alert("GsdkGatewayUnreachable", "campus_north", master="campus"),
                alert("GsdkDeviceDown", "campus_north", device_id="1"),
            ],
            loud=[
                alert("GsdkMasterUnreachable", master="campus"),
                alert("GsdkGatewayUnreachable", "lobby"),
                alert("GsdkGatewayUnreachable", "harbour_east", master="harbour"),
                alert("GsdkGatewayUnreachable", "campus_north", instance="other:9925", master="campus"),
                alert("GsdkDeviceDown", "annex", device_id="2"),
            ])

    def test_a_bridge_that_is_down_silences_what_it_reported(self):
        self.inhibits(
            silenced=[
                alert("GsdkDeviceDown", "lobby", device_id="1"),
                alert("GsdkGatewayUnreachable", "annex"),
                alert("GsdkMasterUnreachable", master="campus"),
                alert("GsdkBrokerDown"),
            ],
            loud=[
                alert("GsdkBridgeDown"),
                alert("GsdkDeviceDown", "lobby", instance="other:9925", device_id="4"),
                alert("NodeDown"),
            ])

    def test_the_absence_of_all_bridges_silences_what_they_reported(self):
        self.inhibits(
            silenced=[alert("GsdkDeviceDown", "lobby", device_id="1"), alert("GsdkBrokerDown")],
            loud=[
                alert("GsdkBridgeAbsent", instance=None),
                alert("GsdkBrokerDown", job="other"),
                alert("NodeDown"),
            ])

    def inhibits(self, silenced, loud):
        with tempfile.TemporaryDirectory() as folder:
            port = free_port()
            url = f"http://127.0.0.1:{port}/api/v2/alerts"
            command = [
                "prometheus-alertmanager", f"--config.file={CONFIG}",
                f"--storage.path={folder}", f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ]
            with running(*command, log=pathlib.Path(folder) / "log"):
                until("it answers", lambda: get(url))
                body = json.dumps(silenced + loud).encode()
                headers = {"Content-Type": "application/json"}
                request = urllib.request.Request(url, body, headers)
                urllib.request.urlopen(request, timeout=10).close()

                def states():
                    told = json.loads(get(url))
                    told = [(one["labels"], one["status"]["state"]) for one in told]
                    # Each is looked at once it is dispatched.
                    ready = len(told) == len(silenced + loud) and all(state != "unprocessed" for _, state in told)
                    return told if ready else None

                told = until("all are processed", states)
        of = lambda state: sorted(str(sorted(labels.items())) for labels, it in told if it == state)
        want = lambda alerts: sorted(str(sorted(one["labels"].items())) for one in alerts)
        self.assertEqual(of("suppressed"), want(silenced))
        self.assertEqual(of("active"), want(loud))


if __name__ == "__main__":
    unittest.main()
