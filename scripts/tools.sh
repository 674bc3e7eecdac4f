#!/bin/sh
# Installs what is missing on Debian and Ubuntu: `tools.sh build` what compiling needs, `tools.sh test`
# also what `make test` needs. Says what it installs; asks nothing, except sudo for a password. Debian
# starts the services it installs; this leaves none running that was not there before. On other
# systems it names what is missing.
set -eu

PATH="$PWD/target/tools/bin:$PATH:/usr/sbin:/sbin"
CARGO_DENY_VERSION=0.20 # pinned to a minor version: a new one may have new lints

missing=""
services=""
need() { # need COMMAND PACKAGES [SERVICES]
    command -v "$1" >/dev/null 2>&1 && return
    missing="$missing $2"
    services="$services ${3:-}"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        echo "neither root nor sudo: run as root: $*" >&2
        exit 1
    fi
}

install_missing() {
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "missing:$missing (names of Debian's packages); install them, then try again" >&2
        exit 1
    fi
    echo "installing with apt:$missing"
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
    missing="" services=""
}

# rust-toolchain.toml names the version of Rust, which rustup installs.
install_rust() {
    if ! command -v cargo >/dev/null 2>&1 && ! command -v rustup >/dev/null 2>&1; then
        if apt-cache policy rustup 2>/dev/null | grep -q 'Candidate: [0-9]'; then
            missing=rustup
            install_missing
        else
            command -v curl >/dev/null 2>&1 || missing=curl
            install_missing
            echo "Rust is missing. Install it with this line, then try again:" >&2
            echo "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y" >&2
            exit 1
        fi
    fi
    command -v rustup >/dev/null 2>&1 || return 0
    toolchain=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
    if ! rustup toolchain list | grep -q "^$toolchain"; then
        echo "installing with rustup: Rust $toolchain"
        rustup toolchain install "$toolchain" --profile minimal -c clippy -c rustfmt
    fi
}

install_cargo_deny() {
    command -v cargo-deny >/dev/null 2>&1 && return
    echo "installing into target/tools: cargo-deny"
    # Unoptimized and without symbols, since it runs once.
    CARGO_PROFILE_DEV_DEBUG=false cargo install --locked --debug --quiet \
        --root target/tools cargo-deny --version "^$CARGO_DENY_VERSION"
}

venv=target/tools/venv

install_python_packages() {
    if [ ! -x "$venv/bin/python" ]; then
        echo "installing into target/tools: packages of Python"
        # Debian's python3 comes without the means to make one.
        python3 -m venv "$venv" || {
            rm -rf "$venv"
            missing=python3-venv
            install_missing
            python3 -m venv "$venv"
        }
    fi
    # pip asks no index if all of them are there.
    "$venv/bin/python" -m pip install -q --disable-pip-version-check \
        -r tests/simulator/requirements.txt -r tests/dashboards/requirements.txt \
        -r tests/deploy/requirements.txt -r tests/schema/requirements.txt \
        -r tests/demo/requirements.txt
}

need cc "gcc libc6-dev"
need make make
need git git
# cargo fetches over TLS.
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
if [ "${1:-}" = test ]; then
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
fi
install_missing
install_rust
if [ "${1:-}" = test ]; then
    # One compiles while the other downloads.
    install_cargo_deny &
    install_python_packages
    wait $!
fi
