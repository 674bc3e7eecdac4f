"""Home Assistant's add-on: its descriptions fit each other, and its start makes what the bridge takes.

There is no Supervisor here. What one would do is played: options in /data/options.json, and an answer
to the question for a broker. Nor is there a container: `setpriv` and `chown` are stand-ins where the
test is not root, and folders are below a folder of the test's.
"""

import contextlib
import copy
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading

import yaml
from programs import BRIDGE, ROOT, free_port, get, running, until

ADDON = ROOT / "deploy/home-assistant-addon"
OPTIONS = json.loads((ROOT / "tests/deploy/addon-options.json").read_text())
CONFIG = yaml.safe_load((ADDON / "config.yaml").read_text())
SECRET = OPTIONS["mqtt_password"]
# Of https://developers.home-assistant.io/docs/apps/configuration, what is used here or easily mistaken.
ALLOWED = {
    "arch": {"aarch64", "amd64"},
    "startup": {"initialize", "system", "services", "application", "once"},
    "stage": {"stable", "experimental", "deprecated"},
    "services": {"mqtt:want", "mqtt:need"},
}
KNOWN = {"name", "version", "slug", "description", "arch", "url", "stage", "startup", "timeout",
         "services", "map", "tmpfs", "backup_exclude", "ports", "options", "schema",
         "ingress", "ingress_port", "panel_icon", "panel_title"}
TYPE = re.compile(r"(str|bool|port|password|int\(\d+,\d+\)|list\([^)]+\)|match\((?P<match>.+)\))\??$")


def fits(kind, value, where):
    """Fails unless the Supervisor would take the value for this element of the schema."""
    if isinstance(kind, list):
        assert isinstance(value, list), where
        for one in value:
            fits(kind[0], one, where)
        return
    if isinstance(kind, dict):
        assert set(value) <= set(kind), f"{where}: {set(value) - set(kind)}"
        for key, inner in kind.items():
            if key in value:
                fits(inner, value[key], f"{where}.{key}")
            else:
                assert isinstance(inner, str) and inner.endswith("?"), f"{where}.{key} is missing"
        return
    found = TYPE.match(kind)
    assert found, f"{where}: the Supervisor has no type {kind}"
    plain = kind.removesuffix("?")
    if found["match"]:
        assert re.match(found["match"], value), f"{where}: {value}"
    elif plain.startswith("list("):
        assert value in plain[5:-1].split("|"), f"{where}: {value}"
    elif plain.startswith("int("):
        low, high = plain[4:-1].split(",")
        assert int(low) <= value <= int(high), f"{where}: {value}"
    else:
        wanted = {"bool": bool, "port": int}.get(plain, str)
        assert type(value) is wanted, f"{where}: {value}"


def leaves(kind, path=()):
    """Every single option of a schema, as the way to it."""
    if isinstance(kind, list):
        yield from leaves(kind[0], (*path, 0))
    elif isinstance(kind, dict):
        for key, inner in kind.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path


def descriptions():
    assert set(CONFIG) <= KNOWN, set(CONFIG) - KNOWN
    for key in ("name", "version", "slug", "description", "arch"):
        assert CONFIG.get(key), key
    for key, allowed in ALLOWED.items():
        values = CONFIG[key] if isinstance(CONFIG[key], list) else [CONFIG[key]]
        assert set(values) <= allowed, f"{key}: {values}"
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    assert CONFIG["version"] == version, "config.yaml is of another version than Cargo.toml"
    assert f"## {version}" in (ADDON / "CHANGELOG.md").read_text(), "CHANGELOG.md"
    program = re.search(r"^FROM ghcr\.io/gsdk2mqtt/gsdk2mqtt:(\S+) AS program$", (ADDON / "Dockerfile").read_text(), re.M)
    assert program[1] == version, "the Dockerfile takes the program of another version"
    # The Supervisor reads every config.yaml and config.json of a repository as an add-on's.
    repository = yaml.safe_load((ROOT / "repository.yaml").read_text())
    assert set(repository) == {"name", "url", "maintainer"} and repository["url"] == CONFIG["url"], repository
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    found = [file for file in map(pathlib.PurePath, tracked) if file.stem == "config"
             and file.suffix in (".yaml", ".yml", ".json") and not file.parts[0].startswith(".")]
    assert found == [ADDON.relative_to(ROOT) / "config.yaml"], found
    profile = re.findall(r"^profile (\S+) ", (ADDON / "apparmor.txt").read_text(), re.M)
    assert profile == [CONFIG["slug"]], "the profile has the slug's name"

    # Ingress has the page; the port that may be opened has metrics and health only.
    assert CONFIG["ingress"] is True and list(CONFIG["ports"]) == ["9925/tcp"]
    made = (ADDON / "options.jq").read_text()
    assert f':{CONFIG["ingress_port"]}" | set("listen")' in made, "listen"
    assert ':9925" | set("metrics_listen")' in made, "metrics_listen"

    schema, defaults = CONFIG["schema"], CONFIG["options"]
    # What has a default may not be optional, and what is neither is asked for: nothing is here.
    for key, kind in schema.items():
        optional = isinstance(kind, str) and kind.endswith("?")
        assert optional != (key in defaults), f"{key}: optional, or with a default"
    fits(schema, defaults, "options")
    fits(schema, OPTIONS, "addon-options.json")
    whole = {path[0]: path for path in leaves(schema)}
    assert set(whole) == set(OPTIONS), "addon-options.json has every option"
    for key in ("gateways", "devices"):
        assert set(OPTIONS[key][0]) == set(schema[key][0]), f"the first of {key} has every option"

    told = yaml.safe_load((ADDON / "translations/en.yaml").read_text())
    assert set(told["configuration"]) == set(schema), "translations/en.yaml: options"
    assert set(told["network"]) == set(CONFIG["ports"]), "translations/en.yaml: ports"
    for key, text in told["configuration"].items():
        inner = schema[key][0] if isinstance(schema[key], list) else None
        assert set(text.get("fields", {})) == set(inner if isinstance(inner, dict) else {}), key
        for one in (text, *text.get("fields", {}).values()):
            assert one["name"] and one["description"], key
    docs = (ADDON / "DOCS.md").read_text()
    for path in leaves(schema):
        assert f"`{path[-1] or path[0]}`" in docs, f"DOCS.md does not tell of {path}"


class Machine:
    """What a container of the add-on would have, in a folder."""

    def __init__(self, folder, supervisor):
        self.folder = folder
        for name in ("data", "config", "tmp", "bin"):
            (folder / name).mkdir(exist_ok=True)
        for name in ("lobby-ca.crt", "broker-ca.crt"):
            (folder / "config" / name).write_text("not looked at by check\n")
        # The service's user may not reach where it was built.
        bridge = folder / "bin/bridge"
        try:
            os.link(BRIDGE, bridge)
        except OSError:
            shutil.copy(BRIDGE, bridge)
        self.stand_in("gsdk2mqtt", 'test -z "${SUPERVISOR_TOKEN:-}" || exit 9\n'
                      '[ -z "${ONLY_CHECK:-}" ] || { shift; set -- check "$@"; }\n'
                      f'exec "{bridge}" "$@"')
        if os.getuid() != 0:
            self.stand_in("chown", "exit 0")
            self.stand_in("setpriv", 'until [ "$1" = gsdk2mqtt ]; do shift; done\nexec "$@"')
        else:
            folder.chmod(0o755)
        self.environment = os.environ | {
            "ADDON_ROOT": str(folder), "ADDON_TRIES": "1", "SUPERVISOR_URL": supervisor,
            "SUPERVISOR_TOKEN": "supervisor-token", "PATH": f"{folder}/bin:{os.environ['PATH']}"}

    def stand_in(self, name, text):
        file = self.folder / "bin" / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def options(self, options):
        (self.folder / "data/options.json").write_text(json.dumps(options))

    def check(self, options):
        """The code, and all that is said, of a start that ends with the check of what it made."""
        self.options(options)
        done = subprocess.run(["sh", ADDON / "run.sh"], env=self.environment | {"ONLY_CHECK": "1"},
                              capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def made(self):
        return (self.folder / "tmp/gsdk2mqtt/config.toml").read_text()


@contextlib.contextmanager
def supervisor(answer):
    """Answers the question for a broker, to whoever has the token; `answer` may change."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked_well = (self.path == "/services/mqtt"
                          and self.headers["Authorization"] == "Bearer supervisor-token")
            self.send_response(200 if asked_well and answer else 400)
            self.end_headers()
            self.wfile.write(json.dumps({"result": "ok", "data": answer}).encode())

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def without(options, path):
    """The options without one of them; gateways and devices go one by one."""
    changed = copy.deepcopy(options)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    return changed


def options_become_a_configuration():
    answer = {"host": "core-mosquitto", "port": 1883, "ssl": False, "username": "addons",
              "password": SECRET, "protocol": "3.1.1"}
    with tempfile.TemporaryDirectory() as folder, supervisor(answer) as url:
        machine = Machine(pathlib.Path(folder), url)
        full = without(OPTIONS, ("configuration",))
        code, said = machine.check(full)
        assert code == 0, said
        made = machine.made()
        for text in ('url = "mqtts://broker.lan:8884"', 'username = "bridge"',
                     f'ca_file = "{folder}/config/broker-ca.crt"', 'listen = "0.0.0.0:9926"',
                     'metrics_listen = "0.0.0.0:9925"', '"172.30.32.2"',
                     'allow = ["devices","async/*"]', "port = 51212",
                     "[gateways.lobby.devices.544114231]"):
            assert text in made, f"{text}\n{made}"
        # check shows what was understood: quotes, backslash and accent came through.
        assert "The \\\"front\\\" door\\\\, élan" in said or 'The "front" door\\, élan' in said, said
        assert SECRET not in said + made and "supervisor-token" not in said + made
        password = pathlib.Path(folder) / "tmp/gsdk2mqtt/password"
        assert password.read_text() == SECRET and password.stat().st_mode & 0o777 == 0o600

        # Each option matters: without it something else is made, or it is refused.
        for path in leaves(without(CONFIG["schema"], ("configuration",))):
            path = path[:-1] if path[-1] == 0 else path
            if path == ("log_level",):
                continue
            code, said = machine.check(without(full, path))
            before = SECRET if path == ("mqtt_password",) else made
            after = password.read_text() if path == ("mqtt_password",) else machine.made()
            assert code != 0 or after != before, f"{path} makes no difference"

        # Home Assistant's own broker, and all else by default.
        plain = CONFIG["options"] | {"gateways": full["gateways"][:1]}
        for ssl, scheme in ((False, "mqtt"), (True, "mqtts")):
            answer["ssl"] = ssl
            code, said = machine.check(plain)
            assert code == 0, said
            assert f'url = "{scheme}://core-mosquitto:1883"\nusername = "addons"' in machine.made()
            assert 'metrics_listen = "127.0.0.1:9925"' in machine.made()
            assert '\nlisten = "127.0.0.1:9926"' in machine.made()
            assert 'hosts = ["*"]' in machine.made()
            assert SECRET not in said + machine.made() and password.read_text() == SECRET
        answer |= {"password": "", "username": ""}
        assert machine.check(plain)[0] == 0 and "password_file" not in machine.made()

        # A file of the user's own, instead of the options.
        (machine.folder / "config/own.toml").write_text(
            '[mqtt]\nurl = "mqtt://elsewhere"\n[gateways.a]\naddress = "192.168.0.9"\n'
            'ca_file = "lobby-ca.crt"\n')
        code, said = machine.check(OPTIONS)
        assert code == 0 and "mqtt://elsewhere" in said and f"{folder}/data/state" in said, said

        # What is wrong is said in words.
        twice = full["gateways"][:1] * 2
        for options, words in (
                (CONFIG["options"], "no gateway is configured"),
                (full | {"gateways": twice}, "two gateways are called lobby"),
                (full | {"devices": full["devices"][:1] * 2}, "gateway lobby is listed twice"),
                (full | {"gateways": full["gateways"][:1]}, "gateway annex_2, which is not among"),
                (full | {"commands": ["devises"]}, "devises"),
                (OPTIONS | {"configuration": "none.toml"}, "there is no none.toml")):
            code, said = machine.check(options)
            assert code == 2 and words in said, f"{words}: {code} {said}"
        answer.clear()
        code, said = machine.check(plain)
        assert code == 2 and "knows no broker" in said, said
    print("add-on: its options make what the bridge takes")


def it_runs():
    """The whole start, with a real broker that asks for the password, and a simulated gateway."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as programs:
        folder = pathlib.Path(folder)
        mqtt, gateway = free_port(), free_port()
        answer = {"host": "127.0.0.1", "port": mqtt, "ssl": False, "username": "addons",
                  "password": SECRET}
        machine = Machine(folder, programs.enter_context(supervisor(answer)))

        def start(name, *command, **options):
            return programs.enter_context(running(*command, log=folder / f"{name}.log", **options))

        passwords = folder / "passwords"
        passwords.touch()
        subprocess.run(["mosquitto_passwd", "-b", passwords, "addons", SECRET], check=True,
                       capture_output=True)
        # A broker that was started by root is another user before it reads this.
        passwords.chmod(0o644)
        (folder / "mosquitto.conf").write_text(
            f"listener {mqtt} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n")
        start("mosquitto", "mosquitto", "-c", folder / "mosquitto.conf")
        start("simulator", BRIDGE, "simulate", "--listen", f"127.0.0.1:{gateway}", "--devices", "3",
              "--manage", "--certs", folder / "certs")
        ca = folder / "config/lobby-ca.crt"
        until("the simulator is there",
              lambda: ca.write_bytes((folder / "certs/ca.crt").read_bytes()))
        ca.chmod(0o644)
        machine.options(CONFIG["options"] | {
            "log_level": "trace",
            "gateways": [{"name": "lobby", "address": f"127.0.0.1:{gateway}", "ca_file": ca.name}]})
        # The ports are fixed in a container, where nothing else has them.
        machine.environment |= {"GSDK2MQTT_HTTP__LISTEN": f"127.0.0.1:{free_port()}",
                                "GSDK2MQTT_HTTP__METRICS_LISTEN": f"127.0.0.1:{free_port()}"}
        bridge = start("bridge", "sh", ADDON / "run.sh", env=machine.environment)
        page = f"http://{machine.environment['GSDK2MQTT_HTTP__LISTEN']}"
        until("it is ready", lambda: get(f"{page}/readyz"))
        until("all are connected", lambda: 'gsdk_gateway_devices{gateway="lobby",connected="true"} 3'
              in get(f"{page}/metrics"))
        listed = subprocess.run(
            ["mosquitto_sub", "-p", str(mqtt), "-u", "addons", "-P", SECRET, "-W", "5", "-C", "5",
             "-t", "homeassistant/device/+/config", "-F", "%t"], capture_output=True, text=True).stdout
        assert "homeassistant/device/gsdk_lobby_gateway/config" in listed, listed
        status = pathlib.Path(f"/proc/{bridge.pid}/status").read_text()
        if os.getuid() == 0:
            assert re.search(r"^Uid:\t65532\t65532\t65532\t65532$", status, re.M), status
            assert re.search(r"^Groups:\s*$", status, re.M), status
            for kept in ("CapPrm", "CapEff", "CapInh", "CapBnd"):
                assert re.search(rf"^{kept}:\t0+$", status, re.M), f"{kept}\n{status}"
        assert re.search(r"^NoNewPrivs:\t1$", status, re.M) or os.getuid() != 0, status
        asking = {"GSDK2MQTT_CONFIG": f"{folder}/tmp/gsdk2mqtt/config.toml"}
        health = subprocess.run([BRIDGE, "health"], capture_output=True, text=True,
                                env=machine.environment | asking)
        assert health.returncode == 0, health.stderr
        bridge.terminate()
        assert bridge.wait(30) == 0
        said = (folder / "bridge.log").read_text()
        assert SECRET not in said and "supervisor-token" not in said, "a secret is in the log"
        assert (folder / "data/state").is_dir() and any((folder / "data/state").iterdir())
    print("add-on: it runs, as a user without rights, and says no secret")


def folder_is_whole():
    """build.sh makes a folder that has all that the Dockerfile copies."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        # A head of an ELF file for each machine will do: the binary is only copied.
        for byte, arch in ((0x3e, "amd64"), (0xb7, "aarch64")):
            (folder / "binary").write_bytes(b"\x7fELF" + bytes(14) + bytes([byte, 0]))
            made = folder / arch
            subprocess.run(["sh", ADDON / "build.sh", folder / "binary", made], check=True)
            assert yaml.safe_load((made / "config.yaml").read_text())["arch"] == [arch]
            copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (made / "Dockerfile").read_text(), re.M)
            assert "gsdk2mqtt" in copied, copied
            for line in copied:
                for name in line.split():
                    assert (made / name).is_file(), f"{name} is not in the folder"
        (folder / "binary").write_bytes(bytes(64))
        refused = subprocess.run(["sh", ADDON / "build.sh", folder / "binary", made],
                                 capture_output=True)
        assert refused.returncode == 1, "a binary of no known machine"


if __name__ == "__main__":
    descriptions()
    folder_is_whole()
    options_become_a_configuration()
    it_runs()
