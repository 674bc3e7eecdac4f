"""The brokers of the matrix: how each is set up, for which versions of MQTT, and how to get it."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/deploy"))
from programs import free_port, running, until  # noqa: E402

TOOLS = ROOT / "target/tools/brokers"
USER, PASSWORD = "gsdk2mqtt", "hunter2"
# A bridge that may not publish to this topic shows what the broker does about it.
FORBIDDEN = "gsdk/lobby/info"
SMALL = 2_000  # bytes, where a limit can be set


def output(*command, **options):
    return subprocess.check_output([str(word) for word in command], text=True,
                                   stderr=subprocess.STDOUT, **options)


class Broker:
    """A broker in a folder of its own; `with broker.up():` runs it, and again on the same port."""

    name = ""
    versions = ["3.1.1"]
    package = ""
    limited = True  # the largest packet can be set here
    restricted = True  # topics can be forbidden

    def __init__(self, folder, mqtt, secure=False, small=False):
        self.folder, self.mqtt, self.secure, self.small = folder, mqtt, secure, small
        folder.mkdir(parents=True)
        self.port, self.runs = free_port(), 0

    @classmethod
    def version(cls):
        raise NotImplementedError

    @contextlib.contextmanager
    def up(self):
        self.runs += 1
        log = self.folder / f"broker{self.runs}.log"
        with running(*self.command(), log=log, env={**os.environ, **self.environment()},
                     start_new_session=True) as program:
            until(f"{self.name} listens", lambda: self.is_up(log))
            try:
                yield program
            finally:
                # As `kill -9` does, and with what it has started.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(program.pid, signal.SIGKILL)
                program.wait()

    def environment(self):
        return {}

    def is_up(self, _):
        socket.create_connection(("127.0.0.1", self.port), 1).close()
        return True


class Mosquitto(Broker):
    name, versions, package = "mosquitto", ["5", "3.1.1"], "mosquitto (Debian)"

    @classmethod
    def version(cls):
        text = subprocess.run(["mosquitto", "-h"], capture_output=True, text=True, check=False)
        return text.stdout.split()[2]

    def command(self):
        lines = ["user root", "max_queued_messages 10000", f"listener {self.port} 127.0.0.1"]
        lines.append(f"allow_anonymous {'false' if self.secure else 'true'}")
        if self.secure:
            (self.folder / "users").touch()
            subprocess.check_call(["mosquitto_passwd", "-b", self.folder / "users", USER, PASSWORD])
            topics = "".join(f"topic readwrite {topic}\n" for topic in ("gsdk/#", "gsdk-reply/#"))
            (self.folder / "acl").write_text(f"user {USER}\n{topics}topic deny {FORBIDDEN}\n")
            lines += [f"password_file {self.folder}/users", f"acl_file {self.folder}/acl"]
        if self.small:
            lines.append(f"max_packet_size {SMALL}")
        (self.folder / "conf").write_text("\n".join(lines) + "\n")
        return ["mosquitto", "-c", self.folder / "conf"]


class RabbitMQ(Broker):
    name, package = "RabbitMQ", "rabbitmq-server (Debian)"
    limited = False
    home = pathlib.Path("/usr/lib/rabbitmq/bin")

    @classmethod
    def version(cls):
        text = output("dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server")
        return text.split("-")[0]

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.amqp, self.epmd = free_port(), free_port()

    def environment(self):
        folder = str(self.folder)
        return {"HOME": folder, "RABBITMQ_NODENAME": f"gsdk{self.port}@localhost",
                "RABBITMQ_MNESIA_BASE": folder, "RABBITMQ_LOG_BASE": folder,
                "RABBITMQ_LOGS": "-", "RABBITMQ_NODE_PORT": str(self.amqp),
                "RABBITMQ_DIST_PORT": str(free_port()), "ERL_EPMD_PORT": str(self.epmd),
                "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
                "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
                "RABBITMQ_PID_FILE": f"{folder}/pid", "ERL_EPMD_ADDRESS": "127.0.0.1"}

    def is_up(self, log):
        # It listens before it answers.
        return "Server startup complete" in log.read_text() and super().is_up(log)

    def command(self):
        (self.folder / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")
        topics = {"user": USER, "vhost": "/", "exchange": "amq.topic", "read": ".*",
                  "write": r"^gsdk(-reply)?\.(?!lobby\.info$).*"}
        everything = {"user": USER, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
        (self.folder / "definitions.json").write_text(json.dumps({
            "users": [{"name": USER, "password": PASSWORD, "tags": ""}], "vhosts": [{"name": "/"}],
            "permissions": [everything],
            "topic_permissions": [topics] if self.secure else []}))
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.amqp}\nloopback_users = none\n"
            f"mqtt.listeners.tcp.default = 127.0.0.1:{self.port}\n"
            f"mqtt.allow_anonymous = {'false' if self.secure else 'true'}\n"
            f"mqtt.default_user = {USER}\nmqtt.default_pass = {PASSWORD}\n"
            "mqtt.retained_message_store = rabbit_mqtt_retained_msg_store_dets\n"
            f"load_definitions = {self.folder}/definitions.json\n")
        return [self.home / "rabbitmq-server"]

    @contextlib.contextmanager
    def up(self):
        # Otherwise the node starts one as a daemon, which would remain.
        epmd = ["epmd", "-port", self.epmd, "-address", "127.0.0.1"]
        with running(*epmd, log=self.folder / "epmd.log"), super().up() as program:
            yield program


class Nats(Broker):
    name, package = "NATS", "nats-server (Debian)"
    limited = False

    @classmethod
    def version(cls):
        return output("nats-server", "--version").split()[-1].lstrip("v")

    def command(self):
        users = ""
        if self.secure:
            denied = FORBIDDEN.replace("/", ".")
            users = (f'authorization {{ users: [{{ user: {USER}, password: {PASSWORD}, permissions: '
                     f'{{ publish: {{ allow: [">"], deny: ["{denied}"] }}, subscribe: [">"] }} }}] }}\n')
        (self.folder / "conf").write_text(
            f'server_name: gsdk\nlisten: "127.0.0.1:{free_port()}"\n'
            f'jetstream {{ store_dir: "{self.folder}/store" }}\n'
            f'mqtt {{ host: "127.0.0.1", port: {self.port} }}\n{users}')
        return ["nats-server", "-c", self.folder / "conf"]


class Aedes(Broker):
    name, package = "aedes", "aedes (npm)"
    limited = False

    @classmethod
    def version(cls):
        return json.loads((TOOLS / "node_modules/aedes/package.json").read_text())["version"]

    def command(self):
        # Modules are looked for beside the file.
        script = TOOLS / f"aedes-{self.port}.mjs"
        script.write_text(f"""
import {{ Aedes }} from 'aedes'
import {{ createServer }} from 'node:net'
const secure = {json.dumps(self.secure)}
const broker = await Aedes.createBroker({{
  authenticate: (client, user, password, done) =>
    done(null, !secure || (user === '{USER}' && String(password) === '{PASSWORD}')),
  authorizePublish: (client, packet, done) =>
    done(secure && packet.topic === '{FORBIDDEN}' ? new Error('not authorized') : null)
}})
createServer(broker.handle).listen({self.port}, '127.0.0.1')
""")
        return ["node", script]


class Amqtt(Broker):
    name, package = "amqtt", "amqtt (PyPI)"
    limited = False

    @classmethod
    def version(cls):
        return output(TOOLS / "venv/bin/pip", "show", "amqtt").split("Version: ")[1].split()[0]

    def command(self):
        plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        if self.secure:
            hashed = output(TOOLS / "venv/bin/python", "-c",
                            "import sys; from pwdlib.hashers.argon2 import Argon2Hasher; "
                            "print(Argon2Hasher().hash(sys.argv[1]))", PASSWORD).split()[-1]
            (self.folder / "users").write_text(f"{USER}:{hashed}\n")
            plugins = {"amqtt.plugins.authentication.FileAuthPlugin": {
                "password_file": str(self.folder / "users")}}
            allowed = {USER: ["gsdk/bridge/#", "gsdk/lobby/state", "gsdk/lobby/+/#",
                              "gsdk/lobby/response/#", "gsdk-reply/#"]}
            plugins["amqtt.plugins.topic_checking.TopicAccessControlListPlugin"] = {
                "acl": {USER: ["#"]}, "publish_acl": allowed}
        # JSON is YAML.
        (self.folder / "conf.yaml").write_text(json.dumps({
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}},
            "plugins": plugins}))
        return [TOOLS / "venv/bin/amqtt", "-c", self.folder / "conf.yaml"]


class Rumqttd(Broker):
    name, versions, package = "rumqttd", ["5", "3.1.1"], "rumqttd (crates.io)"
    restricted = False
    program = ROOT / "target/tools/bin/rumqttd"

    @classmethod
    def version(cls):
        return output(cls.program, "--version").split()[-1]

    def command(self):
        lines = ["id = 0", "[router]", "id = 0", "max_connections = 100", "max_segment_size = 104857600",
                 "max_outgoing_packet_count = 200", "max_segment_count = 10"]
        # Each listener has one version.
        for version, mqtt in (("v4", "3.1.1"), ("v5", "5")):
            port = self.port if mqtt == self.mqtt else free_port()
            lines += [f"[{version}.1]", f'name = "{version}"', f'listen = "127.0.0.1:{port}"',
                      "next_connection_delay_ms = 1", f"[{version}.1.connections]",
                      "connection_timeout_ms = 60000", "max_inflight_count = 100", "dynamic_filters = true",
                      f"max_payload_size = {SMALL if self.small else 1 << 20}"]
            if self.secure:
                lines += [f"[{version}.1.connections.auth]", f'{USER} = "{PASSWORD}"']
        (self.folder / "conf.toml").write_text("\n".join(lines) + "\n")
        return [self.program, "-c", self.folder / "conf.toml"]


ALL = [Mosquitto, RabbitMQ, Nats, Aedes, Amqtt, Rumqttd]


def missing(kind):
    """Why this broker cannot be run here, or nothing."""
    program = {"mosquitto": "mosquitto", "RabbitMQ": RabbitMQ.home / "rabbitmq-server",
               "NATS": "nats-server", "aedes": TOOLS / "node_modules/aedes/package.json",
               "amqtt": TOOLS / "venv/bin/amqtt", "rumqttd": Rumqttd.program}[kind.name]
    found = pathlib.Path(program).exists() if "/" in str(program) else shutil.which(program)
    return None if found else f"{kind.package} is not installed"
