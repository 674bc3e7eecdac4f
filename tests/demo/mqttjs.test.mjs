// mqtt.js against the broker of `gsdk2mqtt demo`: MQTT 3.1.1 and 5.
//
// Run: make test-demo-clients. Another broker: node mqttjs.test.mjs HOST:PORT.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { resolve } from "node:path";

const root = resolve(import.meta.dirname, "../..");
const require = createRequire(`${root}/target/tools/demo-clients/package.json`);
const mqtt = require("mqtt");
const DEADLINE_MS = 20_000;
const QUIET_MS = 500; // how long no message may arrive where none is expected

async function connect(url, protocolVersion, options = {}) {
  const client = await mqtt.connectAsync(url, {
    protocolVersion, reconnectPeriod: 0, connectTimeout: DEADLINE_MS, ...options,
  });
  const waiting = [];
  const received = [];
  client.on("message", (topic, payload, packet) => {
    const message = { topic, text: payload.toString(), packet };
    const reader = waiting.shift();
    if (reader) reader(message);
    else received.push(message);
  });
  client.next = () => new Promise((done, failed) => {
    if (received.length > 0) return done(received.shift());
    const late = setTimeout(() => failed(new Error("no message")), DEADLINE_MS);
    waiting.push((message) => { clearTimeout(late); done(message); });
  });
  client.nothing = async () => {
    await new Promise((done) => setTimeout(done, QUIET_MS));
    assert.deepEqual(received.map(({ topic }) => topic), []);
  };
  return client;
}

async function wildcardsAndQos(url, version, base) {
  const reader = await connect(url, version);
  const writer = await connect(url, version);
  const granted = await reader.subscribeAsync([`${base}/+/state`, `${base}/all/#`], { qos: 1 });
  assert.deepEqual(granted.map(({ qos }) => qos), [1, 1]);
  for (const qos of [0, 1, 2]) {
    for (const topic of [`${base}/a/state`, `${base}/all/b/c`]) {
      await writer.publishAsync(topic, `payload ${qos}`, { qos });
      const message = await reader.next();
      assert.equal(message.topic, topic);
      assert.equal(message.text, `payload ${qos}`);
      assert.equal(message.packet.qos, Math.min(qos, 1));
      assert.equal(message.packet.retain, false);
    }
  }
  await reader.unsubscribeAsync(`${base}/all/#`);
  await writer.publishAsync(`${base}/all/b`, "not subscribed", { qos: 1 });
  await reader.nothing();
  await Promise.all([reader.endAsync(), writer.endAsync()]);
}

async function retained(url, version, base) {
  const writer = await connect(url, version);
  const topics = Array.from({ length: 200 }, (_, number) => `${base}/kept/${number}`);
  await Promise.all(topics.map((topic) => writer.publishAsync(topic, "1", { qos: 1, retain: true })));
  const reader = await connect(url, version);
  await reader.subscribeAsync(`${base}/kept/+`, { qos: 1 });
  const seen = new Set();
  while (seen.size < topics.length) {
    const message = await reader.next();
    assert.ok(message.packet.retain);
    seen.add(message.topic);
  }
  assert.deepEqual([...seen].sort(), topics.sort());
  await Promise.all(topics.map((topic) => writer.publishAsync(topic, "", { qos: 1, retain: true })));
  const late = await connect(url, version);
  await late.subscribeAsync(`${base}/kept/+`, { qos: 1 });
  await late.nothing();
  await Promise.all([writer, reader, late].map((client) => client.endAsync()));
}

async function lastWill(url, version, base) {
  const reader = await connect(url, version);
  await reader.subscribeAsync(`${base}/will`, { qos: 1 });
  const will = { topic: `${base}/will`, payload: "offline", qos: 1, retain: false };
  const dead = await connect(url, version, { will });
  dead.stream.destroy();
  assert.equal((await reader.next()).text, "offline");
  const clean = await connect(url, version, { will });
  await clean.endAsync();
  await reader.nothing();
  await reader.endAsync();
}

async function responseTopic(url, base) {
  const [asking, answering] = [await connect(url, 5), await connect(url, 5)];
  await answering.subscribeAsync(`${base}/request/+`, { qos: 1 });
  await asking.subscribeAsync(`${base}/response`, { qos: 1 });
  const correlationData = Buffer.from([0, 255, 52, 50]);
  await asking.publishAsync(`${base}/request/devices`, "{}", {
    qos: 1, properties: { responseTopic: `${base}/response`, correlationData },
  });
  const { properties } = (await answering.next()).packet;
  await answering.publishAsync(properties.responseTopic, "answer", {
    qos: 1, properties: { correlationData: properties.correlationData },
  });
  const answer = await asking.next();
  assert.equal(answer.text, "answer");
  assert.deepEqual(answer.packet.properties.correlationData, correlationData);
  await Promise.all([asking.endAsync(), answering.endAsync()]);
}

async function bridgeAnswers(url) {
  const client = await connect(url, 5);
  await client.subscribeAsync("gsdk-reply/mqttjs", { qos: 1 });
  await client.publishAsync("gsdk/demo/request/devices", "{}", {
    qos: 1, properties: { responseTopic: "gsdk-reply/mqttjs" },
  });
  const answer = JSON.parse((await client.next()).text);
  assert.equal(answer.result, "ok");
  await client.endAsync();
}

async function check(url) {
  for (const [label, version] of [["3.1.1", 4], ["5", 5]]) {
    for (const test of [wildcardsAndQos, retained, lastWill]) {
      await test(url, version, `js${version}-${test.name}`);
      console.log(`ok  mqtt.js ${label}: ${test.name}`);
    }
  }
  await responseTopic(url, "js-responseTopic");
  console.log("ok  mqtt.js 5: responseTopic");
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}

if (process.argv[2]) {
  await check(`mqtt://${process.argv[2]}`);
} else {
  const port = await freePort();
  const program = process.env.BRIDGE ?? `${root}/target/debug/gsdk2mqtt`;
  const demo = spawn(program, ["demo", "--mqtt", `127.0.0.1:${port}`],
    { stdio: ["ignore", "pipe", "inherit"] });
  try {
    let printed = "";
    demo.stdout.setEncoding("utf8");
    while (!printed.includes("Ctrl-C")) printed += (await once(demo.stdout, "data"))[0];
    await check(`mqtt://127.0.0.1:${port}`);
    await bridgeAnswers(`mqtt://127.0.0.1:${port}`);
  } finally {
    demo.kill();
    demo.stdout.resume();
    await once(demo, "exit");
  }
  console.log("demo: mqtt.js can use its broker, with MQTT 3.1.1 and 5");
}
