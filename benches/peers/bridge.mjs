// A bridge from a gateway's status stream to MQTT, as a user of Node.js writes it: the official
// gRPC library and MQTT.js, a retained state and an event for each change, QoS 1. No disk: what
// waits is lost with the process.
//
// node benches/peers/bridge.mjs GATEWAY CA_FILE MQTT_PORT; prints `ready` once it reads.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { promisify } from "node:util";

const root = resolve(import.meta.dirname, "../..");
const require = createRequire(`${root}/target/tools/peers/package.json`);
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const mqtt = require("mqtt");

const QUEUE_SIZE = 1 << 20; // changes that wait in the gateway
const STATUSES = ["disconnected", "tcp_connected", "tls_connected"];

const [gateway, caFile, port] = process.argv.slice(2);
const definition = loader.loadSync("gsdk/connect.proto", {
  keepCase: true, includeDirs: [`${root}/proto`], defaults: true, enums: Number,
});
const { Connect } = grpc.loadPackageDefinition(definition).gsdk.connect;
const connect = new Connect(gateway, grpc.credentials.createSsl(readFileSync(caFile)));
const broker = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { clientId: "peer_node" });

const { deviceInfos } = await promisify(connect.GetDeviceList).call(connect, {});
const devices = new Map(deviceInfos.map((it) => [it.deviceID, { ip: it.IPAddr, seq: 0 }]));

const changes = connect.SubscribeStatus({ queueSize: QUEUE_SIZE });
changes.on("error", (error) => { throw error; });
changes.on("metadata", () => console.log("ready"));
changes.on("data", ({ deviceID, status, timestamp }) => {
  const device = devices.get(deviceID) ?? { ip: "", seq: 0 };
  devices.set(deviceID, device);
  device.seq += 1;
  const name = STATUSES[status] ?? `code_${status}`;
  const connected = status === 1 || status === 2;
  const common = {
    gateway: "lobby", device_id: deviceID, ip: device.ip, status: name, status_code: status,
    connected, seq: device.seq, device_at: timestamp, at: new Date().toISOString(),
  };
  const state = JSON.stringify({ ...common, since: common.at });
  broker.publish(`gsdk/lobby/${deviceID}/state`, state, { qos: 1, retain: true });
  const event = JSON.stringify({ ...common, event_type: name });
  broker.publish(`gsdk/lobby/${deviceID}/event/${name}`, event, { qos: 1 });
});
