"use strict";
/* Keeps the page live: ages tick here, content comes from the server again whenever the event stream says so. */

const page = document.body.dataset.page;
const skew = Number(document.body.dataset.now) - Date.now() / 1000;
const now = () => Date.now() / 1000 + skew;

/* --- ages: the same rules as wetread/worklist/ages.py ------------------------------------------------------------- */

function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function tick() {
  const at = now();
  for (const element of document.querySelectorAll("[data-since]")) setText(element, span(at - Number(element.dataset.since)));
  for (const element of document.querySelectorAll("[data-due]")) {
    const left = Number(element.dataset.due) - at;
    setText(element, left > 0 ? `due in ${span(left)}` : `overdue ${span(-left)}`);
    element.classList.toggle("late", left <= 0);
  }
}
setInterval(tick, 1000);

/* --- pictures that cannot be had leave a quiet place, not a broken one -------------------------------------------- */

function withoutPicture(image) {
  image.closest(".thumb, .picture")?.classList.add("none");
}
document.addEventListener("error", (event) => event.target instanceof HTMLImageElement && withoutPicture(event.target), true);
for (const image of document.images) if (image.complete && image.naturalWidth === 0) withoutPicture(image);

/* --- nothing moves under a pressed button: a press that is redrawn before its release would be lost ---------------- */

let released = Promise.resolve();
document.addEventListener("pointerdown", () => {
  released = new Promise((release) => {
    const after = new AbortController();
    // The click comes after the release and before the next task.
    for (const end of ["pointerup", "pointercancel"]) {
      window.addEventListener(end, () => { after.abort(); setTimeout(release); }, { capture: true, signal: after.signal });
    }
  });
}, true);

/** The newest answer only, and not before the hand is off the button: null when a later request has taken over. */
let loading = null;
async function drawnAnew(address) {
  loading?.abort();
  const mine = loading = new AbortController();
  try {
    const answer = await fetch(address, { signal: mine.signal });
    const text = answer.ok ? await answer.text() : null;
    await released;
    return text === null || mine.signal.aborted ? null : new DOMParser().parseFromString(text, "text/html");
  } catch (error) {
    if (error.name !== "AbortError") setTimeout(schedule, 3000);
    return null;
  }
}

/* --- the list ----------------------------------------------------------------------------------------------------- */

const rowsOf = () => [...document.querySelectorAll("#rows > .row")];
const linkOf = (row) => row.querySelector(".open");
const focusedRow = () => document.activeElement?.closest?.("#rows > .row") ?? null;

function select(row) {
  if (!row) return;
  linkOf(row).focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

function move(step) {
  const rows = rowsOf();
  const at = rows.indexOf(focusedRow());
  select(rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + step))]);
}

function announce(fresh, known) {
  const stat = fresh.filter((row) => row.classList.contains("p-stat") && !known.get(row.dataset.uid)?.classList.contains("p-stat"));
  if (stat.length) document.getElementById("announce").textContent =
    stat.length === 1 ? `New STAT study: ${linkOf(stat[0]).textContent}` : `${stat.length} new STAT studies`;
}

function merge(incoming) {
  const list = document.getElementById("rows");
  const known = new Map(rowsOf().map((row) => [row.dataset.uid, row]));
  const focused = focusedRow()?.dataset.uid;
  // What the reader looks at stays where it is on the screen, whatever is inserted above.
  const anchor = window.scrollY > 0 ? rowsOf().find((row) => row.getBoundingClientRect().bottom > 140) : null;
  const before = anchor?.getBoundingClientRect().top;
  const fresh = [...incoming.querySelectorAll("#rows > .row")];
  announce(fresh, known);
  const next = fresh.map((row) => {
    const old = known.get(row.dataset.uid);
    if (old?.dataset.version === row.dataset.version && old.className.replace(" changed", "") === row.className) return old;
    row.classList.add("changed");
    return document.adoptNode(row);
  });
  list.replaceChildren(...next);
  for (const id of ["counts", "below"]) document.getElementById(id).replaceWith(document.adoptNode(incoming.getElementById(id)));
  const stay = (uid) => rowsOf().find((row) => row.dataset.uid === uid);
  if (focused) {
    const row = stay(focused);
    if (row) linkOf(row).focus({ preventScroll: true });
  }
  const after = anchor && stay(anchor.dataset.uid);
  if (after) window.scrollBy(0, after.getBoundingClientRect().top - before);
  const stat = document.querySelector(".count.p-stat b").textContent;
  document.title = `${stat === "0" ? "" : `(${stat} STAT) `}Reading list · wetread`;
  tick();
}

async function refreshList() {
  const incoming = await drawnAnew(`/fragments/worklist${location.search}`);
  if (incoming) merge(incoming);
}

/** Carries what a person has entered, and where they are, from the forms on the page into the same forms drawn anew. */
function keepForms(drawn) {
  const active = document.activeElement;
  const held = active?.form?.id && (active.name || active.dataset.verb) ? active : null;
  const mark = held && (held.name ? `[name="${held.name}"]` : `[data-verb="${held.dataset.verb}"]`);
  for (const open of document.querySelectorAll("#study details[id][open]")) {
    drawn.querySelector(`#${CSS.escape(open.id)}`)?.setAttribute("open", "");
  }
  for (const form of document.querySelectorAll("#study form[id]")) {
    const answer = drawn.querySelector(`#${CSS.escape(form.id)} .answer`);
    if (answer) answer.textContent = form.querySelector(".answer").textContent;
    for (const field of form.elements) {
      const next = field.name && drawn.querySelector(`#${CSS.escape(form.id)} [name="${field.name}"]`);
      // What nobody has touched shows the newest value.
      if (!next || field.value === field.dataset.was) continue;
      // A choice that is no longer offered leaves the new default.
      if (!next.options || [...next.options].some((option) => option.value === field.value)) next.value = field.value;
    }
  }
  return () => {
    const next = held && drawn.querySelector(`#${CSS.escape(held.form.id)} ${mark}`);
    if (!next) return;
    next.focus({ preventScroll: true });
    if (held.selectionStart != null) next.setSelectionRange(held.selectionStart, held.selectionEnd);
  };
}

async function refreshStudy() {
  const incoming = await drawnAnew(location.href);
  if (!incoming) return;
  const drawn = document.adoptNode(incoming.getElementById("study"));
  const refocus = keepForms(drawn);
  document.getElementById("study").replaceWith(drawn);
  refocus();
  prepareRaise();
  showOverlay();
  tick();
}

let waiting = null;
function schedule() {
  clearTimeout(waiting);
  waiting = setTimeout(page === "worklist" ? refreshList : refreshStudy, 120);
}

/* --- live --------------------------------------------------------------------------------------------------------- */

const TYPES = [
  "study.received", "study.changed", "study.stable", "task.queued", "task.started", "task.finished", "task.failed",
  "task.dead", "task.retried", "task.discarded", "task.stalled", "result.ready", "result.superseded", "finding.positive", "finding.retracted",
  "finding.acknowledged", "finding.escalated", "finding.accepted", "finding.rejected", "finding.edited",
  "worklist.assigned", "worklist.released", "worklist.completed",
  "worklist.breaker_opened", "worklist.breaker_closed", "worklist.priority_changed", "delivery.dead", "reset",
];

function follow() {
  const live = document.getElementById("live");
  const stream = new EventSource("/api/v1/events/stream");
  const study = document.getElementById("study")?.dataset.uid;
  stream.onopen = () => {
    live.className = "live on";
    live.textContent = "live";
    // What happened between the rendering of this page and now.
    schedule();
  };
  stream.onerror = () => {
    live.className = "live off";
    live.textContent = "reconnecting";
  };
  for (const type of TYPES) stream.addEventListener(type, (event) => {
    if (!study || JSON.parse(event.data).subject === study) schedule();
  });
  window.addEventListener("pagehide", () => stream.close());
  // A page that comes back from the browser's cache has no stream any more.
  window.addEventListener("pageshow", (event) => event.persisted && location.reload());
}
if (page === "worklist" || page === "study") follow();

/* --- filter, help, keys ------------------------------------------------------------------------------------------- */

const filter = document.getElementById("filter");
function applyFilter() {
  const query = new URLSearchParams([...new FormData(filter)].filter(([, value]) => value));
  const limit = new URLSearchParams(location.search).get("limit");
  if (limit) query.set("limit", limit);
  history.replaceState(null, "", query.size ? `/?${query}` : "/");
  schedule();
}
filter?.addEventListener("submit", (event) => { event.preventDefault(); applyFilter(); });
filter?.addEventListener("input", applyFilter);

const help = document.getElementById("help");
document.getElementById("help-button")?.addEventListener("click", () => help.showModal());

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help?.open) return;
  const typing = event.target.closest?.("input, select, textarea");
  if (event.key === "Escape") {
    if (typing) typing.blur();
    else if (page === "study") location.href = "/";
    return;
  }
  if (typing) return;
  if (page === "study" && studyKey(event.key)) {
    event.preventDefault();
    return;
  }
  const steps = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, Home: -1e9, End: 1e9 };
  if (page === "worklist" && event.key in steps) {
    event.preventDefault();
    move(steps[event.key]);
  } else if (event.key === "/" && filter) {
    event.preventDefault();
    document.getElementById("q").select();
  } else if (event.key === "?" && help) {
    event.preventDefault();
    help.showModal();
  }
});

/* --- raising by hand ---------------------------------------------------------------------------------------------- */

function prepareRaise() {
  const form = document.getElementById("raise");
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { priority, reason } = Object.fromEntries(new FormData(form));
    const response = await fetch(form.dataset.url, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ priority, reason }),
    });
    // A redraw may have come in between: the form of now is meant, not the one that was sent.
    const problem = response.ok ? "" : (await response.json()).detail ?? "The study could not be raised.";
    const current = document.getElementById("raise");
    if (current) {
      current.querySelector(".answer").textContent = problem;
      if (problem) return;
      current.reset();
      document.activeElement.blur();
    }
    await refreshStudy();
  });
}
prepareRaise();

/* --- the reader's hand: take, read, and what they say of findings ------------------------------------------------- */

let overlay = true;
function showOverlay() {
  for (const card of document.querySelectorAll(".card:has(.overlay)")) {
    const button = card.querySelector(".overlay");
    button.setAttribute("aria-pressed", String(overlay));
    setText(button, overlay ? "Overlay on" : "Overlay off");
    card.querySelector(".overlaid").hidden = !overlay;
    card.querySelector(".plain-image").hidden = overlay;
  }
}

/** What the request says; null when something is missing, which the form then tells. */
function wordsOf(form, verb) {
  const answer = form.querySelector(".answer");
  const reason = (form.elements.reason?.value ?? "").trim();
  if ((verb === "reject" || verb === "edit") && !reason) {
    answer.textContent = "Say why.";
    form.elements.reason.focus();
    return null;
  }
  if (verb === "acknowledge") return {};
  if (verb !== "edit") return { reason };
  const body = { reason, measurements: [] };
  for (const field of form.querySelectorAll("[data-was]")) {
    if (field.value === field.dataset.was) continue;
    const value = Number(field.value.replace(",", "."));
    if (!field.value.trim() || !Number.isFinite(value)) {
      answer.textContent = "That is not a number.";
      field.focus();
      return null;
    }
    body.measurements.push({ code: field.dataset.code, value, unit: field.dataset.unit });
  }
  if (form.elements.laterality.value) body.laterality = form.elements.laterality.value;
  if (form.elements.comment.value.trim()) body.comment = form.elements.comment.value.trim();
  return body;
}

async function say(form, verb) {
  const body = wordsOf(form, verb);
  if (!body) return;
  const answer = await fetch(`${form.dataset.url}:${verb}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  // A redraw may have come in between: the form of now is meant, not the one that was sent.
  const problem = answer.ok ? "" : (await answer.json()).detail ?? "That could not be kept.";
  const current = document.getElementById(form.id);
  if (current) {
    current.querySelector(".answer").textContent = problem;
    if (problem) return;
    current.reset();
    current.querySelector("details")?.removeAttribute("open");
  }
  await refreshStudy();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-verb], .overlay");
  if (!button) return;
  if (button.dataset.verb) say(button.form, button.dataset.verb);
  else {
    overlay = !overlay;
    showOverlay();
  }
});
document.addEventListener("submit", (event) => {
  // Enter in a field: the one thing that needs typed words.
  if (!event.target.matches(".feedback, .reading")) return;
  event.preventDefault();
});

/** Keys lead to a button, Enter presses it: a slip of the finger says nothing about a patient. */
function studyKey(key) {
  const forms = [...document.querySelectorAll(".feedback")];
  const current = document.activeElement?.closest?.(".feedback") ?? forms[0];
  const reading = document.getElementById("reading");
  const leads = {
    t: () => reading.querySelector('[data-verb="assign"], [data-verb="release"]'),
    d: () => reading.querySelector('[data-verb="complete"]'),
    n: () => forms[(forms.indexOf(document.activeElement?.closest?.(".feedback")) + 1) % forms.length]?.querySelector("button"),
    a: () => current?.querySelector('[data-verb="acknowledge"]'),
    y: () => current?.querySelector('[data-verb="accept"]'),
    x: () => current?.elements.reason.value ? current.querySelector('[data-verb="reject"]') : current?.elements.reason,
    e: () => {
      current?.querySelector("details").setAttribute("open", "");
      return current?.querySelector("details input");
    },
  };
  if (key === "o") {
    document.querySelector(".overlay")?.click();
    return true;
  }
  const goal = Object.hasOwn(leads, key) ? leads[key]() : null;
  goal?.focus();
  goal?.scrollIntoView({ block: "nearest" });
  return Boolean(goal);
}
tick();
