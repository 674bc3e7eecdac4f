"""The dashboards against a real Prometheus that scrapes a real bridge.

May not look into the bridge. Holds that the JSON is what its source writes, that its panels are sound,
and that every query of every panel and variable finds something where there is something to find.
"""

import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/debug/gsdk2mqtt"
BOARDS = sorted((ROOT / "dashboards").glob("*.json"))
PATIENCE_S = 60
# Nothing is wrong with these in a house where all is well.
MAY_BE_EMPTY = {"Not taken by the broker", "Commands"}
STANDS_FOR = {
    "$instance": ".+",
    "$gateway": ".+",
    "$__range": "30s",
    "$__rate_interval": "10s",
}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def get(url, data=None):
    with urllib.request.urlopen(url, data=data, timeout=10) as answer:
        return answer.read().decode()


def panels_of(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries():
    for path in BOARDS:
        board = json.loads(path.read_text())
        for panel in panels_of(board):
            for target in panel["targets"]:
                yield path.name, panel["title"], target["expr"]


def spelled_out(expr):
    for name, value in STANDS_FOR.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


class Source(unittest.TestCase):
    def test_the_files_are_what_the_source_writes(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, ROOT / "dashboards/source/dashboards.py", folder], check=True)
            written = sorted(pathlib.Path(folder).glob("*.json"))
            self.assertEqual([path.name for path in written], [path.name for path in BOARDS])
            for path, ours in zip(written, BOARDS):
                self.assertEqual(path.read_text(), ours.read_text(), f"{ours.name}: run the source again")

    def test_panels_have_titles_places_and_numbers_of_their_own(self):
        for path in BOARDS:
            board = json.loads(path.read_text())
            places, numbers = set(), set()
            for panel in board["panels"]:
                place = panel["gridPos"]
                self.assertTrue(panel["title"])
                self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
                self.assertNotIn((place["x"], place["y"]), places, panel["title"])
                places.add((place["x"], place["y"]))
                self.assertNotIn(panel["id"], numbers, panel["title"])
                numbers.add(panel["id"])
            for panel in panels_of(board):
                self.assertEqual(panel["datasource"]["uid"], "${datasource}", panel["title"])


class Live(unittest.TestCase):
    """A bridge with two gateways; of the first a device goes down, the second is lost."""

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory()
        cls.processes = []
        folder = pathlib.Path(cls.dir.name)
        mqtt, http, cls.prometheus = free_port(), free_port(), free_port()
        (folder / "mosquitto.conf").write_text(f"user root\nlistener {mqtt} 127.0.0.1\nallow_anonymous true\n")
        cls.start("mosquitto", "-c", folder / "mosquitto.conf")
        config = f'state_dir = "{folder}/state"\n[mqtt]\nurl = "mqtt://127.0.0.1:{mqtt}"\n[http]\nlisten = "127.0.0.1:{http}"\n'
        cls.controls = {}
        for name in ("lobby", "annex"):
            port, control = free_port(), free_port()
            certs = folder / name
            process = cls.start(
                PROGRAM, "simulate", "--listen", f"127.0.0.1:{port}", "--control", f"127.0.0.1:{control}",
                "--certs", certs, "--devices", "6", "--manage", "--reconnect-interval", "1",
            )
            cls.controls[name] = (control, process)
            config += f'[gateways.{name}]\naddress = "127.0.0.1:{port}"\nca_file = "{certs}/ca.crt"\naudit_interval = "2s"\n'
        cls.wait("certificates", lambda: all((folder / name / "ca.crt").exists() for name in cls.controls))
        (folder / "config.toml").write_text(config)
        cls.start(PROGRAM, "run", "--config", folder / "config.toml")
        cls.wait("the bridge is ready", lambda: get(f"http://127.0.0.1:{http}/readyz"))
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s}\nscrape_configs:\n"
            f"  - job_name: gsdk2mqtt\n    static_configs: [{{targets: ['127.0.0.1:{http}']}}]\n"
        )
        cls.start(
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{cls.prometheus}",
        )
        cls.wait("connected devices are scraped", lambda: cls.value("sum(gsdk_device_connected)") == 12)
        control, _ = cls.controls["lobby"]
        cls.wait("a skew is estimated", lambda: cls.fault(control, {"do": "drop", "devices": {"random": 3}}))
        cls.fault(control, {"do": "power_off", "devices": {"random": 1}})
        # Nobody's reader any more: not connected, and not down either.
        gone = next(found["device_id"] for found in json.loads(get(f"http://127.0.0.1:{control}/devices"))
                    if found["device"]["powered"])
        subprocess.run(
            [PROGRAM, "ctl", "--config", folder / "config.toml", "--gateway", "lobby", "async", "remove", str(gone)],
            check=True, stdout=subprocess.DEVNULL,
        )
        cls.controls["annex"][1].kill()
        cls.wait("a gateway is lost", lambda: cls.value("sum(gsdk_gateway_up)") == 1)
        down = 'min_over_time(gsdk_gateway_devices{gateway="lobby",connected="false"}[4s])'
        cls.wait("both are down for three scrapes", lambda: cls.value(down) == 2)

    @classmethod
    def tearDownClass(cls):
        for process in reversed(cls.processes):
            process.kill()
            process.wait()
        cls.dir.cleanup()

    @classmethod
    def start(cls, *command):
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        cls.processes.append(process)
        return process

    @staticmethod
    def wait(what, is_so):
        until = time.monotonic() + PATIENCE_S
        error = None
        while time.monotonic() < until:
            try:
                if is_so():
                    return
            except OSError as failed:
                error = failed
            time.sleep(0.1)
        raise AssertionError(f"not within {PATIENCE_S} s: {what} ({error})")

    @staticmethod
    def fault(control, order):
        return get(f"http://127.0.0.1:{control}/fault", json.dumps(order).encode())

    @classmethod
    def ask(cls, expr):
        query = urllib.parse.urlencode({"query": expr})
        answer = json.loads(get(f"http://127.0.0.1:{cls.prometheus}/api/v1/query?{query}"))
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    @classmethod
    def value(cls, expr):
        found = cls.ask(expr)
        return float(found[0]["value"][1]) if found else None

    def test_every_query_finds_what_there_is(self):
        asked = 0
        for board, title, expr in queries():
            with self.subTest(board=board, panel=title):
                found = self.ask(spelled_out(expr))
                asked += 1
                if title not in MAY_BE_EMPTY:
                    self.assertTrue(found, expr)
        self.assertGreater(asked, 30)

    def test_who_is_down_has_a_name_and_a_time(self):
        [expr] = [expr for _, title, expr in queries() if title.startswith("Down now")]
        [down] = self.ask(spelled_out(expr))
        self.assertRegex(down["metric"]["name"], r"\w+ \d+")
        self.assertEqual(down["metric"]["gateway"], "lobby")
        self.assertLess(abs(float(down["value"][1]) / 1000 - time.time()), PATIENCE_S)

    def test_who_is_counted_as_disconnected_is_listed_as_down(self):
        self.assertEqual(self.value('count(gsdk_device_managed == 0)'), 1)
        [down] = [expr for _, title, expr in queries() if title.startswith("Down now")]
        [count] = [expr for _, title, expr in queries() if title == "Disconnected"]
        [lost, _] = [expr for _, title, expr in queries() if title == "Devices not connected"]
        self.assertEqual(self.value(spelled_out(count)), len(self.ask(spelled_out(down))))
        self.assertEqual(self.value(spelled_out(count)), self.value(f"sum({spelled_out(lost)})"))

    def test_the_lost_gateways_devices_are_unknown_not_down(self):
        [expr] = [expr for _, title, expr in queries() if title == "Unknown now"]
        gateways = {found["metric"]["gateway"] for found in self.ask(spelled_out(expr))}
        self.assertEqual(gateways, {"annex"})

    def test_every_variable_finds_values(self):
        for path in BOARDS:
            for variable in json.loads(path.read_text())["templating"]["list"]:
                if variable["type"] != "query":
                    continue
                series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()
                found = self.ask(f"count by ({label}) ({spelled_out(series)})")
                self.assertTrue(found, variable["query"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
