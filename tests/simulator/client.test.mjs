// The first session of a G-SDK client in Node against `gsdk2mqtt simulate`, with both API packages.
//
// Run: make test-simulator-node. The program is target/debug/gsdk2mqtt, or what GSDK2MQTT_BIN names.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { after, test } from "node:test";

const root = resolve(import.meta.dirname, "../..");
const require = createRequire(`${root}/target/tools/simulator-client/package.json`);
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const DEADLINE_MS = 20_000;
const TCP_CONNECTED = 1;
const TLS_CONNECTED = 2;
const LOG_TCP_CONNECTED = 0x3b00;

const work = mkdtempSync(join(tmpdir(), "gsdk-simulator-"));
after(() => rmSync(work, { recursive: true }));

/** The definitions with the names of V1.5, or without `gsdk.` as in V1.4. */
function definitions(prefix) {
  const folder = join(work, prefix ? "newer" : "older");
  cpSync(join(root, "proto"), folder, { recursive: true });
  for (const name of readdirSync(join(folder, "gsdk"))) {
    const path = join(folder, "gsdk", name);
    writeFileSync(path, readFileSync(path, "utf8").replaceAll(/\bgsdk\./g, prefix));
  }
  const files = ["connect", "device", "event", "login", "gateway"].map((it) => `gsdk/${it}.proto`);
  const options = { keepCase: true, includeDirs: [folder], defaults: true, enums: Number };
  const loaded = grpc.loadPackageDefinition(loader.loadSync(files, options));
  return prefix ? loaded.gsdk : loaded;
}

async function simulate(...args) {
  const certs = mkdtempSync(join(work, "certs-"));
  const program = process.env.GSDK2MQTT_BIN ?? join(root, "target/debug/gsdk2mqtt");
  const common = ["simulate", "--listen", "127.0.0.1:0", "--certs", certs];
  const child = spawn(program, [...common, "--dial-interval", "0.5", ...args]);
  const [line] = await once(createInterface({ input: child.stdout }), "line");
  const file = (name) => readFileSync(join(certs, name));
  const stop = async () => { child.kill(); await once(child, "exit"); };
  return { address: line.match(/ on (\S+)/)[1], file, stop };
}

/** A client whose calls return promises, and whose streams can be waited for. */
function client(Service, address, credentials, metadata = new grpc.Metadata()) {
  const inner = new Service(address, credentials);
  const call = (method, request = {}) => new Promise((done, failed) => {
    const deadline = Date.now() + DEADLINE_MS;
    inner[method](request, metadata, { deadline }, (error, answer) => {
      if (error) failed(error); else done(answer);
    });
  });
  const stream = (method, request) => {
    const changes = inner[method](request, metadata);
    changes.on("error", () => {}); // it is cancelled
    const seen = (fits) => new Promise((done, failed) => {
      const late = setTimeout(() => failed(new Error("never seen")), DEADLINE_MS);
      changes.on("data", (change) => {
        if (fits(change)) { clearTimeout(late); done(change); }
      });
    });
    return { seen, cancel: () => changes.cancel() };
  };
  return { call, stream, close: () => inner.close() };
}

for (const prefix of ["gsdk.", ""]) {
  test(`a first session, package ${prefix}connect`, async () => {
    const gateway = await simulate();
    try {
      const { connect, device, event } = definitions(prefix);
      const credentials = grpc.credentials.createSsl(gateway.file("ca.crt"));
      const connections = client(connect.Connect, gateway.address, credentials);
      const devices = client(device.Device, gateway.address, credentials);
      const events = client(event.Event, gateway.address, credentials);
      const { deviceInfos: found } = await connections.call("SearchDevice", { timeout: 1500 });
      assert.equal(found.length, 20);
      const plain = found.find((it) => !it.useSSL && it.connectionMode === 0);
      const statuses = connections.stream("SubscribeStatus", { queueSize: 128 });
      const logs = events.stream("SubscribeRealtimeLog", { queueSize: 128 });
      const connected = statuses.seen((it) => it.deviceID === plain.deviceID);
      const connectInfo = { IPAddr: plain.IPAddr, port: plain.port, useSSL: false };
      const { deviceID } = await connections.call("Connect", { connectInfo });
      assert.equal(deviceID, plain.deviceID);
      assert.equal((await connected).status, TCP_CONNECTED);

      const { info } = await devices.call("GetInfo", { deviceID });
      assert.match(info.MACAddr, /^00:17:fc/);
      assert.ok(info.modelName && info.firmwareVersion);
      const { capInfo } = await devices.call("GetCapabilityInfo", { deviceID });
      assert.equal(capInfo.type, plain.type);
      await events.call("EnableMonitoring", { deviceID });

      const { deviceInfos: pending } = await connections.call("GetPendingList");
      const ids = pending.map((it) => it.deviceID);
      const accepted = statuses.seen((it) => ids.includes(it.deviceID)
        && [TCP_CONNECTED, TLS_CONNECTED].includes(it.status));
      await connections.call("SetAcceptFilter", { filter: { allowAll: true } });
      await accepted;

      const logged = logs.seen((it) => it.deviceID === deviceID);
      await connections.call("EnableSSL", { deviceID });
      connectInfo.useSSL = true;
      await connections.call("Connect", { connectInfo });
      assert.equal((await logged).eventCode, LOG_TCP_CONNECTED);
      const dialled = statuses.seen((it) => it.deviceID === deviceID
        && it.status === TLS_CONNECTED);
      await connections.call("SetConnectionMode", { deviceID, connectionMode: 1 });
      await dialled;
      await connections.call("DisconnectAll");
      statuses.cancel();
      logs.cancel();
      [connections, devices, events].forEach((it) => it.close());
    } finally {
      await gateway.stop();
    }
  });
}

test("a first session through a master", async () => {
  const master = await simulate("--gateways", "2", "--devices", "3");
  try {
    const { login, gateway } = definitions("gsdk.");
    const [ca, key, tenant] = ["ca.crt", "tenant.key", "tenant.crt"].map(master.file);
    const credentials = grpc.credentials.createSsl(ca, key, tenant);
    const logins = client(login.Login, master.address, credentials);
    const { jwtToken } = await logins.call("Login", { tenantCert: tenant.toString() });
    const metadata = new grpc.Metadata();
    metadata.set("token", jwtToken);
    const gateways = client(gateway.Gateway, master.address, credentials, metadata);
    assert.deepEqual((await gateways.call("GetList")).gatewayIDs, ["gateway1", "gateway2"]);
    [logins, gateways].forEach((it) => it.close());
  } finally {
    await master.stop();
  }
});
