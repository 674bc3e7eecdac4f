"""Tests the dashboards with a real Prometheus that scrapes a real bridge, which is killed at the end.

The bridge serves only the device series that the dashboards need. Every query of every panel and
variable finds something while it runs, and no panel shows a number or an empty table after its
death. The committed files are what the mixin makes.
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
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "deploy/mixin"))
import generate  # noqa: E402

PROGRAM = ROOT / "target/debug/gsdk2mqtt"
BOARDS = sorted((ROOT / "dashboards").glob("*.json"))
PATIENCE_S = 60
# Empty where nothing is wrong and no command has run.
MAY_BE_EMPTY = {"Refused by the broker", "Commands", "Degraded"}
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
    assert "$" not in expr.replace('"NO DATA: bridge $1 is down"', ""), expr
    return expr


class Source(unittest.TestCase):
    def test_the_committed_files_are_what_the_mixin_makes(self):
        made = generate.files()
        committed = {f"dashboards/{path.name}" for path in BOARDS}
        self.assertEqual({path for path in made if path.startswith("dashboards/")}, committed)
        for path, content in made.items():
            self.assertEqual(content, (ROOT / path).read_text(), f"{path}: run make mixin")

    def test_selector_and_tags_are_parameters(self):
        config = {"selector": 'job="doors", site="north"', "dashboardTags": ["north"]}
        boards = generate.evaluate("mixin.grafanaDashboards", config)
        self.assertEqual([board["tags"] for board in boards.values()], [["north"]] * 2)
        text = (generate.rules(config) + json.dumps(boards)).replace('\\"', '"')
        self.assertNotIn('job="gsdk2mqtt"', text)
        selected = re.findall(r'(?:gsdk_\w+|\bup)(?=[{[ ])(?:\{job="doors", site="north")?', text)
        expressions = [name for name in selected if not name.endswith('"north"')]
        self.assertEqual(expressions, [], "these do not go by the selector")

    def test_no_panel_shows_a_number_where_there_is_no_data(self):
        for path in BOARDS:
            board = json.loads(path.read_text())
            self.assertEqual([panel["title"] for panel in panels_of(board)][0], "Bridge")
            for panel in panels_of(board):
                with self.subTest(board=path.name, panel=panel["title"]):
                    defaults = panel["fieldConfig"]["defaults"]
                    # An empty table means none: without data it has a line that says so.
                    text = "none" if panel["type"] == "table" else "no data"
                    self.assertEqual(defaults["noValue"], text)
                    if panel["type"] == "stat":
                        # The colour without data is that of the lowest step.
                        self.assertEqual(defaults["thresholds"]["steps"][0]["color"], "#8e8e8e")

    def test_a_slow_clock_is_in_the_picture(self):
        board = json.loads((ROOT / "dashboards/bridge.json").read_text())
        [skew] = [panel for panel in panels_of(board) if panel["title"] == "Clock skew"]
        self.assertNotIn("min", skew["fieldConfig"]["defaults"])

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
    """A bridge with two gateways and a master with one more; of the first a device goes down, the second is lost. Then the
    bridge is killed: `alive_at` is before that, `dead_at` after."""

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory()
        cls.processes = []
        folder = pathlib.Path(cls.dir.name)
        mqtt, http, cls.prometheus = free_port(), free_port(), free_port()
        (folder / "mosquitto.conf").write_text(f"user root\nlistener {mqtt} 127.0.0.1\nallow_anonymous true\n")
        cls.start("mosquitto", "-c", folder / "mosquitto.conf")
        config = f'state_dir = "{folder}/state"\n[mqtt]\nurl = "mqtt://127.0.0.1:{mqtt}"\n[http]\nlisten = "127.0.0.1:{http}"\n'
        config += '[metrics]\ndevice = ["seconds"]\n'
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
        port, certs = free_port(), folder / "campus"
        cls.start(
            PROGRAM, "simulate", "--gateways", "1", "--listen", f"127.0.0.1:{port}",
            "--certs", certs, "--devices", "1", "--manage",
        )
        config += (
            f'[masters.campus]\naddress = "127.0.0.1:{port}"\nca_file = "{certs}/ca.crt"\n'
            f'cert_file = "{certs}/tenant.crt"\nkey_file = "{certs}/tenant.key"\n'
        )
        files = [f"{name}/ca.crt" for name in cls.controls] + ["campus/tenant.key"]
        cls.wait("certificates", lambda: all((folder / file).exists() for file in files))
        (folder / "config.toml").write_text(config)
        bridge = cls.start(PROGRAM, "run", "--config", folder / "config.toml")
        cls.wait("the bridge is ready", lambda: get(f"http://127.0.0.1:{http}/readyz"))
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s}\nscrape_configs:\n"
            f"  - job_name: gsdk2mqtt\n    static_configs: [{{targets: ['127.0.0.1:{http}']}}]\n"
        )
        cls.start(
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{cls.prometheus}",
        )
        cls.wait("connected devices are scraped", lambda: cls.value("sum(gsdk_device_connected)") == 13)
        control, _ = cls.controls["lobby"]
        cls.wait("a skew is estimated", lambda: cls.fault(control, {"do": "drop", "devices": {"random": 3}}))
        cls.fault(control, {"do": "power_off", "devices": {"random": 1}})
        # No longer expected: not connected, and not down either.
        gone = next(found["device_id"] for found in json.loads(get(f"http://127.0.0.1:{control}/devices"))
                    if found["device"]["powered"])
        subprocess.run(
            [PROGRAM, "ctl", "--config", folder / "config.toml", "--gateway", "lobby", "async", "remove", str(gone)],
            check=True, stdout=subprocess.DEVNULL,
        )
        cls.controls["annex"][1].kill()
        cls.wait("a gateway is lost", lambda: cls.value("sum(gsdk_gateway_up)") == 2)
        down = 'min_over_time(gsdk_gateway_devices{gateway="lobby",connected="false"}[4s])'
        removed = 'count(max_over_time(gsdk_device_expected[4s]) == 0)'
        cls.wait("one is down for three scrapes", lambda: cls.value(down) == 1)
        cls.wait("one is removed for three scrapes", lambda: cls.value(removed) == 1)
        cls.alive_at = time.time()
        bridge.kill()
        cls.wait("the bridge's death is scraped", lambda: cls.value('up{job="gsdk2mqtt"}') == 0)
        cls.dead_at = time.time()

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
    def ask(cls, expr, at):
        query = urllib.parse.urlencode({"query": expr, "time": at})
        answer = json.loads(get(f"http://127.0.0.1:{cls.prometheus}/api/v1/query?{query}"))
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    @classmethod
    def value(cls, expr, at=None):
        found = cls.ask(expr, at or time.time())
        return float(found[0]["value"][1]) if found else None

    def test_every_query_finds_what_there_is(self):
        asked = 0
        for board, title, expr in queries():
            with self.subTest(board=board, panel=title):
                found = self.ask(spelled_out(expr), self.alive_at)
                asked += 1
                if title not in MAY_BE_EMPTY:
                    self.assertTrue(found, expr)
        self.assertGreater(asked, 30)

    def test_who_is_down_has_a_name_and_a_time(self):
        [expr] = [expr for _, title, expr in queries() if title.startswith("Down now")]
        [down] = self.ask(spelled_out(expr), self.alive_at)
        self.assertRegex(down["metric"]["name"], r"\w+ \d+")
        self.assertEqual(down["metric"]["gateway"], "lobby")
        self.assertLess(abs(float(down["value"][1]) / 1000 - time.time()), PATIENCE_S)

    def test_who_is_counted_as_disconnected_is_listed_as_down(self):
        self.assertEqual(self.value('count(gsdk_device_expected == 0)', self.alive_at), 1)
        [down] = [expr for _, title, expr in queries() if title.startswith("Down now")]
        [count] = [expr for _, title, expr in queries() if title == "Disconnected"]
        [lost, _] = [expr for _, title, expr in queries() if title == "Devices not connected"]
        value = lambda expr: self.value(expr, self.alive_at)
        self.assertEqual(value(spelled_out(count)), len(self.ask(spelled_out(down), self.alive_at)))
        self.assertEqual(value(spelled_out(count)), value(f"sum({spelled_out(lost)})"))

    def test_a_master_is_shown_by_its_name(self):
        [expr] = [expr for _, title, expr in queries() if title == "Masters"]
        [master] = self.ask(spelled_out(expr), self.alive_at)
        self.assertEqual((master["metric"]["master"], master["value"][1]), ("campus", "1"))

    def test_the_first_certificate_to_expire_may_be_that_of_a_master(self):
        [expr] = [expr for _, title, expr in queries() if title == "First certificate to expire"]
        gateways = 'gsdk_gateway_certificate_expiry_timestamp_seconds'
        of_the_master = spelled_out(expr).replace(gateways, "absent_series")
        self.assertTrue(self.ask(of_the_master, self.alive_at), of_the_master)

    def test_the_lost_gateways_devices_are_unknown_not_down(self):
        [expr] = [expr for _, title, expr in queries() if title == "Unknown now"]
        gateways = {found["metric"]["gateway"] for found in self.ask(spelled_out(expr), self.alive_at)}
        self.assertEqual(gateways, {"annex"})

    def test_a_dead_bridge_shows_as_down_and_not_as_all_well(self):
        # Sums over the chosen time are of the past, and stay true.
        past = {"Availability of the chosen time", "Disconnects in the chosen time"}
        seen = set()
        for path in BOARDS:
            for panel in panels_of(json.loads(path.read_text())):
                title = panel["title"]
                [expr, *_] = [target["expr"] for target in panel["targets"]]
                with self.subTest(board=path.name, panel=title):
                    found = self.ask(spelled_out(expr), self.dead_at)
                    seen.add(panel["type"])
                    if title == "Bridge":
                        self.assertEqual([one["value"][1] for one in found], ["0"])
                    elif panel["type"] == "stat" and title not in past:
                        self.assertEqual(found, [])
                    elif panel["type"] == "table":
                        labels = [label for one in found for label in one["metric"].values()]
                        says = [label for label in labels if label.startswith("NO DATA: bridge 127.0.0.1:")]
                        self.assertEqual(len(says), 1, found)
        self.assertGreaterEqual(seen, {"stat", "table"})

    def test_a_prometheus_without_a_bridge_has_no_data(self):
        for board, title, expr in queries():
            if "NO DATA" in expr:
                [found] = self.ask(spelled_out(expr).replace('job="gsdk2mqtt"', 'job="other"'), self.alive_at)
                self.assertIn("NO DATA: bridge  is down", found["metric"].values(), (board, title))

    def test_every_variable_finds_values(self):
        for path in BOARDS:
            for variable in json.loads(path.read_text())["templating"]["list"]:
                if variable["type"] != "query":
                    continue
                series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()
                found = self.ask(f"count by ({label}) ({spelled_out(series)})", self.alive_at)
                self.assertTrue(found, variable["query"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
