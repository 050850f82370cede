// Makes the page lively: what the server wrote stays the truth, and without this script
// everything works by links and forms.

import { dialogs } from "./dialogs.js";
import { keys } from "./keys.js";
import { list } from "./list.js";
import { morph } from "./morph.js";
import { follow } from "./stream.js";
import { age as lasted } from "./words.js";

const html = document.documentElement;
const root = html.dataset.root;
const $ = (id) => document.getElementById(id);
const LOST_AFTER = 5000;
const POLL = 5000;
const pace = Number(html.dataset.pace);
const usual = Number(html.dataset.usual); // between two probes, however well all is

let ahead = Number(html.dataset.now) - Date.now(); // of the daemon's clock
let heard = Number(html.dataset.heard) || null; // when the last probe came back, by it
let answered = Date.now(); // when the daemon last said what is true
let mark = html.dataset.mark;
let busy = false, again = false, way = "polls", last = 0;

for (const part of document.querySelectorAll(".scripted")) part.hidden = false;

// What changed.

async function renew() {
  if (!mark) return;
  if (busy) { again = true; return; }
  busy = true;
  last = Date.now();
  try {
    const here = new URL(location.href);
    here.hash = "";
    here.searchParams.set("since", mark);
    const answer = await fetch(here, { signal: AbortSignal.timeout(4000), headers: { Accept: "text/html" } });
    if (answer.status === 401) { location.reload(); return; } // the browser asks who it is
    if (answer.status === 429) last += 1000 * Number(answer.headers.get("Retry-After") || 1);
    if (!answer.ok) throw new Error(String(answer.status));
    hear(answer.headers);
    const fresh = answer.headers.get("Pgbreaker-Mark");
    if (fresh === null) whole(await answer.text());
    else if (answer.status !== 204) pieces(await answer.text());
    if (fresh !== null) mark = fresh;
  } catch {
    // Said by the age of the data, which grows.
  } finally {
    busy = false;
    show();
    if (again) { again = false; renew(); }
  }
}

function hear(headers) {
  answered = Date.now();
  ahead = Number(headers.get("Pgbreaker-Now")) - answered;
  heard = Number(headers.get("Pgbreaker-Heard")) || null;
}

function pieces(text) {
  const fresh = document.createElement("template");
  fresh.innerHTML = text;
  for (const piece of [...fresh.content.children]) {
    const old = $(piece.id);
    if (old) morph(old, piece);
  }
  settle();
}

function whole(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  if (fresh.documentElement.dataset.edition !== html.dataset.edition) { location.reload(); return; }
  mark = fresh.documentElement.dataset.mark;
  morph($("main"), fresh.getElementById("main"));
  morph($("foot"), fresh.getElementById("foot"));
  settle();
}

function settle() {
  const verdict = document.querySelector("[data-title]");
  if (verdict) {
    const title = `${verdict.dataset.title} · pgbreaker`;
    if (document.title !== title) document.title = title;
    const icon = `${root}static/${html.dataset.edition}/${verdict.dataset.tone}.svg`;
    if ($("icon").getAttribute("href") !== icon) $("icon").setAttribute("href", icon);
  }
  rows?.settle();
  tick();
}

// Time goes on between two answers.

function tick() {
  const now = Date.now() + ahead;
  for (const time of document.querySelectorAll("time[data-at]")) write(time, lasted((now - time.dataset.at) / 1000));
  for (const time of document.querySelectorAll("time[data-until]")) {
    const left = (time.dataset.until - now) / 1000;
    write(time, left > 0 ? `in ${lasted(Math.ceil(left))}` : time.dataset.over);
  }
  for (const time of document.querySelectorAll("time[data-clock]")) write(time, local(Number(time.dataset.clock), now));
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat("en-CA", { year: "numeric", month: "2-digit", day: "2-digit" });

function local(at, now) {
  const time = clock.format(at);
  return day.format(at) === day.format(now) ? time : `${day.format(at)} ${time}`;
}

function show() {
  if (!mark) return; // a page that does not live gets no older
  const live = $("live");
  const age = heard === null ? null : Math.max(0, Date.now() + ahead - heard);
  const silent = Date.now() - answered;
  const isCut = silent > LOST_AFTER + (way === "streams" || pace ? 0 : POLL);
  const isStale = isCut || (age !== null && age > LOST_AFTER + usual);
  write(live.querySelector(".age"), age === null ? "no data yet" : `data ${age < 1000 ? "< 1 s" : lasted(age / 1000)} old`);
  live.classList.toggle("stale", isStale);
  live.classList.toggle("streams", !isStale && way === "streams");
  live.classList.toggle("polls", !isStale && way !== "streams");
  const old = age === null ? silent : age;
  html.classList.toggle("is-lost", isStale);
  const lost = $("lost");
  // Said once, not every second: who listens would hear nothing else.
  const words = isCut ? "Connection lost" : "No probe has come back";
  if (isStale) {
    if (lost.dataset.words !== words) {
      lost.dataset.words = words;
      lost.replaceChildren(`${words}, data is `, Object.assign(document.createElement("span"), { ariaHidden: "true" }), " old");
    }
    write(lost.querySelector("span"), lasted(old / 1000));
  }
  lost.hidden = !isStale;
}

// What is told.

function told({ kind, data }) {
  const live = $("live");
  live.classList.remove("beat");
  void live.offsetWidth;
  live.classList.add("beat");
  if (kind === "heartbeat") { show(); return; }
  if (kind === "transition" && data) {
    const details = data.details || {};
    write($("said"), `${data.breaker || ""}: ${(details.from || "").replace("_", "-")} to ${(details.to || "").replace("_", "-")}. ${data.text || ""}`);
  }
  renew();
}

const rows = $("rows") ? list($("rows")) : null;
const shown = dialogs({ renew });
keys({ rows, shown });

if (mark) {
  follow(new URL(`${root}api/v1/stream`, location.href).href, {
    last: Number(html.dataset.last),
    told,
    status: (now) => { way = now; show(); },
  });
  setInterval(() => {
    tick();
    show();
    if (document.hidden && way === "sleeps") return;
    // On a page nobody looks at, the title still tells: but now and then is enough.
    const wait = document.hidden || !pace ? POLL : pace;
    if (Date.now() - last >= wait - 50) renew();
  }, 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { show(); renew(); } });
  addEventListener("online", renew);
}
settle();
show();

// Dark, light, or as the system has it.

const THEMES = ["auto", "dark", "light"];
$("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(html.dataset.theme || "auto") + 1) % THEMES.length];
  if (next === "auto") delete html.dataset.theme;
  else html.dataset.theme = next;
  const path = new URL(root || "./", location.href).pathname;
  document.cookie = `pgbreaker-theme=${next}; path=${path}; max-age=31536000; samesite=strict`;
  write($("theme"), `Theme: ${next}`);
});
write($("theme"), `Theme: ${html.dataset.theme || "auto"}`);

// What a band is about, for those who point at it or come by with the keyboard.

const tip = Object.assign(document.createElement("div"), { className: "tip", hidden: true, ariaHidden: "true" });
document.body.append(tip);
function point(event) {
  const about = event.target.closest?.("[data-tip]");
  tip.hidden = !about;
  if (!about) return;
  write(tip, about.dataset.tip);
  const box = about.getBoundingClientRect(), own = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - own.width - 4))}px`;
  tip.style.top = `${box.top > own.height + 8 ? box.top - own.height - 6 : box.bottom + 6}px`;
}
document.addEventListener("mouseover", point);
document.addEventListener("focusin", point);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
