// What all pages share: times in the reader's zone, durations that grow, and parts that are replaced.
"use strict";

function span(seconds) {
  const two = (unit, per, sub) =>
    `${Math.floor(seconds / unit)} ${per}` +
    (sub && Math.floor((seconds % unit) / sub[0]) ? ` ${Math.floor((seconds % unit) / sub[0])} ${sub[1]}` : "");
  if (seconds < 1) return "a moment";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return two(60, "min");
  if (seconds < 86400) return two(3600, "h", [60, "min"]);
  return two(86400, "d", [3600, "h"]);
}

function showTimes() {
  for (const time of document.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    if (time.className === "since") time.textContent = `for ${span((Date.now() - at) / 1000)}`;
    else time.textContent = at.toLocaleString();
    time.title = at.toLocaleString();
  }
}

// Replaces what is in a part of the page. Open details stay open, and the focus stays where it is.
function replaceParts(part, nodes) {
  const name = (element) => element.id || element.getAttribute("href");
  const open = [...part.querySelectorAll("details[open]")].map(name);
  const focused = part.contains(document.activeElement) && name(document.activeElement);
  part.replaceChildren(...nodes);
  for (const details of part.querySelectorAll("details")) details.open = open.includes(name(details));
  if (!focused) return;
  const same = [...part.querySelectorAll("[id], a")].find((element) => name(element) === focused);
  same?.focus({ preventScroll: true });
}

// Whether the page is live, and if not, since when.
function showLive(isLive) {
  const live = document.querySelector("#live");
  if (isLive) live.textContent = "live";
  else if (live.className !== "off") {
    live.textContent = `not live since ${new Date().toLocaleTimeString()}: the bridge does not answer`;
  }
  live.className = isLive ? "on" : "off";
}

// Follows the updates of the service; `listen` begins again.
function follow(address, listen) {
  const source = new EventSource(address);
  let openedAt = 0;
  source.onopen = () => { openedAt = Date.now(); };
  source.addEventListener("hello", () => {
    // It is sent at once. Held back by a proxy, all that follows would be late, too.
    if (Date.now() - openedAt > 5000) return source.close();
    showLive(true);
    refresh();
  });
  source.onerror = () => {
    showLive(false);
    // After a refusal the browser does not connect again by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  };
  return source;
}

// A proxy may hold updates back, as Home Assistant's ingress does by compressing them. The page is then loaded at
// intervals, by its own `refresh`.
setInterval(async () => {
  const live = document.querySelector("#live");
  if (live.className === "on" || document.hidden || !(await refresh())) return;
  if (live.className === "on" || live.className === "slow") return;
  live.className = "slow";
  live.textContent = "updated every 10 s";
}, 10_000);
showTimes();
setInterval(showTimes, 1000);
