#!/bin/sh
# Installs what `make test` needs on Debian and Ubuntu, and only what is missing: a C compiler (for
# ring), mosquitto and its clients, Prometheus and its Alertmanager, curl, jq, faketime, shellcheck,
# Python with grpcio, paho-mqtt, jsonnet and linters, cargo-deny. Asks nothing. Debian starts the
# services it installs; this leaves none running that was not there before.
set -eu

PATH="$PWD/target/tools/bin:$PATH:/usr/sbin:/sbin"
CARGO_DENY_VERSION=0.20 # pinned to a minor version: a new one may have new lints

missing=""
services=""
need() { # need COMMAND PACKAGES [SERVICE]
    command -v "$1" >/dev/null 2>&1 && return
    missing="$missing $2"
    services="$services ${3:-}"
}
need cc "gcc libc6-dev"
need mosquitto mosquitto mosquitto
need mosquitto_sub mosquitto-clients
need prometheus prometheus "prometheus prometheus-node-exporter"
need prometheus-alertmanager prometheus-alertmanager prometheus-alertmanager
need curl curl
need jq jq
need setpriv util-linux
need faketime faketime
need shellcheck shellcheck
need systemd-analyze systemd
need python3 "python3 python3-venv"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

install_packages() {
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "these are missing:$missing; install them as your system does, then try again" >&2
        exit 1
    fi
    # Debian's own way to say "start nothing"; one that is there already is left alone.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'as_root rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    as_root apt-get -q -y -o DPkg::Lock::Timeout=120 update
    # shellcheck disable=SC2086 # a list of packages
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 \
        install --no-install-recommends $missing
    # Nor at the next boot, where there is a systemd to ask.
    if [ -d /run/systemd/system ]; then
        for service in $services; do
            as_root systemctl disable --now "$service" >/dev/null 2>&1 || true
        done
    fi
}

if [ -n "$missing" ]; then
    install_packages
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "cargo is missing; install Rust with rustup, then try again" >&2
    exit 1
fi
if ! command -v cargo-deny >/dev/null 2>&1; then
    # Into target/, so that nothing of the user's own is touched; unoptimised, since it runs once.
    cargo install --locked --debug --quiet --root target/tools cargo-deny \
        --version "^$CARGO_DENY_VERSION"
fi

# A client of another make for the simulator, in a folder of its own.
venv=target/tools/venv
if [ ! -x "$venv/bin/python" ]; then
    # Debian's python3 comes without the means to make one.
    python3 -m venv "$venv" || {
        rm -rf "$venv"
        missing=python3-venv services=""
        install_packages
        python3 -m venv "$venv"
    }
fi
if ! "$venv/bin/python" -c "import grpc, grpc_status, grpc_tools, _jsonnet" 2>/dev/null; then
    "$venv/bin/python" -m pip install -q --disable-pip-version-check \
        -r tests/simulator/requirements.txt -r tests/dashboards/requirements.txt
fi
if ! "$venv/bin/python" -c "import kubernetes_validate, yamllint" 2>/dev/null ||
    [ ! -x "$venv/bin/hadolint" ] || [ ! -x "$venv/bin/zizmor" ] ||
    [ ! -x "$venv/bin/check-jsonschema" ]; then
    "$venv/bin/python" -m pip install -q --disable-pip-version-check \
        -r tests/deploy/requirements.txt
fi
if ! "$venv/bin/python" -c "import jsonschema, rfc3339_validator" 2>/dev/null; then
    "$venv/bin/python" -m pip install -q --disable-pip-version-check \
        -r tests/schema/requirements.txt
fi
if ! "$venv/bin/python" -c "import paho.mqtt" 2>/dev/null; then
    "$venv/bin/python" -m pip install -q --disable-pip-version-check \
        -r tests/demo/requirements.txt
fi
