#!/bin/sh
# Installs the brokers of the matrix, as far as they are to be had: RabbitMQ and NATS from Debian (needs root;
# neither is started), aedes from npm, amqtt from PyPI, rumqttd from crates.io. What is missing in the end has "not run" in the table.
set -eu

into=target/tools/brokers
mkdir -p "$into"
warn() {
    echo "$* is not installed, so it is not run" >&2
}

if ! command -v nats-server >/dev/null 2>&1 || ! [ -e /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod 755 "$policy"
        fi
        DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends \
            rabbitmq-server nats-server || warn "RabbitMQ or NATS"
    else
        warn "RabbitMQ or NATS (Debian, as root)"
    fi
fi
if [ ! -x target/tools/bin/rumqttd ]; then
    cargo install --quiet --debug --no-default-features --root target/tools rumqttd --version '^0.20' || warn rumqttd
fi
npm install --silent --no-audit --no-fund --prefix "$into" aedes@^1 || warn aedes
if [ ! -x "$into/venv/bin/amqtt" ]; then
    python3 -m venv "$into/venv"
    "$into/venv/bin/pip" install -q --disable-pip-version-check -r tests/brokers/requirements.txt || warn amqtt
fi
