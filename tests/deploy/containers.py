"""Podman with a storage of its own, and images made from Debian's packages instead of a registry's.

Needs root on Debian or Ubuntu, podman, runc and debootstrap.
"""

import os
import shutil
import subprocess

from programs import ROOT

WORK = ROOT / "target/image"
MIRROR = os.environ.get("MIRROR", "http://deb.debian.org/debian")
# runc, since crun refuses cgroups in hybrid mode. Limits below podman's own, which a machine that is a container
# itself may not grant.
SETTINGS = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""


def prepare():
    """Writes podman's settings and names them in the environment."""
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "containers.conf").write_text(SETTINGS)
    (WORK / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{WORK}/storage"\nrunroot = "{WORK}/run"\n')
    os.environ["CONTAINERS_CONF"] = str(WORK / "containers.conf")
    os.environ["CONTAINERS_STORAGE_CONF"] = str(WORK / "storage.conf")


def run(*words, **options):
    return subprocess.run([str(word) for word in words], cwd=ROOT, check=True, text=True,
                          stdout=subprocess.PIPE, **options).stdout.strip()


def podman(*words, **options):
    return run("podman", *words, **options)


def debian(name, packages, complete=lambda folder: None, settings=()):
    """Makes the image of a Debian with these packages, once; `complete` adds files to its folder."""
    if name in podman("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines():
        return
    folder = WORK / "base"
    shutil.rmtree(folder, ignore_errors=True)
    run("debootstrap", "--variant=minbase", f"--include={','.join(packages)}", "bookworm", folder, MIRROR)
    complete(folder)
    changes = [word for setting in settings for word in ("--change", f"ENV {setting}")]
    with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as packed:
        podman("import", *changes, "-", name, stdin=packed.stdout)
    assert packed.returncode == 0
    shutil.rmtree(folder)
