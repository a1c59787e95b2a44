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
// The time zone of this browser, to be taken over with one press of “Save”.
const zone = document.getElementById("time_zone");
if (zone && !zone.value) zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
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
// Menus close like others do: on Escape, and on a click elsewhere.
for (const menu of document.querySelectorAll("[data-menu]")) {
  document.addEventListener("click", (event) => {
    if (!menu.contains(event.target)) menu.open = false;
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
}
// A file is read into the field that it is for.
for (const picker of document.querySelectorAll("[data-reads-into]")) {
  picker.hidden = false;
  picker.querySelector("input").addEventListener("change", async (event) => {
    const file = event.target.files[0];
    if (file) document.getElementById(picker.dataset.readsInto).value = await file.text();
  });
}
// Dashboard addresses that Connect's clients print say behind a # what is meant, which only a script can read.
if (/^\/connect\/?$/.test(location.pathname)) {
  const [, guid, page, draft] = location.hash.match(/^#\/apps\/([0-9a-f-]{36})(?:\/(logs|draft)(?:\/(\d+))?)?/) ?? [];
  if (guid) location.replace(draft ? `/content/${guid}/_bundle${draft}/` : `/content-settings/${guid}/${page === "logs" ? "logs" : "runs"}`);
  else if (location.hash.startsWith("#/system/integrations")) location.replace("/integrations");
}
// Files for an upload: dropped, or a whole folder.
for (const area of document.querySelectorAll("[data-drop]")) {
  const input = area.querySelector("input[multiple]");
  const folder = area.querySelector("[data-folder]");
  const said = area.querySelector("[data-chosen]");
  const tell = (files) => { said.textContent = files.length ? `${files.length} file${files.length === 1 ? "" : "s"} chosen: ${[...files].slice(0, 3).map((file) => file.name).join(", ")}` : ""; };
  folder.hidden = false;
  input.addEventListener("change", () => tell(input.files));
  folder.querySelector("input").addEventListener("change", (event) => {
    // The folder's own input has the name; the browser sends the paths below it.
    event.target.name = input.name;
    input.removeAttribute("name");
    tell(event.target.files);
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    area.addEventListener(kind, (event) => { event.preventDefault(); area.classList.toggle("over", kind === "dragover"); });
  }
  area.addEventListener("drop", (event) => { input.files = event.dataTransfer.files; tell(input.files); });
}
for (const box of document.querySelectorAll("[data-all]")) {
  box.closest("label").hidden = false;
  box.addEventListener("change", () => {
    for (const other of document.getElementsByName(box.dataset.all)) other.checked = box.checked;
  });
}
// Searches among many choices, as comboboxes (WAI-ARIA Authoring Practices, “editable combobox with list autocomplete”).
for (const form of document.querySelectorAll("[data-combobox]")) {
  const input = form.querySelector("input[type=search]");
  const target = document.getElementById(form.dataset.into);
  const list = document.createElement("ul");
  list.id = `${input.id}-list`;
  list.className = "options";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", form.getAttribute("aria-label"));
  list.hidden = true;
  const said = document.createElement("p");
  said.className = "hidden";
  said.setAttribute("role", "status");
  input.parentElement.append(list, said);
  for (const [name, value] of [["role", "combobox"], ["aria-autocomplete", "list"], ["aria-controls", list.id], ["aria-expanded", "false"]]) input.setAttribute(name, value);
  let found = [], active = -1, asked = 0, timer = 0;

  const show = (open) => {
    list.hidden = !open;
    input.setAttribute("aria-expanded", String(open));
    if (!open) mark(-1);
  };
  const mark = (place) => {
    active = place;
    for (const [at, option] of [...list.children].entries()) {
      option.setAttribute("aria-selected", String(at === place));
      if (at === place) option.scrollIntoView({ block: "nearest" });
    }
    if (place < 0) input.removeAttribute("aria-activedescendant"); else input.setAttribute("aria-activedescendant", list.children[place].id);
  };
  const choose = (choice) => {
    const { name, type } = form.dataset;
    let box = [...target.querySelectorAll(`[name="${name}"]`)].find((known) => known.value === choice.value);
    if (!box) {
      const label = document.createElement("label");
      label.className = "choice";
      box = document.createElement("input");
      Object.assign(box, { type, name, value: choice.value });
      const words = document.createElement("span");
      words.textContent = choice.hint ? `${choice.label} · ${choice.hint}` : choice.label;
      label.append(box, words);
      if (type === "checkbox") {
        const shown = document.createElement("input");
        Object.assign(shown, { type: "hidden", name: "shown", value: choice.value });
        label.append(shown);
      }
      target.querySelector("fieldset").append(label);
    }
    box.checked = true;
    target.hidden = false;
    input.value = "";
    show(false);
    box.focus();
  };
  const look = async () => {
    const mine = ++asked;
    const body = new URLSearchParams({ csrf: form.dataset.csrf, what: form.dataset.combobox, find: input.value });
    const answer = await fetch("/choices", { method: "POST", body }).catch(() => null);
    // Without an answer the button searches, as without script.
    if (mine !== asked || !answer?.ok) return;
    found = await answer.json();
    list.replaceChildren(...found.map((choice, at) => {
      const option = document.createElement("li");
      option.id = `${list.id}-${at}`;
      option.setAttribute("role", "option");
      option.textContent = choice.hint ? `${choice.label} · ${choice.hint}` : choice.label;
      option.addEventListener("mousedown", (event) => { event.preventDefault(); choose(choice); });
      return option;
    }));
    said.textContent = found.length ? `${found.length} found` : "Nothing matches";
    show(found.length > 0);
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    if (input.value.trim()) timer = setTimeout(look, 150); else { asked++; show(false); }
  });
  input.addEventListener("blur", () => show(false));
  input.addEventListener("keydown", (event) => {
    const open = !list.hidden;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!open) return void (input.value.trim() && look());
      const step = event.key === "ArrowDown" ? 1 : -1;
      mark((active + step + found.length) % found.length);
    } else if (event.key === "Enter" && open && active >= 0) {
      event.preventDefault();
      choose(found[active]);
    } else if (event.key === "Escape" && open) {
      event.preventDefault();
      show(false);
    }
  });
}
