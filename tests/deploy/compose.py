"""Starts deploy/container/compose.yml with the profile `try`, and uses it from outside: python tests/deploy/compose.py [BINARY]

The images are made here: the bridge's by the recipe's last stages around a static build without optimization (or
BINARY), the other programs' from Debian's packages, under the names that the compose file has. Grafana is no package of Debian and is
left out. Needs what containers.py needs, mosquitto's clients, podman-compose and free ports 1883, 9090, 9093, 9926.
"""

import base64
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request

import yaml
from containers import WORK, debian, podman, prepare, run
from programs import ROOT, get, until

sys.path.insert(0, str(ROOT / "scripts"))
import archive

TARGET = f"{platform.machine()}-unknown-linux-musl"
FOLDER = "deploy/container"
SERVICES = ["gsdk2mqtt", "simulator", "mosquitto", "prometheus", "alertmanager"]
TOKEN = "0123456789abcdef0123456789abcdef"
# As the images of the registry have it: the program, its files, and the user who owns its data.
OTHERS = {
    "mosquitto": ("/usr/sbin/mosquitto", "-c /mosquitto/config/mosquitto.conf", "/mosquitto/data", "1883"),
    "prometheus": ("/usr/bin/prometheus", "--config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/prometheus",
                   "/prometheus", "65534"),
    "alertmanager": ("/usr/bin/prometheus-alertmanager",
                     "--config.file=/etc/alertmanager/alertmanager.yml --storage.path=/alertmanager", "/alertmanager",
                     "65534"),
}


def make_own_images():
    """The recipe's last stages, with a folder in place of the stages that compile."""
    recipe = (ROOT / FOLDER / "Containerfile").read_text()
    built = WORK / "built"
    shutil.rmtree(built, ignore_errors=True)
    (built / "out/state/gsdk2mqtt").mkdir(parents=True, mode=0o700)
    (built / "out/state/gsdk2mqtt").chmod(0o700)
    (built / "etc/ssl/certs").mkdir(parents=True)
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", built / "etc/ssl/certs")
    binary = sys.argv[1] if len(sys.argv) > 1 else archive.build(TARGET, "dev")
    run("strip", "-o", built / "out/gsdk2mqtt", binary)
    contexts = [f"--build-context={stage}={built}" for stage in ("source", "build", "build-try")]
    for target, name in (("service", "gsdk2mqtt"), ("try", "gsdk2mqtt-try")):
        podman("build", "--quiet", "--format=docker", *contexts, "--target", target, "-t", name, "-f", "-", built,
               input=recipe[recipe.index("FROM scratch AS base"):])


def make_other_images(services):
    debian("localhost/programs:latest", ["mosquitto", "prometheus", "prometheus-alertmanager"])
    for service, (program, arguments, data, user) in OTHERS.items():
        podman("build", "--quiet", "-t", services[service]["image"], "-f", "-", WORK / "built", input=f"""
            FROM localhost/programs
            RUN mkdir -p {data} && chown {user}:{user} {data}
            USER {user}
            VOLUME ["{data}"]
            WORKDIR {data}
            CMD {json.dumps([program, *arguments.split()])}
            """)


def ask(url, token=None):
    request = urllib.request.Request(url)
    if token:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"me:{token}".encode()).decode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def query(expression):
    found = get("http://127.0.0.1:9090/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
    return [float(series["value"][1]) for series in json.loads(found)["data"]["result"]]


def first_message(topic):
    return subprocess.run(["mosquitto_sub", "-h", "127.0.0.1", "-t", topic, "-C", "1", "-W", "10"],
                          capture_output=True, text=True).stdout.strip()


def page_and_api():
    page = "http://127.0.0.1:9926/"
    until("it is ready", lambda: json.loads(ask(f"{page}readyz", TOKEN))["ready"])
    assert "lobby" in ask(page, TOKEN)
    try:
        ask(page)
        raise AssertionError("the page is served without the token")
    except urllib.error.HTTPError as refused:
        assert refused.code == 401, refused


def messages():
    assert first_message("gsdk/bridge/state") == "online"
    door = json.loads(first_message("gsdk/lobby/+/state"))
    assert isinstance(door["connected"], bool), door


def metrics():
    until("Prometheus scrapes the bridge", lambda: query('up{job="gsdk2mqtt"}') == [1])
    until("doors", lambda: query('sum(gsdk_gateway_devices{gateway="lobby"})')[0] > 0)


def active_alerts():
    return {alert["labels"]["alertname"] for alert in json.loads(get("http://127.0.0.1:9093/api/v2/alerts"))
            if alert["status"]["state"] == "active" and alert["receivers"] == [{"name": "default"}]}


def main():
    prepare()
    services = yaml.safe_load((ROOT / FOLDER / "compose.yml").read_text())["services"]
    make_own_images()
    make_other_images(services)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shutil.copytree(ROOT / "deploy", folder / "deploy")
        shutil.copytree(ROOT / "dashboards", folder / "dashboards")
        (folder / FOLDER / "http-token").write_text(TOKEN)
        folder.chmod(0o755)
        file = folder / FOLDER / "compose.yml"

        def compose(*words):
            run(pathlib.Path(sys.executable).with_name("podman-compose"), "-f", file, "--profile", "try", *words)

        try:
            compose("up", "--detach", "--no-build", *SERVICES)
            page_and_api()
            messages()
            metrics()
            chain = json.loads(first_message("gsdk/bridge/info"))["chain"]
            compose("restart", "gsdk2mqtt")
            page_and_api()
            assert json.loads(first_message("gsdk/bridge/info"))["chain"] == chain, "a restart ended the chain"
            compose("stop", "simulator")
            until("doors are unknown", lambda: json.loads(first_message("gsdk/lobby/+/state"))["connected"] is None)
            # Two minutes until it fires, and half a minute until it is read.
            until("the alert arrives", lambda: "GsdkGatewayUnreachable" in active_alerts(), patience_s=240)
            compose("start", "simulator")
            page_and_api()
        except BaseException:
            for service in SERVICES:
                print(f"--- {service}", subprocess.run(["podman", "logs", "--tail=20", f"gsdk2mqtt_{service}_1"],
                                                       capture_output=True, text=True), file=sys.stderr)
            raise
        finally:
            compose("down", "--volumes")
    print("compose: page, messages, metrics and an alert, seen from outside")


if __name__ == "__main__":
    main()
