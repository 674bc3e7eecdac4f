// Keeps the pages up to date. Without script a page is complete as of when it was loaded.
"use strict";

// The page is loaded again at most this often, and less often if the bridge answers slowly. A changed row is marked
// until then.
const REST_MS = 2000;
const REST_MAX_MS = 10_000;
// Each browser waits for a random time first, so that not all load the page at once.
const SPREAD_MS = 500;
// Longer than the bridge needs for any answer.
const ANSWER_MS = 20_000;
const find = (selector) => document.querySelector(selector);
const live = find("#live");
const form = find("form");
const rows = (part = document) => [...part.querySelectorAll("tr[id]")];
const condition = (row) => row.classList.item(0);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

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

// Times in the reader's zone, and durations that grow.
function showTimes(page = document) {
  for (const time of page.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    time.title = at.toLocaleString();
    const text = time.className === "since" ? `for ${span((Date.now() - at) / 1000)}` : time.title;
    // The same text again would end a selection.
    if (time.textContent !== text) time.textContent = text;
  }
}

// Changes an element and what is in it to a newer one. What is the same stays, with its focus, selection and scroll
// position. Elements without an ID are the same if they have the same place; `details` stay open.
function update(element, newer) {
  if (element.isEqualNode(newer)) return;
  if (element.nodeType === Node.TEXT_NODE) {
    element.data = newer.data;
    return;
  }
  for (const name of element.getAttributeNames()) {
    if (name !== "open" && !newer.hasAttribute(name)) element.removeAttribute(name);
  }
  for (const { name, value } of newer.attributes) {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  }
  const named = new Map([...element.children].filter(({ id }) => id).map((child) => [child.id, child]));
  let place = element.firstChild;
  for (const child of [...newer.childNodes]) {
    const atPlace = place && !place.id && place.nodeName === child.nodeName ? place : undefined;
    const same = child.id ? named.get(child.id) : atPlace;
    // One that has moved down makes way for all that follow it.
    if (same && place.nextSibling === same) {
      element.append(place);
      place = same;
    }
    if (same === place) place = place.nextSibling;
    else element.insertBefore(same ?? child, place);
    if (same) update(same, child);
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}

// Loads the page again. An answer is dropped if a later one was asked for, or is about to be.
let asked = 0;
let typing = null;
async function refresh() {
  const mine = ++asked;
  const options = { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) };
  const answer = await fetch(location.href, options).catch(() => null);
  const text = answer?.ok && (await answer.text().catch(() => null));
  if (answer?.status === 503) changed();
  const page = text && new DOMParser().parseFromString(text, "text/html");
  const main = page && page.querySelector("main");
  if (!main || mine !== asked || typing) return;
  showTimes(main);
  const before = new Map(rows().map((row) => [row.id, condition(row)]));
  const focused = document.activeElement;
  update(find("main"), main);
  // An element that was moved has lost it.
  if (focused !== document.activeElement) focused.focus({ preventScroll: true });
  for (const row of rows().filter((row) => before.has(row.id) && before.get(row.id) !== condition(row))) {
    row.classList.add("fresh");
    setTimeout(() => row.classList.remove("fresh"), REST_MS);
  }
  document.title = page.title;
  return true;
}

// Something has changed: the page is loaded again, once for all changes that arrive meanwhile.
let isCurrent = true;
let isRefreshing = false;
async function changed() {
  isCurrent = false;
  if (isRefreshing) return;
  isRefreshing = true;
  while (!isCurrent) {
    await sleep(SPREAD_MS * Math.random());
    isCurrent = true;
    const began = Date.now();
    // What could not be loaded is asked for again, unless the bridge does not answer at all.
    if (!(await refresh()) && live.className === "on") isCurrent = false;
    await sleep(Math.min(Math.max(REST_MS, 10 * (Date.now() - began)), REST_MAX_MS));
  }
  isRefreshing = false;
}

// Whether the page is live, and if not, since when.
function showLive(isLive) {
  if (isLive) live.textContent = "live";
  else if (live.className !== "off") {
    live.textContent = `not live since ${new Date().toLocaleTimeString()}: the bridge does not answer`;
  }
  live.className = isLive ? "on" : "off";
}

// Follows the reports of changes.
function follow() {
  const source = new EventSource(`${document.body.dataset.root ?? ""}events`);
  let openedAt = 0;
  source.onopen = () => { openedAt = Date.now(); };
  source.addEventListener("hello", () => {
    // It is sent at once. Held back by a proxy, all that follows would be late, too.
    if (Date.now() - openedAt > 5000) return source.close();
    showLive(true);
    changed();
  });
  source.addEventListener("changed", changed);
  source.onerror = () => {
    showLive(false);
    // After a refusal the browser does not connect again by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 5000);
  };
}

// Whether a row matches the filter, as far as that is known here: the bridge searches in more.
function fits(row) {
  const show = form.elements.show.value;
  const text = form.elements.q.value.trim().toLowerCase();
  // The ID of a row has its gateway.
  const words = row.id + row.cells[0].textContent;
  return (!show || show === condition(row)) && words.toLowerCase().includes(text);
}

// Hides what does not match, and then loads what does.
function narrow() {
  for (const group of document.querySelectorAll("#list tbody")) {
    for (const row of rows(group)) row.hidden = !fits(row);
    group.hidden = rows(group).every((row) => row.hidden);
  }
  clearTimeout(typing);
  typing = setTimeout(() => {
    typing = null;
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(form)) {
      const isDefault = !value.trim() || form.elements[name].selectedIndex === 0;
      if (!isDefault) query.set(name, value.trim());
    }
    history.replaceState(null, "", query.size ? `?${query}` : "./");
    refresh();
  }, 300);
}

document.documentElement.classList.add("scripted");
form?.addEventListener("input", narrow);
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  narrow();
});
document.addEventListener("click", (event) => {
  if (event.target.id === "print") print();
});
// A proxy may hold reports back, as Home Assistant's ingress does by compressing them. The page is then loaded at
// intervals.
setInterval(async () => {
  if (live.className === "on" || document.hidden || !(await refresh())) return;
  if (live.className === "on" || live.className === "slow") return;
  live.className = "slow";
  live.textContent = "updated every 10 s";
}, 10_000);
// The bars grow even if nothing changes.
setInterval(() => document.hidden || refresh(), 60_000);
showTimes();
setInterval(showTimes, 1000);
follow();
