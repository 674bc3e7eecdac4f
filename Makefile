# The targets for developers and CI. `./dev TARGET` first installs the build tools.

SHELL := /bin/sh
.NOTPARALLEL:
.PHONY: bench-peers chart help tools fmt mixin proto lint lint-deploy test test-brokers test-compose test-demo-clients test-archive test-failover test-homeassistant test-image test-nodered test-openapi test-package test-page test-root test-schema test-simulator-node nightly demo bench advisories msrv archive deb rpm image images sbom release-notes

# Debian keeps mosquitto in /usr/sbin, which is not on everyone's path.
export PATH := $(CURDIR)/target/tools/bin:$(PATH):/usr/sbin

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
IMAGE ?= gsdk2mqtt
HOST = $(shell rustc --print host-tuple)
# The longest first.
PYTHON_TESTS := tests/deploy/test_alerts.py tests/dashboards/test_dashboards.py \
  tests/simulator/test_client.py tests/demo/test_clients.py tests/schema/test_schema.py \
  tests/deploy/test_image.py tests/deploy/test_release.py tests/deploy/test_chart.py \
  tests/deploy/test_notify.py tests/deploy/test_alertmanager.py tests/deploy/test_addon.py

help:
	@echo "make test        installs missing tools, then lints and runs every test"
	@echo "make test-brokers  the bridge with RabbitMQ, NATS, aedes, amqtt and rumqttd; writes the table of docs/brokers.md"
	@echo "make test-compose  the compose file with its services, and the add-on's image, run (needs root, podman, runc, debootstrap)"
	@echo "make test-failover  how long doors are unknown when a bridge restarts or moves (needs root and keepalived)"
	@echo "make test-homeassistant  tests discovery with a real Home Assistant; installs it first (root, Debian, 1.6 GB)"
	@echo "make test-demo-clients  mqtt.js against the demo's broker (needs npm)"
	@echo "make test-openapi  the HTTP API against its OpenAPI document, by Schemathesis (from PyPI)"
	@echo "make test-simulator-node  a client in Node against the simulated gateway (needs npm)"
	@echo "make test-image  the container image, built and run (needs root, podman, runc and debootstrap)"
	@echo "make test-page   the status page in headless Chromium (needs chromium and npm)"
	@echo "make test-root   the tests of full, read-only and hanging disks (need root to mount one)"
	@echo "make test-schema the AsyncAPI document against the official schema (needs npm)"
	@echo "make lint        rustfmt, clippy, cargo-deny and lint-deploy; warnings are errors"
	@echo "make lint-deploy linters of scripts, workflows, image recipes, manifests and rules"
	@echo "make msrv        compiles with the oldest supported Rust (rustup installs it)"
	@echo "make nightly     tests that take too long for every change: a million inputs for the request parser, a million events, 200 kills, 5,000 seeds of the model"
	@echo "make fmt         formats the code"
	@echo "make proto       writes the wire types from proto/"
	@echo "make mixin       writes alerting rules and dashboards from deploy/mixin"
	@echo "make test-nodered  the Node-RED flow in a real Node-RED (from npm)"
	@echo "make test-package  the Debian and the RPM package in a fresh Debian (needs root, debootstrap, systemd-container, lintian, rpm)"
	@echo "make demo        broker, simulated gateway and bridge in one process"
	@echo "make bench       measures everything and rewrites docs/performance.md (half an hour)"
	@echo "make bench-peers measures simple bridges in Node.js and Python beside it (needs npm)"
	@echo "make advisories  compares the dependencies with the RustSec database (needs the network)"
	@echo "make image       the service's container image for this machine (needs docker; IMAGE names it)"
	@echo "make images      the same for amd64, arm64 and armv7, in target/packages (needs docker with buildx)"
	@echo "make deb         the Debian package, in target/packages"
	@echo "make chart       the Helm chart, in target/packages (needs helm)"
	@echo "make rpm         the RPM package, in target/packages"
	@echo "make archive     the archive of TARGET, in target/packages (needs rustup and Python)"
	@echo "make test-archive  runs the program of TARGET's archive, in qemu if need be"
	@echo "make sbom        the bill of materials in the format CycloneDX, in target/packages"
	@echo "make release-notes  the changelog's section of TAG"
	@echo "make tools       installs missing tools of the tests"

tools:
	@sh scripts/tools.sh test

fmt:
	cargo fmt

mixin: tools
	target/tools/venv/bin/python -B deploy/mixin/generate.py

proto:
	WRITE_PROTO=1 cargo test --locked --test proto

lint: tools
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --no-default-features -- -D warnings
	cargo deny --locked check bans licenses sources
	@$(MAKE) --no-print-directory lint-deploy

lint-deploy: tools
	sh tests/deploy/lint.sh

# Sixteen at a time: most tests wait, a dozen of them for more than a minute. Then four suites at a
# time; the output of each is shown when it ends.
test: lint
	RUST_TEST_THREADS=16 cargo test --locked
	sh tests/deploy/first_steps.sh target/debug/gsdk2mqtt
	@{ if [ "$$(id -u)" = 0 ]; then echo "make --no-print-directory test-root"; \
	  else echo "echo not root: the tests of make test-root were not run"; fi; \
	  printf 'target/tools/venv/bin/python %s\n' $(PYTHON_TESTS); } | xargs -P 4 -I SUITE sh -c \
	  'output=$$(SUITE 2>&1); code=$$?; printf "== SUITE\n%s\n" "$$output"; exit $$code'
	DEMO_PROFILE=dev ./dev demo --for 1s

# One line a check. Each is a test of `make test` too, there with fewer cases.
nightly: tools
	GSDK2MQTT_FUZZ_CASES=1000000 cargo test --locked --lib commands::request
	STORE_EVENTS=1000000 cargo test --locked --lib store::history_writer
	MODEL_SEEDS=5000 cargo test --locked --test model nothing_is_lost
	FAULT_KILLS=200 cargo test --locked --test it faults::chain -- --nocapture

# Every broker that can be installed here. Root on Debian gets all of them.
test-brokers: tools
	cargo build --locked
	sh tests/brokers/setup.sh
	target/tools/venv/bin/python tests/brokers/test_brokers.py --write

# A part of `make test` for root only.
test-root:
	cargo test --locked --test it faults::disk -- --ignored

# No part of `make test`: it needs root and keepalived, and takes six minutes.
test-failover:
	cargo build --locked
	python3 -B tests/deploy/failover.py

# No part of `make test`: it installs 1.6 GB, and needs root and Debian.
test-homeassistant: tools
	sh tests/homeassistant/setup.sh
	cargo test --locked --test it homeassistant -- --ignored --nocapture --test-threads 1

# paho and mosquitto are a part of `make test`; this one needs npm.
test-demo-clients:
	npm install --silent --no-audit --no-fund --prefix target/tools/demo-clients mqtt@^5.16
	cargo build --locked
	node tests/demo/mqttjs.test.mjs

# The client in Python is a part of `make test`; this one needs npm.
test-simulator-node:
	npm install --silent --no-audit --no-fund --prefix target/tools/simulator-client \
		@grpc/grpc-js@^1.14 @grpc/proto-loader@^0.8
	cargo build --locked
	node --test tests/simulator/client.test.mjs

# Node-RED 4, since 5 needs a newer Node.js than Debian has.
test-nodered: tools
	cargo build --locked
	npm install --prefix target/tools/node-red --no-audit --no-fund --silent node-red@^4.1
	target/tools/venv/bin/python tests/deploy/test_nodered.py

# Not part of `make test`: it sends requests to a running demo for some minutes.
test-openapi:
	cargo build --locked
	python3 -m venv target/tools/openapi
	target/tools/openapi/bin/pip install --quiet "schemathesis>=4.32,<5" "jsonata-python>=0.7"
	target/tools/openapi/bin/python tests/schema/test_openapi.py

test-package: rpm
	cargo build --locked
	install -D target/debug/gsdk2mqtt target/package/simulator
	cargo build --locked --no-default-features
	sh tests/deploy/package.sh target/debug/gsdk2mqtt target/package/simulator
	sh tests/deploy/rpm.sh target/packages/gsdk2mqtt-$(VERSION)-1.*.rpm

# No part of `make test`: it needs root and podman, takes fixed ports, and waits some minutes for an alert.
test-compose: tools
	cargo build --locked
	target/tools/venv/bin/python -B tests/deploy/compose.py
	target/tools/venv/bin/python -B tests/deploy/addon_image.py

# Half an hour on two cores: the program is built as for a release.
test-image:
	cargo build --locked
	python3 -B tests/deploy/container.py

test-page:
	@command -v chromium >/dev/null || { echo "chromium is missing; install it"; exit 1; }
	npm install --silent --no-audit --no-fund --prefix target/tools/page playwright-core@1 axe-core@4
	cargo build --locked
	node tests/page/page.test.mjs

test-schema: tools
	npm install --silent --no-audit --no-fund --prefix target/tools/asyncapi @asyncapi/specs@6
	cargo build --locked
	target/tools/venv/bin/python tests/schema/test_schema.py \
		target/tools/asyncapi/node_modules/@asyncapi/specs

# Unoptimized: eight doors need no speed, and it is built in a third of the time.
DEMO_PROFILE ?= demo
demo:
	cargo run --locked --profile $(DEMO_PROFILE) -- demo $(ARGS)

bench: tools
	cargo bench --locked --bench core -- --write
	cargo bench --locked --bench bridge -- --write

# No part of `make bench`: it needs npm.
bench-peers: tools
	npm install --silent --no-audit --no-fund --prefix target/tools/peers \
		@grpc/grpc-js@^1.14 @grpc/proto-loader@^0.8 mqtt@^5.16
	cargo bench --locked --bench bridge -- peers --write

advisories: tools
	cargo deny --locked check advisories

msrv:
	rustup toolchain install --profile minimal $(MSRV)
	cargo +$(MSRV) check --locked --all-targets

# What a release is made of; .github/workflows/release.yml calls these.
archive:
	@test -n "$(TARGET)" || { echo "name the target: make archive TARGET=x86_64-unknown-linux-musl"; exit 1; }
	python3 scripts/archive.py $(TARGET)

# One that is for another processor needs qemu-user-static.
test-archive:
	sh tests/deploy/archive.sh target/packages/gsdk2mqtt-$(VERSION)-$(TARGET).tar.gz

deb:
	cargo build --locked --profile dist --no-default-features
	sh deploy/debian/build.sh target/dist/gsdk2mqtt target/packages

# Static, so that it runs on distributions with an older glibc.
rpm: export RUSTFLAGS = -C target-feature=+crt-static
rpm:
	cargo build --locked --profile dist --no-default-features --target $(HOST)
	mkdir -p target/packages
	install -D target/$(HOST)/dist/gsdk2mqtt target/rpm/gsdk2mqtt
	target/rpm/gsdk2mqtt man --dir target/rpm/man
	for shell in bash fish zsh; do target/rpm/gsdk2mqtt completions $$shell >target/rpm/$$shell || exit; done
	RUSTFLAGS= cargo install --locked --debug --quiet --root target/tools cargo-generate-rpm --version "^0.21"
	cargo generate-rpm --output target/packages

IMAGE_OPTIONS = -f deploy/container/Containerfile --build-arg VERSION=$(VERSION) \
	--build-arg BUILD_COMMIT=$$(git rev-parse --short=12 HEAD)

image:
	docker build $(IMAGE_OPTIONS) -t $(IMAGE) .

# For all processors, in a file that skopeo copies to a registry.
images:
	mkdir -p target/packages
	docker buildx build $(IMAGE_OPTIONS) --platform linux/amd64,linux/arm64,linux/arm/v7 \
		--provenance=false --output type=oci,dest=target/packages/gsdk2mqtt-$(VERSION)-image.tar .

chart:
	helm package deploy/helm/gsdk2mqtt --destination target/packages

sbom:
	cargo install --locked --debug --quiet --root target/tools cargo-cyclonedx --version "^0.5"
	cargo cyclonedx --format json --all --override-filename gsdk2mqtt.cdx
	mkdir -p target/packages && mv gsdk2mqtt.cdx.json target/packages/

release-notes:
	@sh scripts/release-notes.sh $(TAG)
