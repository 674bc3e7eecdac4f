"""Builds the image of Home Assistant's add-on as its Supervisor does, and runs it: addon_image.py [BINARY]

The Supervisor is not there: the broker is named by an option, and podman mounts what the Supervisor would. The program
is a static build without optimization, or BINARY. Needs what containers.py needs, and mosquitto.
"""

import json
import os
import pathlib
import platform
import sys
import tempfile

from containers import debian, podman, prepare, run
from programs import BRIDGE, ROOT, free_port, get, running, until

sys.path.insert(0, str(ROOT / "scripts"))
import archive

ADDON = ROOT / "deploy/home-assistant-addon"
IMAGE = "gsdk2mqtt-addon-test"


def build(folder):
    binary = sys.argv[1] if len(sys.argv) > 1 else archive.build(f"{platform.machine()}-unknown-linux-musl", "dev")
    debian("docker.io/library/debian:bookworm-slim", ["ca-certificates", "curl", "jq"])
    run("sh", ADDON / "build.sh", binary, folder)
    podman("build", "--quiet", "--pull=never", "--network=none", "--format=docker", "-t", IMAGE, folder)


def it_runs(folder):
    broker, gateway, page, metrics = (free_port() for _ in range(4))
    for name in ("data", "config"):
        (folder / name).mkdir()
    (folder / "mosquitto.conf").write_text(f"user root\nlistener {broker} 127.0.0.1\nallow_anonymous true\n")
    (folder / "data/options.json").write_text(json.dumps({
        "gateways": [{"name": "lobby", "address": f"127.0.0.1:{gateway}", "ca_file": "ca.crt"}], "devices": [],
        "home_assistant": True, "controls": False, "commands": [], "status_page": False, "log_level": "info",
        "mqtt_url": f"mqtt://127.0.0.1:{broker}"}))
    with running("mosquitto", "-c", folder / "mosquitto.conf", log=folder / "mosquitto.log"), \
            running(BRIDGE, "simulate", "--listen", f"127.0.0.1:{gateway}", "--certs", folder / "config",
                    "--devices", "3", "--manage", log=folder / "gateway.log"):
        until("the gateway", (folder / "config/ca.crt").exists)
        (folder / "config/ca.crt").chmod(0o644)
        (folder / "config").chmod(0o755)
        podman("run", "--detach", "--name", "addon", "--network=host", "--tmpfs", "/tmp",
               "--volume", f"{folder}/data:/data", "--volume", f"{folder}/config:/config:ro",
               "--env", f"GSDK2MQTT_HTTP__METRICS_LISTEN=127.0.0.1:{metrics}",
               "--env", f"GSDK2MQTT_HTTP__LISTEN=127.0.0.1:{page}", IMAGE)
        try:
            series = 'gsdk_gateway_devices{gateway="lobby",connected="true"} 3'
            until("three doors", lambda: series in get(f"http://127.0.0.1:{metrics}/metrics"))
            until("it is ready", lambda: get(f"http://127.0.0.1:{metrics}/readyz"))
            pid = podman("inspect", "--format", "{{.State.Pid}}", "addon")
            assert os.stat(f"/proc/{pid}").st_uid == 65532
            podman("healthcheck", "run", "addon")
            podman("stop", "--time", "15", "addon")
            assert podman("inspect", "--format", "{{.State.ExitCode}}", "addon") == "0"
        except BaseException:
            print(podman("logs", "addon"))
            raise
        finally:
            podman("rm", "--force", "addon")


def main():
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        build(pathlib.Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        it_runs(pathlib.Path(folder))
    print("add-on: its image is built and runs")


if __name__ == "__main__":
    main()
