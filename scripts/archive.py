"""Builds the program for one target and packs it: python scripts/archive.py TARGET [BINARY]

The archive is target/packages/gsdk2mqtt-VERSION-TARGET.tar.gz, where `cargo binstall` looks for it. Linux
targets are linked by zig, so that one machine builds all of them. BINARY is packed instead of a build. The
same binary of the same commit always gives the same archive.
"""

import gzip
import os
import pathlib
import subprocess
import sys
import tarfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
BESIDE = {
    "CHANGELOG.md": "CHANGELOG.md",
    "LICENSE-APACHE": "LICENSE-APACHE",
    "LICENSE-MIT": "LICENSE-MIT",
    "README.md": "README.md",
    "config.toml": "deploy/debian/config",
    "gsdk2mqtt.service": "deploy/systemd/gsdk2mqtt.service",
}


def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True)


def build(target, profile="dist"):
    run("rustup", "target", "add", target)
    if "linux" in target:
        tools = ROOT / "target/tools/release"
        run(sys.executable, "-m", "venv", tools)
        run(tools / "bin/pip", "install", "-q", "-r", "scripts/requirements.txt")
        # It looks for zig by way of the python3 in PATH.
        os.environ["PATH"] = f"{tools}/bin:{os.environ['PATH']}"
        cargo = ["cargo-zigbuild", "zigbuild"]
    else:
        cargo = ["cargo", "build"]
    run(*cargo, "--locked", "--profile", profile, "--target", target)
    folder = "debug" if profile == "dev" else profile
    return ROOT / "target" / target / folder / "gsdk2mqtt"


def pack(binary, target):
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    name = f"gsdk2mqtt-{version}-{target}"
    date = int(subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True,
                              capture_output=True).stdout)

    def add(archive, source, as_name, mode):
        entry = tarfile.TarInfo(f"{name}/{as_name}")
        entry.size, entry.mode, entry.mtime = source.stat().st_size, mode, date
        with source.open("rb") as opened:
            archive.addfile(entry, opened)

    path = ROOT / f"target/packages/{name}.tar.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.GzipFile(path, "wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        add(archive, binary, "gsdk2mqtt", 0o755)
        for as_name, source in BESIDE.items():
            add(archive, ROOT / source, as_name, 0o644)
    return path


if __name__ == "__main__":
    wanted = sys.argv[1]
    print(pack(pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else build(wanted), wanted))
