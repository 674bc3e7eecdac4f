// Keeps the page up to date. Without script the page is complete as of when it was loaded.
"use strict";

const ORDER = ["down", "unknown", "up", "absent"];
const ROWS_MAX = 200;
const FRESH_MS = 2500;
const find = (selector, within = document) => within.querySelector(selector);
const live = find("#live");
const form = find("form");

function condition(row) {
  return ORDER.find((word) => row.classList.contains(word));
}

// Whether a row matches the filter.
function fits(row) {
  const text = form.elements.q.value.trim().toLowerCase();
  const show = form.elements.show.value;
  const about = find("th", row).textContent.toLowerCase();
  return (!show || show === condition(row)) && about.includes(text);
}

function filterRows() {
  for (const row of document.querySelectorAll("tbody tr")) row.hidden = !fits(row);
}

function parsed(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

function placeRow({ id, html }) {
  const body = find("tbody");
  const row = parsed(html).firstElementChild;
  const before = document.getElementById(id);
  const stays = before && condition(before) === condition(row);
  if (stays) {
    before.replaceWith(row);
  } else {
    if (before) before.remove();
    const later = new URLSearchParams(location.search).get("page");
    if (!fits(row) || (!before && Number(later))) return;
    const rank = ORDER.indexOf(condition(row));
    const next = [...body.rows].find((other) => ORDER.indexOf(condition(other)) >= rank);
    body.insertBefore(row, next ?? null);
    if (body.rows.length > ROWS_MAX) body.rows[body.rows.length - 1].remove();
    row.classList.add("fresh");
    setTimeout(() => row.classList.remove("fresh"), FRESH_MS);
  }
  const nothing = find("#nothing");
  if (nothing) nothing.hidden = body.rows.length > 0;
  row.hidden = !fits(row);
}

// Loads the page again, except the form, which may be in use.
let asked = 0;
async function refresh() {
  const mine = ++asked;
  const answer = await fetch(location.search || "./", { cache: "no-store" }).catch(() => null);
  if (!answer?.ok || mine !== asked) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of ["#overview", "#list", "#events"]) {
    find(part).replaceChildren(...find(part, page).childNodes);
  }
  filterRows();
  tellTimes();
  tellTitle();
}

// The number of doors that are down, in front.
const TITLE = document.title.replace(/^\(\d+\) /, "");
function tellTitle() {
  const down = Number(find(".counts .down b").textContent);
  document.title = down ? `(${down}) ${TITLE}` : TITLE;
}

let typing;
function narrow() {
  filterRows();
  clearTimeout(typing);
  typing = setTimeout(() => {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value.trim()) query.set(name, value.trim());
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

function say(words, className) {
  live.textContent = words;
  live.className = className;
}

function listen() {
  const source = new EventSource("events");
  const on = (name, then) =>
    source.addEventListener(name, (event) => {
      then(JSON.parse(event.data || "null"));
      tellTimes();
    });
  on("hello", () => {
    say("live", "on");
    refresh();
  });
  on("overview", (html) => {
    find("#overview").replaceChildren(parsed(html));
    tellTitle();
  });
  on("events", (html) => find("#events").replaceChildren(parsed(html)));
  on("device", placeRow);
  on("reload", reload);
  source.onerror = () => {
    say("not live: the bridge does not answer", "off");
    // After a refusal the browser does not connect again by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, RELOAD_MS);
  };
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
