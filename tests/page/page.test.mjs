// The status page in headless Chromium, beside the demo: `make test-page`. Screenshots go to
// target/page, to be looked at.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRequire } from "node:module";
import { createDeflate } from "node:zlib";

const require = createRequire(join(process.cwd(), "target/tools/page/"));
const { chromium } = require("playwright-core");
const axe = require("axe-core");

const PROGRAM = process.argv[2] ?? "target/debug/gsdk2mqtt";
const SHOTS = "target/page";
const PATIENCE_MS = 60_000;
const EVIL = `<img src=x onerror=alert(1)> "quoted" 🚪 ${"long ".repeat(6)}`;

// What is started is ended, whatever happens.
const ends = [];

function start(args) {
  const child = spawn(PROGRAM, args, { stdio: ["ignore", "pipe", "inherit"] });
  ends.push(async () => {
    if (child.exitCode !== null) return;
    child.kill("SIGTERM");
    await new Promise((resolve) => child.on("exit", resolve));
  });
  return child;
}

// Waits for a line of its output that holds this, and gives what was matched.
function says(child, pattern) {
  return new Promise((resolve, reject) => {
    let text = "";
    child.stdout.on("data", (data) => {
      text += data;
      const found = text.match(pattern);
      if (found) resolve(found);
    });
    child.on("exit", () => reject(new Error(`it ended: ${text}`)));
  });
}

const dir = mkdtempSync(join(tmpdir(), "page-"));
ends.push(() => rmSync(dir, { recursive: true, force: true }));

async function main() {
  mkdirSync(SHOTS, { recursive: true });
  const simulator = start(["simulate", "--manage", "--devices", "12", "--listen", "127.0.0.1:0",
    "--control", "127.0.0.1:0", "--certs", join(dir, "certs"), "--reconnect-interval", "1",
    "--dial-interval", "1", "--keep-alive", "1"]);
  const [, gateway, ids, control] = await says(
    simulator, /gateway on (\S+) [\s\S]*first few:\n([\s\S]*?)faults on demand: curl (\S+)\//);
  const devices = [...ids.matchAll(/^ {2}(\d+) /gm)].map((match) => match[1]);
  const fault = (body) =>
    fetch(`${control}/fault`, { method: "POST", body: JSON.stringify(body) }).then((answer) => {
      assert.ok(answer.ok, `fault ${JSON.stringify(body)}: ${answer.status}`);
    });

  // No broker: that this is told belongs to the page.
  const http = 20_000 + Math.floor(Math.random() * 10_000);
  const startBridge = () => start(["run", "--set", `state_dir=${join(dir, "state")}`,
    "--set", `http.listen=127.0.0.1:${http}`, "--set", "mqtt.url=mqtt://127.0.0.1:1",
    "--set", `gateways.lobby.address=${gateway}`,
    "--set", `gateways.lobby.ca_file=${join(dir, "certs/ca.crt")}`,
    "--set", `gateways.lobby.devices.${devices[1]}.name=${EVIL.slice(0, 60)}`,
    "--set", `gateways.lobby.devices.${devices[0]}.name=Front door`]);
  const bridge = startBridge();
  bridge.stdout.resume();
  const url = `http://127.0.0.1:${http}/`;
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    const text = await fetch(url).then((answer) => answer.text()).catch(() => "");
    if (/12 of 12 connected/.test(text)) break;
    assert.ok(Date.now() < until, `not all are connected: ${text}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }

  const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  ends.push(() => browser.close());
  const complaints = [];
  async function open(options, path = "") {
    const context = await browser.newContext({ viewport: { width: 1100, height: 900 }, ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) complaints.push(message.text());
    });
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("dialog", (dialog) => complaints.push(`a dialog: ${dialog.message()}`));
    page.on("request", (request) => {
      if (!request.url().startsWith(url)) complaints.push(`asked for ${request.url()}`);
    });
    await page.goto(url + path);
    return page;
  }

  // Live: no reload between here and the end.
  const page = await open({ colorScheme: "light" });
  await page.locator("#live.on").waitFor();
  await page.evaluate(() => { window.sameAsBefore = true; });
  const row = page.locator(`#d-lobby-${devices[0]}`);
  await page.locator(`#d-lobby-${devices[0]}.up`).waitFor();
  await fault({ do: "power_off", devices: [Number(devices[0])] });
  await page.locator(`#d-lobby-${devices[0]}.down`).waitFor();
  assert.equal(await page.locator("tbody tr[id]").first().getAttribute("id"), `d-lobby-${devices[0]}`);
  await row.filter({ hasText: /for \d+ s/ }).waitFor();
  assert.match(await row.innerText(), /Front door[\s\S]*not connected[\s\S]*for \d+ s/);
  await page.locator("#overview .doors li", { hasText: "Front door" }).waitFor();
  await page.locator(`#d-lobby-${devices[0]} rect.down`).first().waitFor({ state: "attached" });
  await page.locator("#events li", { hasText: "Front door" }).first().waitFor();
  await page.locator(".counts .down b", { hasText: "1" }).waitFor();
  assert.equal(await page.evaluate(() => window.sameAsBefore), true, "the page was reloaded");
  // What is no markup of ours is text.
  assert.match(await page.locator(`#d-lobby-${devices[1]} .name`).innerText(), /^<img src=x/);
  await page.waitForTimeout(2600);
  await page.screenshot({ path: `${SHOTS}/light.png`, fullPage: true });

  // The filter, as it is typed and as an address.
  await page.locator("input[name=q]").fill("front");
  await page.waitForFunction(() =>
    [...document.querySelectorAll("tbody tr[id]")].filter((it) => !it.hidden).length === 1);
  await page.waitForFunction(() => location.search === "?q=front");
  await page.locator("input[name=q]").fill("");
  await page.locator("select[name=show]").selectOption("up");
  await page.waitForFunction(() =>
    document.querySelectorAll("tbody tr.up").length === 11 &&
    document.querySelectorAll("tbody tr[id]:not([hidden])").length === 11);
  await fault({ do: "power_on", devices: [Number(devices[0])] });
  await page.locator(`#d-lobby-${devices[0]}.up`).waitFor();
  assert.equal(await page.evaluate(() => window.sameAsBefore), true, "the page was reloaded");

  await overtaken(open, devices[0], fault);
  await undisturbed(open, devices[0], devices[3], fault);

  await fault({ do: "power_off", devices: [Number(devices[2])] });
  const dark = await open({ colorScheme: "dark" });
  await dark.locator(`#d-lobby-${devices[2]}.down`).waitFor();
  await dark.waitForTimeout(2600);
  await dark.screenshot({ path: `${SHOTS}/dark.png`, fullPage: true });
  const paths = {
    list: "", month: "?range=30d", device: `devices/lobby/${devices[2]}`, gateway: "gateways/lobby",
  };
  for (const [name, path] of Object.entries(paths)) {
    for (const colorScheme of ["light", "dark"]) {
      const view = await open({ colorScheme }, path);
      await view.locator("#live.on").waitFor();
      for (const width of [360, 800, 1400]) {
        await view.setViewportSize({ width, height: 900 });
        const wide = await view.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= width, `${name} is ${wide} pixels wide at ${width}`);
        await view.screenshot({ path: `${SHOTS}/${name}-${colorScheme}-${width}.png`, fullPage: true });
        complaints.push(...await accessibility(view, `${name}, ${colorScheme}, ${width}`));
      }
      await view.context().close();
    }
  }

  await framed(http, browser, devices[2], fault);

  // Without script it is whole.
  const plain = await open({ javaScriptEnabled: false }, "?show=down");
  assert.equal(await plain.locator("tbody tr[id]").count(), 1);
  await plain.screenshot({ path: `${SHOTS}/without-script.png`, fullPage: true });

  assert.deepEqual(complaints, []);

  // A bridge that stops and starts again, without a reload.
  const ended = new Promise((resolve) => bridge.on("exit", resolve));
  bridge.kill("SIGTERM");
  const live = page.locator("#live");
  await live.filter({ hasText: /^not live since \d.*: the bridge does not answer$/ }).waitFor();
  await ended;
  startBridge().stdout.resume();
  await live.filter({ hasText: /^live$/ }).waitFor();
  assert.equal(await page.evaluate(() => window.sameAsBefore), true, "the page was reloaded");
}

// A page that was asked for before a change and arrives after it does not bring back the old state.
async function overtaken(open, device, fault) {
  const page = await open({ colorScheme: "light" });
  const row = `#d-lobby-${device}`;
  await page.locator(`${row}.up`).waitFor();
  await page.locator("#live.on").waitFor();
  // A page that has just been opened loads itself again.
  await page.waitForTimeout(4000);
  await page.route("**/", async (route) => {
    const response = await route.fetch();
    await fault({ do: "power_off", devices: [Number(device)] });
    await page.locator(`${row}.down`).waitFor();
    await route.fulfill({ response });
  }, { times: 1 });
  assert.equal(await page.evaluate(() => refresh()), undefined, "the old answer was taken");
  assert.equal(await page.locator(`${row}.down`).count(), 1, "the row is older than the change");
  await fault({ do: "power_on", devices: [Number(device)] });
  await page.locator(`${row}.up`).waitFor();
  await page.context().close();
}

// A change of one device leaves alone what is the same: selection, focus, details, and what the pointer is on.
async function undisturbed(open, device, other, fault) {
  const page = await open({ colorScheme: "light" });
  await page.locator("#live.on").waitFor();
  await page.evaluate((id) => {
    window.kept = document.getElementById(id);
    kept.querySelector("a").focus();
    getSelection().selectAllChildren(kept.querySelector("th .sub"));
    window.selected = getSelection().toString();
    window.cell = kept.querySelector("title").closest("g");
  }, `d-lobby-${other}`);
  for (const [action, state] of [["power_off", "down"], ["power_on", "up"]]) {
    await fault({ do: action, devices: [Number(device)] });
    await page.locator(`#d-lobby-${device}.${state}.fresh`).waitFor();
    const seen = await page.evaluate(() => [
      kept.isConnected && cell.isConnected,
      kept.contains(document.activeElement),
      selected.length > 0 && getSelection().toString() === selected,
    ]);
    assert.deepEqual(seen, [true, true, true], `after ${action}: same elements, focus, selection`);
  }
  await page.context().close();
}

// What axe finds: contrast, names, headings, landmarks.
async function accessibility(page, where) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => window.axe.run());
  return violations.flatMap(({ id, help, nodes }) =>
    nodes.map(({ html }) => `${where}: ${id}: ${help}: ${html.slice(0, 200)}`));
}

// As Home Assistant's ingress shows it: behind a path, in a frame of the same origin. Nobody else may. It
// compresses a stream of events, which holds them back.
async function framed(http, browser, device, fault) {
  const prefix = "/api/hassio_ingress/token/";
  const front = createServer((asked, answer) => {
    if (!asked.url.startsWith(prefix)) {
      answer.setHeader("content-type", "text/html");
      answer.end(`<iframe src="http://127.0.0.1:${front.address().port}${prefix}"></iframe>`);
      return;
    }
    const path = asked.url.slice(prefix.length - 1);
    const passed = request({ port: http, path, headers: asked.headers }, (theirs) => {
      const isStream = theirs.headers["content-type"]?.startsWith("text/event-stream");
      answer.writeHead(theirs.statusCode, { ...theirs.headers, ...(isStream && { "content-encoding": "deflate" }) });
      (isStream ? theirs.pipe(createDeflate()) : theirs).pipe(answer);
      answer.flushHeaders();
    });
    passed.on("error", () => answer.destroy());
    answer.on("close", () => passed.destroy());
    passed.end();
  });
  await new Promise((resolve) => front.listen(0, "127.0.0.1", resolve));
  ends.push(() => front.close());
  const port = front.address().port;
  const context = await browser.newContext();
  const same = await context.newPage();
  await same.goto(`http://127.0.0.1:${port}/`);
  const inner = same.frameLocator("iframe");
  await inner.locator(`#d-lobby-${device}.down`).waitFor();
  await inner.locator("#live.slow", { hasText: "updated every 10 s" }).waitFor({ timeout: PATIENCE_MS });
  await fault({ do: "power_on", devices: [Number(device)] });
  await inner.locator(`#d-lobby-${device}.up`).waitFor({ timeout: PATIENCE_MS });
  await fault({ do: "power_off", devices: [Number(device)] });
  await inner.locator(`#d-lobby-${device}.down`).waitFor({ timeout: PATIENCE_MS });
  const other = await context.newPage();
  const refused = other.waitForEvent("console", {
    predicate: (message) => /frame-ancestors/.test(message.text()), timeout: PATIENCE_MS,
  });
  await other.goto(`http://localhost:${port}/`);
  await refused;
}

let failed = null;
try {
  await main();
} catch (error) {
  failed = error;
}
for (const end of ends.reverse()) await end();
if (failed) {
  console.error(failed);
  process.exit(1);
}
console.log(`the page is well; look at ${SHOTS}/*.png`);
