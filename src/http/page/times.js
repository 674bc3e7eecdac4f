// Shows times in the reader's time zone, and durations that grow.
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

function tellTimes() {
  for (const time of document.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    if (time.className === "since") time.textContent = `for ${span((Date.now() - at) / 1000)}`;
    else if (time.className === "clock") time.textContent = at.toLocaleTimeString();
    else time.textContent = at.toLocaleString();
    time.title = at.toLocaleString();
  }
}

tellTimes();
setInterval(tellTimes, 1000);
