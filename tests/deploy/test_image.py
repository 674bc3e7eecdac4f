"""What the container image is built from, without building it.

Copies what `.dockerignore` admits into an empty folder, as `COPY . .` does, and asks cargo there. Holds
that the manifest is whole without the rest of the project, and that no file that the program takes in
is left out: it reads from the sources what the program needs. Checks that the service is built without
simulator and demo, that the compose file is whole without the profile `try`, and the image's labels and owners.
"""

import pathlib
import re
import shutil
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEVER = {".git", "target"}


def rules():
    """The patterns, each with whether it admits what it matches; the last that matches decides."""
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            yield line.lstrip("!"), line.startswith("!")


def admitted(path, patterns):
    """A pattern matches a path, and all that is below it; `*` does not go beyond a level."""
    tops = [path, *path.parents][:-1]
    decided = [admits for pattern, admits in patterns if any(
        len(top.parts) == len(pathlib.PurePath(pattern).parts) and top.match(pattern) for top in tops)]
    return not decided or decided[-1]


def copy_into(folder):
    patterns = list(rules())
    for top in ROOT.iterdir():
        for file in [] if top.name in NEVER else [top, *top.rglob("*")]:
            path = file.relative_to(ROOT)
            if file.is_file() and admitted(path, patterns):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, folder / path)


def missing_of(folder):
    """Files that sources of the program take in; `tests.rs` and files below `tests` are compiled for tests only."""
    for source in [folder / "build.rs", *(folder / "src").rglob("*.rs")]:
        for named in re.findall(r'include(?:_str|_bytes)?!\(\s*"([^"]+)"', source.read_text()):
            for_tests = source.name == "tests.rs" or "tests" in source.relative_to(folder).parts
            if not for_tests and not (source.parent / named).is_file():
                yield f"{source.relative_to(folder)} takes in {named}"


def compose_without_profiles():
    """What is always started may wait for nothing that is not, unless it says that it can do without."""
    services = yaml.safe_load((ROOT / "deploy/container/compose.yml").read_text())["services"]
    always = {name for name, service in services.items() if "profiles" not in service}
    assert "gsdk2mqtt" in always and "simulator" not in always, always
    for name in always:
        waits = services[name].get("depends_on", {})
        needed = {on for on in waits if isinstance(waits, list) or waits[on].get("required", True)}
        assert needed <= always, f"{name} needs {needed - always}"


def only_the_target_try_has_the_simulator():
    """The default image is built without features and their crates; compose's simulator has them."""
    recipe = (ROOT / "deploy/container/Containerfile").read_text()
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", recipe, re.M | re.S))
    build = {stage: re.search(r"^COPY --from=(\S+)", stages[stage], re.M)[1] for stage in ("service", "try")}
    assert list(stages)[-1] == "service", "the last stage is the default"
    assert "--no-default-features" in stages[build["service"]]
    assert "--no-default-features" not in stages[build["try"]]
    services = yaml.safe_load((ROOT / "deploy/container/compose.yml").read_text())["services"]
    assert services["simulator"]["build"]["target"] == "try"
    assert services["simulator"]["image"] != services["gsdk2mqtt"]["image"]
    tree = subprocess.run(["cargo", "tree", "--locked", "--offline", "--no-default-features", "-e", "normal",
                           "--prefix", "none"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    crates = {line.split()[0] for line in tree.splitlines() if line}
    assert "tokio" in crates and "rcgen" not in crates, crates


def the_image_says_what_it_is():
    """Labels for those who find it in a registry; a state folder that the service's user can write."""
    recipe = (ROOT / "deploy/container/Containerfile").read_text()
    for label in ("title", "description", "source", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in recipe, label
    service = recipe[recipe.index(" AS service\n"):]
    assert re.search(r"^COPY --from=build --chown=65532:65532 /out/state/ ", service, re.M)
    assert re.search(r"^HEALTHCHECK ", service, re.M)


def metrics_are_open_and_the_rest_needs_a_token():
    """Prometheus and probes read 9925 without a login; page and API are on loopback, or need a token."""
    recipe = (ROOT / "deploy/container/Containerfile").read_text()
    set_in = dict(re.findall(r"(GSDK2MQTT_HTTP__\w+)=(\S+)", recipe))
    assert set_in == {"GSDK2MQTT_HTTP__METRICS_LISTEN": "0.0.0.0:9925",
                      "GSDK2MQTT_HTTP__LISTEN": "127.0.0.1:9926"}, set_in
    compose = yaml.safe_load((ROOT / "deploy/container/compose.yml").read_text())
    service = compose["services"]["gsdk2mqtt"]
    assert service["environment"]["GSDK2MQTT_HTTP__LISTEN"] == "0.0.0.0:9926"
    assert service["ports"] == ["127.0.0.1:9926:9926"]
    (secret,) = service["secrets"]
    assert service["environment"]["GSDK2MQTT_HTTP__TOKEN_FILE"] == f"/run/secrets/{secret}"
    file = compose["secrets"][secret]["file"].removeprefix("./")
    assert f"/deploy/container/{file}" in (ROOT / ".gitignore").read_text().splitlines()


def main():
    compose_without_profiles()
    the_image_says_what_it_is()
    metrics_are_open_and_the_rest_needs_a_token()
    only_the_target_try_has_the_simulator()
    copied = re.findall(r"^COPY (?!--from)(.*)$", (ROOT / "deploy/container/Containerfile").read_text(), re.M)
    assert copied == ["scripts/requirements.txt scripts/", ". ."], f"this test copies all that is admitted; the recipe: {copied}"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        copy_into(folder)
        assert not (folder / "deploy").exists(), "all is admitted"
        lacking = list(missing_of(folder))
        assert not lacking, lacking
        read = subprocess.run(["cargo", "metadata", "--locked", "--format-version", "1"],
                              cwd=folder, capture_output=True, text=True)
        assert read.returncode == 0, read.stderr
    print("the image's sources are whole")


if __name__ == "__main__":
    main()
