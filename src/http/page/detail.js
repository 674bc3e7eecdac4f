// Loads the page of a gateway or device again after something has happened.
"use strict";

// An event is recorded, and reported as such, within this time of its change.
const RECORDED_MS = 3000;
const root = document.body.dataset.root;
let waiting = null;

async function refresh() {
  const answer = await fetch(location.href, { cache: "no-store" }).catch(() => null);
  if (!answer?.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  replaceParts(document.querySelector("main"), page.querySelector("main").childNodes);
  showTimes();
  return true;
}

function soon() {
  waiting ??= setTimeout(refreshNow, RECORDED_MS);
}

function refreshNow() {
  clearTimeout(waiting);
  waiting = null;
  refresh();
}

function listen() {
  const source = follow(`${root}events`, listen);
  for (const name of ["overview", "device", "reload"]) source.addEventListener(name, soon);
  source.addEventListener("events", refreshNow);
}

document.addEventListener("click", (event) => {
  if (event.target.id === "print") print();
});
document.documentElement.classList.add("scripted");
listen();
