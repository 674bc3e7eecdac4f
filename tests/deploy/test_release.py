"""What a release is made of: archives, notes and versions.

Packs a file in place of a built program. Holds that `cargo binstall` finds the archive and the program in
it, that packing is repeatable, that notes come from the changelog or not at all, and that every file that
names a version names the manifest's.
"""

import hashlib
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
TARGET = "test-of-packing"


def filled(template):
    known = {"name": PACKAGE["name"], "bin": PACKAGE["name"], "version": PACKAGE["version"], "target": TARGET,
             "repo": PACKAGE["repository"]}
    return re.sub(r"\{ (\w+) \}", lambda word: known[word[1]], template)


def archive_is_found_and_repeatable(folder):
    binary = folder / "program"
    binary.write_bytes(b"\x7fELF")
    binstall = PACKAGE["metadata"]["binstall"]

    def packed():
        said = subprocess.run([sys.executable, ROOT / "scripts/archive.py", TARGET, binary],
                              capture_output=True, text=True, check=True).stdout
        return pathlib.Path(said.strip())

    path = packed()
    first = hashlib.sha256(path.read_bytes()).digest()
    assert path.name == filled(binstall["pkg-url"]).rsplit("/", 1)[1], path
    with tarfile.open(path) as archive:
        program = archive.getmember(filled(binstall["bin-dir"]))
        assert program.mode == 0o755 and program.uid == 0
    assert hashlib.sha256(packed().read_bytes()).digest() == first, "packed twice, and different"
    path.unlink()


def notes_come_from_the_changelog(folder):
    changelog = folder / "CHANGELOG.md"
    manifest = folder / "Cargo.toml"
    manifest.write_text('[package]\nversion = "1.2.3"\n')
    changelog.write_text("# Changelog\n\n## Unreleased\n\n## 1.2.3 (2026-12-01)\n\n- One.\n\n## 1.2.2\n\n- Old.\n")

    def notes(tag):
        return subprocess.run(["sh", ROOT / "scripts/release-notes.sh", tag, manifest, changelog],
                              capture_output=True, text=True)

    good = notes("v1.2.3")
    assert good.returncode == 0 and good.stdout.strip() == "- One.", good
    assert "must be v1.2.3" in notes("v1.2.4").stderr
    changelog.write_text("# Changelog\n\n## Unreleased\n\n- One.\n")
    lacking = notes("v1.2.3")
    assert lacking.returncode == 1 and "no section" in lacking.stderr, lacking


def versions_are_the_manifests():
    chart = yaml.safe_load((ROOT / "deploy/helm/gsdk2mqtt/Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == PACKAGE["version"], chart
    toolchain = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    for file in ("deploy/container/Containerfile", ".github/workflows/build.yml"):
        tag = re.search(r"docker\.io/library/rust:([0-9.]+)", (ROOT / file).read_text())[1]
        assert f"{toolchain}.".startswith(f"{tag}."), f"{file}: Rust {tag}; rust-toolchain.toml: {toolchain}"


def workflows_call_targets_that_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for file in (ROOT / ".github/workflows").glob("*.yml"):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            commands = "\n".join(step.get("run", "") for step in job.get("steps", []))
            called = set(re.findall(r"\bmake (?:--silent )?([a-z][a-z-]*)", commands))
            if 'make "$TARGET"' in commands:
                called |= set(job["strategy"]["matrix"]["target"])
            assert called <= targets, f"{file.name}: the Makefile has no {called - targets}"


def main():
    with tempfile.TemporaryDirectory() as folder:
        archive_is_found_and_repeatable(pathlib.Path(folder))
        notes_come_from_the_changelog(pathlib.Path(folder))
    versions_are_the_manifests()
    workflows_call_targets_that_exist()
    print("release: archive, notes and versions agree")


if __name__ == "__main__":
    main()
