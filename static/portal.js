// Adds comfort only: every page works without it.
"use strict";
for (const control of document.querySelectorAll("[data-copy]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button";
  button.textContent = "Copy";
  const label = document.querySelector(`label[for="${control.id}"]`);
  button.setAttribute("aria-label", `Copy ${label ? label.textContent : "text"}`);
  const row = document.createElement("div");
  row.className = "copy-row";
  control.replaceWith(row);
  row.append(control, button);
  button.addEventListener("click", async () => {
    control.select();
    try {
      await navigator.clipboard.writeText(control.value);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Press Ctrl+C";
    }
  });
}
for (const control of document.querySelectorAll("[data-select]")) {
  control.addEventListener("focus", () => control.select());
}
document.querySelector("[data-focus]")?.focus();
const phrase = (then) => {
  const seconds = Math.round((Date.now() - then) / 1000);
  if (Math.abs(seconds) < 45) return "just now";
  const steps = [[60, 3570, "minute"], [3600, 84600, "hour"]];
  for (const [unit, end, word] of steps) {
    if (Math.abs(seconds) < end) {
      const count = Math.max(1, Math.round(Math.abs(seconds) / unit));
      const words = `${count} ${word}${count === 1 ? "" : "s"}`;
      return seconds < 0 ? `in ${words}` : `${words} ago`;
    }
  }
  return null;
};
setInterval(() => {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const text = phrase(Date.parse(time.dateTime));
    if (text) time.textContent = text;
  }
}, 60000);
