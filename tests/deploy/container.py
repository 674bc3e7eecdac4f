"""Builds the container image with its build stages, and runs it: python tests/deploy/container.py

The build stage's base is made by debootstrap from Debian's packages and this machine's Rust, and the build has no
network, so no registry of images is asked. Needs what containers.py needs, and mosquitto.
"""

import gzip
import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import socket
import tempfile
import threading

from containers import WORK, debian, podman, prepare, run
from programs import BRIDGE, ROOT, free_port, get, running, until

IMAGE = "gsdk2mqtt-test"
SIZE_MAX = 20_000_000  # as it is downloaded
CARGO = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
WHEELS = WORK / "wheels"


def add_rust(base):
    """Rust as the registry's image has it, with rustup, and the target that the recipe adds."""
    target = f"{platform.machine()}-unknown-linux-musl"
    run("rustup", "target", "add", target)
    toolchain = pathlib.Path(run("rustc", "--print", "sysroot"))
    rustup = base / "usr/local/rustup"
    shutil.copytree(toolchain.resolve(), rustup / "toolchains" / toolchain.name, symlinks=True,
                    ignore=shutil.ignore_patterns("doc", "man", "src"))
    (rustup / "settings.toml").write_text(f'version = "12"\ndefault_toolchain = "{toolchain.name}"\n')
    programs = base / "usr/local/cargo/bin"
    programs.mkdir(parents=True)
    shutil.copy(shutil.which("rustup"), programs / "rustup")
    for name in ("cargo", "rustc"):
        (programs / name).symlink_to("rustup")


def make_base(name):
    """What the recipe takes from the registry: Debian with a C compiler, Python and Rust."""
    debian(name, ["ca-certificates", "gcc", "libc6-dev", "python3-venv"], add_rust, [
        "RUSTUP_HOME=/usr/local/rustup", "PATH=/usr/local/cargo/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        # What the build would fetch is mounted.
        "CARGO_HOME=/cargo", "CARGO_NET_OFFLINE=true", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=/wheels"])


def build(*options):
    recipe = (ROOT / "deploy/container/Containerfile").read_text()
    make_base(re.search(r"^FROM (?:--\S+ )?(docker\.io/library/rust\S+) AS source", recipe, re.M)[1])
    run("cargo", "fetch", "--locked")
    run("python3", "-m", "pip", "download", "--quiet", "--dest", WHEELS, "-r", "scripts/requirements.txt")
    podman("build", *options, "--quiet", "--pull=never", "--network=none", "--format=docker",
           "--volume", f"{CARGO}/registry:/cargo/registry", "--volume", f"{WHEELS}:/wheels:ro", "--build-arg", "VERSION=1.2.3",
           "--build-arg", "BUILD_COMMIT=0123456789ab", "-f", "deploy/container/Containerfile", "-t", IMAGE, ".")


def contents():
    """The files of the image, without what podman adds to every container."""
    podman("create", "--name", "export", IMAGE)
    podman("export", "-o", WORK / "export.tar", "export")
    podman("rm", "export")
    listed = run("tar", "--numeric-owner", "-tvf", WORK / "export.tar").splitlines()
    return {path: (mode, owner) for mode, owner, *_, path in (line.split(maxsplit=5) for line in listed)
            if not path.startswith(("dev", "etc/host", "etc/resolv", "proc", "run", "sys"))}


def program():
    """The hash of the program in the image."""
    podman("create", "--name", "program", IMAGE)
    podman("cp", "program:/usr/bin/gsdk2mqtt", WORK / "program")
    podman("rm", "program")
    return hashlib.sha256((WORK / "program").read_bytes()).hexdigest()


def name_server():
    """Answers every question about a name with 127.0.0.1, as a DNS server on loopback."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.53", 53))

    def serve():
        while True:
            question, client = server.recvfrom(512)
            end = question.index(b"\0", 12) + 5
            kind = question[end - 4:end - 2]
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1" if kind == b"\0\1" else b""
            head = question[:2] + b"\x81\x80\0\1" + (b"\0\1" if answer else b"\0\0") + b"\0\0\0\0"
            server.sendto(head + question[12:end] + answer, client)

    threading.Thread(target=serve, daemon=True).start()


def it_is_small_and_says_what_it_is():
    (image,) = json.loads(podman("image", "inspect", IMAGE))
    labels = image["Labels"]
    assert labels["org.opencontainers.image.version"] == "1.2.3", labels
    assert labels["org.opencontainers.image.revision"] == "0123456789ab", labels
    assert image["User"] == "65532:65532" and image["Healthcheck"], image
    found = contents()
    files = {path for path, (mode, _) in found.items() if mode.startswith("-")}
    assert files == {"usr/bin/gsdk2mqtt", "etc/ssl/certs/ca-certificates.crt"}, files
    assert found["usr/bin/gsdk2mqtt"] == ("-rwxr-xr-x", "0/0"), found
    assert found["var/lib/gsdk2mqtt/"] == ("drwx------", "65532/65532"), found
    packed = len(gzip.compress((WORK / "export.tar").read_bytes()))
    assert packed <= SIZE_MAX, f"{packed} bytes"
    return f"{packed / 1e6:.1f} MB to download, {image['Size'] / 1e6:.1f} MB unpacked"


def it_runs(folder):
    ports = {name: free_port() for name in ("broker", "gateway", "metrics", "page")}
    (folder / "mosquitto.conf").write_text(
        f"user root\nlistener {ports['broker']} 127.0.0.1\nallow_anonymous true\n")
    # Names by DNS and from the hosts file: a static C library has its own ways to both.
    (folder / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    (folder / "config.toml").write_text(
        f'[mqtt]\nurl = "mqtt://broker.example:{ports["broker"]}"\n[gateways.lobby]\n'
        f'address = "gateway.local:{ports["gateway"]}"\nca_file = "/etc/gsdk2mqtt/ca.crt"\n')
    name_server()
    with running("mosquitto", "-c", folder / "mosquitto.conf", log=folder / "mosquitto.log"), \
            running(BRIDGE, "simulate", "--listen", f"127.0.0.1:{ports['gateway']}", "--certs", folder,
                    "--devices", "3", "--manage", log=folder / "gateway.log"):
        until("the gateway", (folder / "ca.crt").exists)
        folder.chmod(0o755)
        podman("run", "--detach", "--name", "bridge", "--read-only", "--cap-drop=all", "--network=host",
               "--security-opt=no-new-privileges", "--add-host", "gateway.local:127.0.0.1",
               "--volume", f"{folder}/resolv.conf:/etc/resolv.conf:ro", "--volume", f"{folder}:/etc/gsdk2mqtt:ro",
               "--env", f"GSDK2MQTT_HTTP__METRICS_LISTEN=127.0.0.1:{ports['metrics']}",
               "--env", f"GSDK2MQTT_HTTP__LISTEN=127.0.0.1:{ports['page']}", IMAGE)
        try:
            at = f"http://127.0.0.1:{ports['metrics']}"
            until("it is ready", lambda: json.loads(get(f"{at}/readyz"))["ready"])
            series = 'gsdk_gateway_devices{gateway="lobby",connected="true"} 3'
            until("three doors", lambda: series in get(f"{at}/metrics"))
            assert 'commit="0123456789ab"' in get(f"{at}/metrics")
            pid = podman("inspect", "--format", "{{.State.Pid}}", "bridge")
            assert os.stat(f"/proc/{pid}").st_uid == 65532
            podman("healthcheck", "run", "bridge")
            podman("stop", "--time", "15", "bridge")
            assert podman("inspect", "--format", "{{.State.ExitCode}}", "bridge") == "0"
        except BaseException:
            print(podman("logs", "bridge"))
            raise
        finally:
            podman("rm", "--force", "bridge")


def main():
    prepare()
    build()
    size = it_is_small_and_says_what_it_is()
    with tempfile.TemporaryDirectory() as folder:
        it_runs(pathlib.Path(folder))
    first = program()
    build("--no-cache")
    assert program() == first, "built twice, and different"
    print(f"container: built twice alike, {size}, and run")


if __name__ == "__main__":
    main()
