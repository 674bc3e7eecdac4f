"""A bridge from a gateway's status stream to MQTT, as a user of Python writes it.

grpcio and paho-mqtt, a retained state and an event for each change, QoS 1. No disk: what waits is
lost with the process.

target/tools/venv/bin/python benches/peers/bridge.py GATEWAY CA_FILE MQTT_PORT
Prints `ready` once it reads.
"""

import datetime
import json
import pathlib
import sys
import tempfile

import grpc
import paho.mqtt.client as mqtt
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
QUEUE_SIZE = 1 << 20  # changes that wait in the gateway
IN_FLIGHT_MAX = 1_000
STATUSES = {0: "disconnected", 1: "tcp_connected", 2: "tls_connected"}


def stubs():
    """The modules made from proto/."""
    with tempfile.TemporaryDirectory(prefix="gsdk-peer-") as folder:
        arguments = ["-I%s" % PROTO, "--python_out=" + folder, "--grpc_python_out=" + folder]
        names = ("connect.proto", "device.proto", "err.proto")
        files = [str(PROTO / "gsdk" / name) for name in names]
        assert protoc.main(["protoc", *arguments, *files]) == 0
        sys.path.insert(0, folder)
        from gsdk import connect_pb2, connect_pb2_grpc

        return connect_pb2, connect_pb2_grpc


def main(gateway, ca_file, port):
    messages, services = stubs()
    credentials = grpc.ssl_channel_credentials(pathlib.Path(ca_file).read_bytes())
    connect = services.ConnectStub(grpc.secure_channel(gateway, credentials))
    broker = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="peer_python")
    broker.max_inflight_messages_set(IN_FLIGHT_MAX)
    broker.connect("127.0.0.1", int(port))
    broker.loop_start()

    listed = connect.GetDeviceList(messages.GetDeviceListRequest()).deviceInfos
    addresses = {device.deviceID: device.IPAddr for device in listed}
    sequences = dict.fromkeys(addresses, 0)
    changes = connect.SubscribeStatus(messages.SubscribeStatusRequest(queueSize=QUEUE_SIZE))
    changes.initial_metadata()
    print("ready", flush=True)
    for change in changes:
        device_id, code = change.deviceID, change.status
        sequences[device_id] = sequences.get(device_id, 0) + 1
        name = STATUSES.get(code, "code_%d" % code)
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        payload = {
            "gateway": "lobby",
            "device_id": device_id,
            "ip": addresses.get(device_id, ""),
            "status": name,
            "status_code": code,
            "connected": code in (1, 2),
            "seq": sequences[device_id],
            "device_at": change.timestamp,
            "at": now,
        }
        state = json.dumps(payload | {"since": now})
        broker.publish("gsdk/lobby/%d/state" % device_id, state, qos=1, retain=True)
        event = json.dumps(payload | {"event_type": name})
        broker.publish("gsdk/lobby/%d/event/%s" % (device_id, name), event, qos=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
