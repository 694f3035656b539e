"use strict";
/* Reads the overview every second and updates only the elements that differ, so that neither the focus
   nor a screen reader loses its place. All values of the agent are inserted as text. */

const READ_EVERY_MS = 1000;
const READ_TIMEOUT_MS = 5000;
const AWAY_AFTER_MS = 4000;

const PHASES = {
  in_service: ["in service", "good"], drain_due: ["drain due", "busy"],
  draining: ["draining", "busy"], out: ["out", "calm"], acknowledged: ["acknowledged", "calm"],
  in_maintenance: ["in maintenance", "calm"], restore_due: ["restore due", "busy"],
  restoring: ["restoring", "busy"], held: ["held", "bad"], unmanaged: ["in no managed pool", "none"],
};
const WOULD = { drain_due: ["would drain", "busy"] }; // the last phase in a dry run
const UNKNOWN = { leader: ["not read yet", "none"], "dry run": ["not read yet", "none"] };
const NOT_OUT = ["no drain recorded", "none"]; // a standby knows only the ledger
const DRAINING = ["drain_due", "draining"];
const OUT = ["out", "acknowledged", "in_maintenance", "restore_due", "restoring"];
const STATUSES = { Scheduled: "busy", Started: "calm", Gone: "none", Cancelled: "none", Manual: "calm" };
const OVER = ["Gone", "Cancelled"];
const isOver = (event) => OVER.includes(event.status) &&
  !event.timelines.some((each) => each.steps.some((step) => step.state === "pending"));
const VERDICTS = {
  drained: "good", late: "bad", hit_in_rotation: "bad", ignored: "none", cancelled: "none", unmanaged: "none",
};
const FIRST_LINES = 8; // of a long list; the rest is folded
const isManual = (event) => event.status === "Manual";
const STATES = { done: "done", now: "now", pending: "not yet", skipped: "did not happen, or was not observed" };

let shown = null; // the newest overview
let receivedAt = 0; // its arrival, by the browser's clock
let ahead = 0; // the agent's clock minus the browser's, in ms
let failure = "";
let utc = false; // times are local until the button is pressed
const opened = new Set(); // keys of the folded parts that are open

/* --- a description of elements, and the update of the document to match it --- */

function make(tag, attributes, ...children) {
  return { tag, attributes: attributes || {}, children: children.flat(Infinity).filter((c) => c != null) };
}

function show(parent, wanted) {
  wanted.forEach((want, index) => {
    const have = parent.childNodes[index];
    const text = typeof want !== "object";
    if (text) {
      if (!have) parent.append(String(want));
      else if (have.nodeType !== Node.TEXT_NODE) have.replaceWith(String(want));
      else if (have.data !== String(want)) have.data = String(want);
      return;
    }
    let element = have;
    if (!have || have.nodeType !== Node.ELEMENT_NODE || have.localName !== want.tag) {
      element = document.createElement(want.tag);
      if (have) have.replaceWith(element);
      else parent.append(element);
    }
    for (const { name } of [...element.attributes]) {
      if (!(name in want.attributes)) element.removeAttribute(name);
    }
    for (const [name, value] of Object.entries(want.attributes)) {
      if (element.getAttribute(name) !== value) element.setAttribute(name, value);
    }
    show(element, want.children);
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
}

function fill(id, ...children) {
  show(document.getElementById(id), children.flat(Infinity).filter((c) => c != null));
}

/* --- texts --- */

const two = (number) => String(Math.floor(number)).padStart(2, "0");

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${two((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function clock(seconds) {
  const s = Math.max(0, Math.ceil(seconds));
  const minutes = `${two((s % 3600) / 60)}:${two(s % 60)}`;
  if (s < 86400) return s < 3600 ? minutes : `${Math.floor(s / 3600)}:${minutes}`;
  return span(s);
}

const now = () => Date.now() + ahead;
const stale = () => Boolean(shown) && Date.now() - receivedAt > AWAY_AFTER_MS;
const dry = () => shown.agent.role === "dry run";
const ago = (instant) => (now() - Date.parse(instant)) / 1000;

/* "2026-05-01 12:00:00" in UTC or in local time. */
function stamp(at, inUtc) {
  const date = new Date(at);
  const shift = inUtc ? 0 : date.getTimezoneOffset() * 60000;
  return new Date(date.getTime() - shift).toISOString().slice(0, 19).replace("T", " ");
}

function offset() {
  const minutes = -new Date().getTimezoneOffset();
  const size = Math.abs(minutes);
  return `UTC${minutes < 0 ? "-" : "+"}${two(size / 60)}:${two(size % 60)}`;
}

function time(instant) {
  if (!instant) return "";
  const text = stamp(instant, utc);
  const today = stamp(now(), utc).slice(0, 10) === text.slice(0, 10);
  const title = `${stamp(instant, true)} UTC, ${stamp(instant, false)} local time`;
  return make("time", { datetime: instant, title }, text.slice(today ? 11 : 5));
}

const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
function phaseOf(vm, role) {
  if (vm.gone) return ["deleted", "bad"];
  const would = role === "dry run" && WOULD[vm.phase];
  return would || PHASES[vm.phase] || UNKNOWN[role] || NOT_OUT;
}

/* --- the parts of the page --- */

function tile(name, big, ...small) {
  const rest = small.filter((text) => text).map((text) => make("dd", { class: "small" }, text));
  return make("div", {}, make("dt", {}, name), make("dd", { class: "big" }, big), rest);
}

const bad = (text) => make("span", { class: "bad-text" }, text);

/* What Resource Graph adds to the event document, and where the two differ. */
function secondSource(o) {
  const graph = o.resource_graph;
  if (!graph) return [];
  const read = graph.as_of ? `Resource Graph: read ${span(ago(graph.as_of))} ago` : "Resource Graph: not read yet";
  return [graph.problem ? bad(`Resource Graph: ${graph.problem}`) : read,
    graph.unpublished.length ? `not in Resource Graph: ${graph.unpublished.join(", ")}` : "",
    graph.early_ends.length ? `ended only by Resource Graph: ${graph.early_ends.join(", ")}` : ""];
}

function tiles(o) {
  const lease = o.lease;
  const tally = (noun, phases) => {
    const found = o.vms.filter((vm) => phases.includes(vm.phase)).length;
    return found ? `${found} ${noun}` : "";
  };
  const leaving = o.agent.role === "dry run" ?
    [tally("would drain", ["drain_due"]), tally("draining", ["draining"])] : [tally("draining", DRAINING)];
  const doing = [...leaving, tally("out", OUT), tally("held", ["held"])].filter(Boolean);
  const knows = o.vms.length && o.vms.every((vm) => vm.phase);
  const events = o.events.filter((event) => !OVER.includes(event.status) && !isManual(event));
  const failing = o.services.filter((service) => service.failures_in_a_row);
  const next = events.filter((e) => e.impacting && e.status === "Scheduled" && e.not_before)
    .map((e) => e.not_before).sort()[0];
  const epoch = lease.epoch == null ? "" : `epoch ${lease.epoch}`;
  const since = lease.since ? `for ${span(ago(lease.since))}` : "";
  const left = lease.valid_for_s == null || stale() ? "" :
    `lease valid for ${span(lease.valid_for_s - (Date.now() - receivedAt) / 1000)}`;
  const state = left || (lease.state ? `lease: ${lease.state}` : "");
  const leader = lease.leader || (o.ledger.as_of ? bad("none") : "not known yet");
  const asked = o.requests.reduce((sum, each) => sum + each.ok, 0);
  const idle = knows ? (tally("", ["unmanaged"]) ? "none out" : "all in service") : "none out";
  return [
    tile("Leader", leader, [epoch, since].filter(Boolean).join(", "), state),
    tile("VMs", o.ledger.as_of ? doing.join(", ") || idle : "not known yet", `${o.vms.length} in the set`,
      knows || !o.ledger.as_of ? "" : "from the ledger only"),
    tile("Events", events.length ? String(events.length) : "none",
      next ? `next NotBefore in ${clock(-ago(next))}` : "",
      o.document.age_s == null ? "not read yet" :
        `read ${span(o.document.age_s + (Date.now() - receivedAt) / 1000)} ago`, ...secondSource(o)),
    tile("Azure", failing.length ? bad("failing") : "answers",
      ...failing.map((s) => `${s.name || s.service}: ${count(s.failures_in_a_row, "consecutive failure")}`),
      `${asked.toLocaleString("en")} requests answered`),
  ];
}

/* A list whose first lines are shown; the others are folded under one line that counts them. */
function lines(key, items, draw) {
  const first = items.slice(0, FIRST_LINES), rest = items.slice(FIRST_LINES);
  const list = (some) => make("ol", {}, some.map((each) => make("li", {}, draw(each))));
  return [list(first), rest.length ? fold(key, [`${rest.length} more`], [list(rest)]) : null];
}

function fold(key, summary, content) {
  const state = opened.has(key) ? { open: "" } : {};
  return make("details", { "data-key": key, ...state }, make("summary", {}, summary), content);
}

function runbook(each) {
  const { runbook: url } = shown.agent;
  const text = `Runbook: ${each.alert}`;
  return url ? make("a", { href: `${url}#${each.alert.toLowerCase()}`, rel: "noreferrer" }, text) : text;
}

function problem(each) {
  const left = each.deadline ? -ago(each.deadline) : null;
  const soon = left == null ? null : make("p", { class: "deadline" },
    left > 0 ? `NotBefore in ${clock(left)}, ` : "NotBefore was ", time(each.deadline));
  const over = each.kind in VERDICTS;
  const age = each.since ? span(ago(each.since)) : "";
  const since = each.since ? [over ? "At " : "Since ", time(each.since), over ? `, ${age} ago. ` : `, for ${age}. `] : [];
  return make("li", { class: each.severity }, make("strong", {}, each.title), soon, make("p", {}, each.text),
    make("p", { class: "note" }, ...since, "Begin with ", make("code", {}, each.command),
      each.kind === "agent" && each.vm ? ` on ${each.vm}. ` : ". ", runbook(each)));
}

/* What operators have ordered, and what explains the page. */
function notes(o) {
  const alert = (title, text) => make("p", { class: "alert" }, make("strong", {}, title), ` ${text}`);
  return [...o.controls.map((each) => alert(each.kind === "pause" ? "Paused." : "Control.", `${each.text}.`)),
    o.controls_problem ? alert("The controls could not be read.", o.controls_problem) : null, ...explanations(o)];
}

function explanations(o) {
  const { agent, lease } = o;
  const note = (title, ...rest) => make("p", { class: "note-box" }, make("strong", {}, title), " ", ...rest);
  if (agent.role === "starting") return [note("Starting.", agent.headline)];
  if (agent.role === "dry run") {
    return [note("Dry run.", "This agent writes nothing. It shows what a leader would do.")];
  }
  if (agent.role !== "standby" || !lease.leader) return [];
  const port = Number(agent.listen.split(":").pop()) || Number(location.port);
  const near = Number(location.port || 80) + 1;
  return [note("Standby.", "This page shows what the leader has recorded, and VMs and pools as this agent reads them. ",
    `The page of the leader: `, make("code", {}, `ssh -N -L ${near}:127.0.0.1:${port} ${lease.leader}`), ", then ",
    make("a", { href: `http://127.0.0.1:${near}/`, rel: "noreferrer" }, `http://127.0.0.1:${near}/`))];
}

const UNSEEN = "This agent read about the step only after it was done.";

function step(each, state, cancelled) {
  const unseen = each.state === "done" ? make("span", { title: UNSEEN }, "not seen") : "";
  return make("li", state === "now" ? { class: state, "aria-current": "step" } : { class: state },
    make("span", { class: "mark", "aria-hidden": "true" }),
    make("span", { class: "name" }, each.step === "gone" && cancelled ? "cancelled" : each.step),
    make("span", { class: "at" }, each.at ? time(each.at) : unseen,
      make("span", { class: "hidden" }, ` ${STATES[state]}`)));
}

function timeline(each, cancelled, heading = "h4") {
  const waits = each.steps.some((s) => s.state === "pending");
  const last = each.steps.filter((s) => s.state === "done").pop();
  return make("div", { class: "timeline" }, make(heading, {}, each.vm),
    each.verdict ? make("p", { class: "facts" }, verdictPill(each), ` ${verdictRest(each)}`) : null,
    make("ol", { class: "steps" }, each.steps.map((s) => step(s, waits && s === last ? "now" : s.state, cancelled))));
}

function verdictPill(each) {
  return make("span", { class: `pill ${VERDICTS[each.verdict] || "none"}` }, each.verdict.replaceAll("_", " "));
}

/* The text without the words of the pill. */
function verdictRest(each) {
  const words = each.verdict.replaceAll("_", " ");
  return each.text.startsWith(words) ? each.text.slice(words.length).replace(/^[:,]? */, "") : each.text;
}

/* Past events, newest first: the verdicts of one event together, with its progress if it is known. */
function pastEvents(o) {
  const found = new Map();
  for (const each of o.events.filter(isOver)) {
    found.set(each.event_id, { event: each, type: each.event_type, verdicts: [], vms: each.vms });
  }
  for (const each of o.verdicts) {
    const known = found.get(each.event_id) || { event: null, type: each.event_type, verdicts: [], vms: [] };
    known.verdicts.push(each);
    if (!known.vms.includes(each.vm)) known.vms = [...known.vms, each.vm];
    found.set(each.event_id, known);
  }
  const gone = (each) => each.event && each.event.timelines.flatMap((t) => t.steps)
    .filter((s) => s.step === "gone" && s.at).map((s) => s.at).sort().pop();
  return [...found.entries()].map(([id, each]) =>
    ({ ...each, id, at: each.verdicts.length ? each.verdicts[0].at : gone(each) || null }))
    .sort((a, b) => (b.at || "~").localeCompare(a.at || "~"));
}

function past(each) {
  const { event, verdicts } = each;
  const kinds = [...new Map(verdicts.map((v) => [v.verdict, v])).values()];
  const rest = verdicts.length === 1 ? verdictRest(verdicts[0]) : "";
  const line = [make("span", { class: "at" }, time(each.at)), " ",
    make("span", { class: "what" }, `${each.type} of ${each.vms.join(", ")}`), " ",
    kinds.length ? kinds.map((v) => verdictPill(v)) : make("span", { class: "pill none" }, event.status),
    rest ? " " : null, make("span", { class: "rest" }, rest)];
  const inside = event && event.timelines.length ? event.timelines.map((t) => timeline(t, event.status === "Cancelled", "h3"))
    : verdicts.length > 1 ? [make("ul", {}, verdicts.map((v) => make("li", {}, `${v.vm}: ${v.text}`)))] : null;
  if (!inside) return make("div", { class: "line" }, line);
  return fold(`event ${each.id}`, line, [make("p", { class: "note" }, each.id), ...inside]);
}

function countdown(event) {
  if (event.status !== "Scheduled" || !event.not_before) return null;
  const left = -ago(event.not_before);
  return make("div", { class: "when" },
    make("p", { class: "countdown" }, left > 0 ? clock(left) : "due"),
    make("p", {}, left > 0 ? "to NotBefore, " : "NotBefore was ", time(event.not_before)));
}

const title = (each) => `${each.event_type} ${isManual(each) ? "for" : "of"} ${each.vms.join(", ")}`;

function event(each) {
  const drains = each.drain_at && ago(each.drain_at) < 0 && each.status === "Scheduled";
  const facts = [each.source === "Unknown" ? "" : `${each.source} event`,
    each.duration_s == null ? "" : `expected to take ${span(each.duration_s)}`,
    each.impacting ? "" : "ignored by the policy", each.detail,
  ].filter(Boolean).join(", ");
  const tone = STATUSES[each.status] || "bad";
  return make("article", { class: "card" },
    make("div", { class: "event-head" },
      make("div", {}, make("h3", {}, title(each)),
        make("p", { class: "facts" }, make("span", { class: `pill ${tone}` }, each.status), ` ${facts}`),
        make("p", {}, each.event_id),
        drains ? make("p", {}, `drain ${dry() ? "would start" : "starts"} in ${clock(-ago(each.drain_at))}, `, time(each.drain_at)) : null),
      countdown(each)),
    each.timelines.map((t) => timeline(t, each.status === "Cancelled")));
}

/* The role and the release of the agent on a VM; before the agents were read, who leads. */
function agentOf(name) {
  const found = shown.agents.find((each) => each.vm.toLowerCase() === name.toLowerCase());
  if (!found) return name === shown.lease.leader ? make("span", { class: "note" }, "leader") : null;
  const wrong = found.role === "not running" ? " bad-text" : "";
  const role = wrong ? "agent not running" : found.role;
  return make("span", { class: `note${wrong}`, title: found.text }, found.release ? `${role}, ${found.release}` : role);
}

/* The nearest event that is about a VM, in one line. */
function nextEvent(name) {
  const same = (a) => a.toLowerCase() === name.toLowerCase();
  const own = shown.events.filter((e) => !OVER.includes(e.status) && !isManual(e) && e.vms.some(same));
  const next = own.sort((a, b) => (a.not_before || "").localeCompare(b.not_before || ""))[0];
  if (!next) return null;
  const left = next.status === "Scheduled" && next.not_before ? -ago(next.not_before) : null;
  const when = left == null ? next.status.toLowerCase() : left > 0 ? `NotBefore in ${clock(left)}` : "NotBefore has passed";
  return make("span", { class: "note" }, `${next.event_type}: ${when}`);
}

function vm(each) {
  const [phase, tone] = phaseOf(each, shown.agent.role);
  const pools = each.pools.map((pool) => make("li", pool.inside ? {} : { class: "out" },
    `${pool.inside ? "in" : "out of"} ${pool.pool}`));
  const power = each.power && !["running", "unknown"].includes(each.power) ? each.power : null;
  return make("tr", {},
    make("th", { scope: "row" }, each.vm, power ? make("span", { class: "note" }, power) : null, agentOf(each.vm)),
    make("td", {}, make("span", { class: `pill ${tone}` }, phase),
      each.why ? make("span", { class: "note" }, each.why) : null,
      each.closing && !each.why.includes(each.closing.text) ? make("span", { class: "note" }, each.closing.text) : null,
      each.not_covered ? make("span", { class: "note" }, each.not_covered) : null,
      nextEvent(each.vm)),
    make("td", {}, pools.length ? make("ul", { class: "pools" }, pools) : "–"));
}

function line(each) {
  return make("div", { class: "line" }, make("span", { class: "at" }, time(each.at)), " ",
    make("span", { class: "what" }, each.vm), ` ${each.text}`,
    each.detail ? make("span", { class: "rest" }, `: ${each.detail}`) : null);
}

function request(each) {
  const other = Object.entries(each.other).map(([name, number]) => `${number} ${name.replaceAll("_", " ")}`);
  return make("tr", {},
    make("th", { scope: "row" }, each.name),
    make("td", { class: "number" }, String(each.ok)), make("td", {}, other.join(", ") || "–"),
    make("td", { class: "number" }, `${Math.round(each.mean_s * 1000)} ms`));
}

const empty = (columns, text) => make("tr", {}, make("td", { colspan: columns }, text));

/* --- announcements for screen readers: changes only, never counters; and the alerts at the top --- */

let warned = "";

function announce(...sentences) {
  const text = sentences.filter(Boolean).join(" ");
  if (text) fill("changes", text);
}

function changes(before, after) {
  const texts = [];
  const was = new Map((before ? before.vms : []).map((each) => [each.vm, phaseOf(each, before.agent.role)[0]]));
  for (const each of after.vms) {
    const phase = phaseOf(each, after.agent.role)[0];
    if (was.has(each.vm) && was.get(each.vm) !== phase) texts.push(`${each.vm}: ${phase}`);
  }
  const known = new Set((before ? before.events : []).map((each) => each.event_id));
  for (const each of before ? after.events : []) {
    if (!known.has(each.event_id)) texts.push(`${isManual(each) ? "manual drain" : "new event"}: ${title(each)}`);
  }
  const had = new Set((before ? before.problems : []).map((each) => each.title));
  for (const each of before ? after.problems : []) {
    if (!had.has(each.title)) texts.push(`problem: ${each.title}`);
  }
  if (before && before.lease.leader !== after.lease.leader) {
    texts.push(`leader: ${after.lease.leader || "none"}`);
  }
  return texts.map((each) => `${each}.`).join(" ");
}

function alerts() {
  if (!failure || (shown && !stale())) return [];
  const age = shown ? `The page shows the state of ${stamp(receivedAt + ahead, utc)}${utc ? " UTC" : ""}. ` : "";
  return [make("p", { class: "alert" }, make("strong", {}, "The agent does not answer."), ` ${age}Retrying.`)];
}

function quiet(o) {
  if (o.agent.role === "starting" || !o.ledger.as_of) return null;
  return make("li", { class: "fine" }, "No problem is known.");
}

function pulse() {
  if (!shown) return failure ? "no answer yet" : "connecting…";
  if (stale()) return `no answer for ${span((Date.now() - receivedAt) / 1000)}`;
  if (shown.agent.role !== "standby") return "live";
  return shown.ledger.as_of ? `standby, as of ${span(ago(shown.ledger.as_of))} ago` : "standby, reading the ledger";
}

function draw() {
  document.body.classList.toggle("stale", stale());
  const found = alerts();
  const titles = found.map((each) => each.children[0].children[0]).join(" ");
  if (titles !== warned) announce(titles || "The agent answers.");
  warned = titles;
  fill("alerts", found);
  fill("pulse", pulse());
  fill("zone", utc ? "UTC" : "local");
  fill("zone-note", utc ? "Press for local time." : `${offset()}. Press for UTC.`);
  if (!shown) return;
  const { agent } = shown;
  fill("whoami", agent.vm ? `${agent.role} on ${agent.vm}, set ${(agent.availability_set || "").split("/").pop()}, resource group ${agent.resource_group}` : agent.role);
  const wrong = shown.problems.length ? `${count(shown.problems.length, "problem")} – ` : "";
  document.title = `${wrong}${agent.vm ? `${agent.vm}: ` : ""}${agent.headline} – lb-drain`;
  fill("problems", shown.problems.length ? shown.problems.map(problem) : quiet(shown));
  fill("notes", notes(shown));
  fill("tiles", tiles(shown));
  const requested = shown.events.filter(isManual);
  document.getElementById("s-requested").hidden = !requested.length;
  fill("requested", requested.map(event));
  const events = shown.events.filter((each) => !isManual(each) && !isOver(each));
  fill("events", events.length ? events.map(event)
    : make("p", { class: "empty" }, shown.document.age_s == null ? "Not read yet." : "No event is announced."));
  fill("vms", shown.vms.length ? shown.vms.map(vm) : empty("3", "Not known yet."));
  const gone = pastEvents(shown);
  document.getElementById("s-past").hidden = !gone.length;
  fill("past", lines("past", gone, past));
  fill("history", shown.history.length ? lines("history", shown.history, line) : make("p", { class: "line" }, "No history yet."));
  const total = shown.requests.reduce((sum, each) => sum + each.ok, 0);
  fill("asked", `${total.toLocaleString("en")} answered, sent by this agent since it started`);
  fill("requests", shown.requests.length ? shown.requests.map(request) : empty("4", "No requests yet."));
  fill("about", `lb-drain ${agent.release}. `, agent.runbook ? make("a", { href: agent.runbook, rel: "noreferrer" }, "Runbook")
    : "Runbook: deploy/README.md of this release");
}

async function read() {
  const started = Date.now();
  try {
    const reply = await fetch("/api/v1/overview", { cache: "no-store", signal: AbortSignal.timeout(READ_TIMEOUT_MS) });
    if (!reply.ok) throw new Error(`status ${reply.status}`);
    const answer = await reply.json();
    announce(changes(shown, answer));
    shown = answer;
    receivedAt = Date.now();
    ahead = Date.parse(answer.at) - receivedAt;
    failure = "";
  } catch (error) {
    failure = String(error);
  }
  setTimeout(read, Math.max(0, READ_EVERY_MS - (Date.now() - started)));
  draw();
}

document.getElementById("zone").addEventListener("click", () => { utc = !utc; draw(); });
/* The update would close what a person has opened: it is noted here. `toggle` does not bubble, and an
   update can come between a click and its `toggle`. */
const keepOpen = (part, open) => {
  if (!part?.dataset.key) return;
  if (open) opened.add(part.dataset.key);
  else opened.delete(part.dataset.key);
};
document.addEventListener("toggle", ({ target }) => keepOpen(target, target.open), true);
document.addEventListener("click", ({ target }) => {
  const part = target.closest("summary")?.parentElement;
  keepOpen(part, !part?.open);
});
setInterval(draw, READ_EVERY_MS);
read();
