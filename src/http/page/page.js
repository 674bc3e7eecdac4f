// Keeps the page up to date. Without script the page is complete as of when it was loaded.
"use strict";

const ORDER = ["down", "unknown", "up", "absent"];
const FRESH_MS = 2500;
const find = (selector, within = document) => within.querySelector(selector);
const form = find("form");

function condition(row) {
  return ORDER.find((word) => row.classList.contains(word));
}

function hasState(row) {
  const show = form.elements.show.value;
  return !show || show === condition(row);
}

// Whether a row matches the filter, as far as that is known here: the bridge searches in more.
function fits(row) {
  const text = form.elements.q.value.trim().toLowerCase();
  // The ID of a row has its gateway.
  return hasState(row) && (row.id + find("th", row).textContent).toLowerCase().includes(text);
}

function showRows(which) {
  for (const group of document.querySelectorAll("tbody")) {
    for (const row of group.querySelectorAll("tr[id]")) row.hidden = !which(row);
    group.hidden = !find("tr[id]:not([hidden])", group);
  }
}

function parsed(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

// Replaces a row; it keeps its bar. Rows that are not here come when the page is loaded again.
function placeRow({ id, html }) {
  const before = document.getElementById(id);
  const row = parsed(html).firstElementChild;
  if (!before) {
    if (fits(row)) reload();
    return;
  }
  row.cells[3].replaceChildren(...before.cells[3].childNodes);
  if (condition(before) === condition(row)) {
    replaceParts(before, row.childNodes);
  } else {
    const group = before.parentElement;
    before.remove();
    const rank = ORDER.indexOf(condition(row));
    const others = [...group.querySelectorAll("tr[id]")];
    group.insertBefore(row, others.find((other) => ORDER.indexOf(condition(other)) >= rank) ?? null);
    row.classList.add("fresh");
    setTimeout(() => row.classList.remove("fresh"), FRESH_MS);
    showRows(hasState);
  }
}

// Loads the page again, except the form, which may be in use.
let asked = 0;
// The updates that arrive while the page is loaded: its answer may be older than they are.
let updates = null;
async function refresh() {
  const mine = ++asked;
  updates = [];
  const answer = await fetch(location.search || "./", { cache: "no-store" }).catch(() => null);
  const text = answer?.ok && (await answer.text().catch(() => null));
  if (mine !== asked) return;
  const arrived = updates;
  updates = null;
  if (!text) return;
  const page = new DOMParser().parseFromString(text, "text/html");
  for (const part of ["#overview", "#list", "#events"]) {
    replaceParts(find(part), find(part, page).childNodes);
  }
  showTitle();
  for (const update of arrived) update();
  showTimes();
  return true;
}

// The number of doors that are down, in front.
const TITLE = document.title.replace(/^\(\d+\) /, "");
function showTitle() {
  const down = Number(find(".counts .down b").textContent);
  document.title = down ? `(${down}) ${TITLE}` : TITLE;
}

let typing;
function narrow() {
  showRows(fits);
  clearTimeout(typing);
  typing = setTimeout(() => {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(form)) {
      const isDefault = !value.trim() || form.elements[name].selectedIndex === 0;
      if (!isDefault) query.set(name, value.trim());
    }
    history.replaceState(null, "", query.size ? `?${query}` : "./");
    refresh();
  }, 300);
}

// Too many changes reload the page, at most this often.
const RELOAD_MS = 5000;
let reloading = null;
function reload() {
  reloading ??= setTimeout(() => {
    reloading = null;
    refresh();
  }, RELOAD_MS * Math.random());
}

function listen() {
  const source = follow("events", listen);
  const on = (name, then) =>
    source.addEventListener(name, (event) => {
      const update = () => then(JSON.parse(event.data || "null"));
      updates?.push(update);
      update();
      showTimes();
    });
  on("overview", (html) => {
    replaceParts(find("#overview"), parsed(html).childNodes);
    showTitle();
  });
  on("events", (html) => replaceParts(find("#events"), parsed(html).childNodes));
  on("device", placeRow);
  on("reload", reload);
}

document.documentElement.classList.add("scripted");
form.addEventListener("input", narrow);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  narrow();
});
// The bars grow even if nothing changes.
setInterval(() => document.hidden || refresh(), 60_000);
listen();
