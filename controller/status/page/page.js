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
const VERDICTS = {
  drained: "good", late: "bad", hit_in_rotation: "bad", ignored: "none", cancelled: "none", unmanaged: "none",
};
const MISSED = ["late", "hit_in_rotation"];
const MISSED_SHOWN_S = 86400;
const isManual = (event) => event.status === "Manual";
const STATES = { done: "done", now: "now", pending: "not yet", skipped: "did not happen, or was not observed" };
const MARKS = { done: "✓", now: "●", pending: "", skipped: "–" };

let shown = null; // the newest overview
let receivedAt = 0; // its arrival, by the browser's clock
let ahead = 0; // the agent's clock minus the browser's, in ms
let failure = "";

/* --- a description of elements, and the update of the document to match it --- */

function make(tag, attributes, ...children) {
  return { tag, attributes: attributes || {}, children: children.flat().filter((c) => c != null) };
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
  show(document.getElementById(id), children.flat().filter((c) => c != null));
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

function time(instant) {
  if (!instant) return "";
  const today = new Date(now()).toISOString().slice(0, 10) === instant.slice(0, 10);
  const text = today ? instant.slice(11, 19) : `${instant.slice(5, 10)} ${instant.slice(11, 19)}`;
  return make("time", { datetime: instant, title: instant }, text);
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
  const leader = lease.leader || (o.ledger.as_of ? "none" : "not known yet");
  const asked = o.requests.reduce((sum, each) => sum + each.ok, 0);
  const idle = knows ? (tally("", ["unmanaged"]) ? "none out" : "all in service") : "none out";
  return [
    tile("Leader", leader, [epoch, since].filter(Boolean).join(", "), state),
    tile("VMs", o.ledger.as_of ? doing.join(", ") || idle : "not known yet", `${o.vms.length} in the set`,
      knows || !o.ledger.as_of ? "" : "from the ledger only"),
    tile("Events", events.length ? String(events.length) : "none",
      next ? `next NotBefore in ${clock(-ago(next))}` : "",
      o.document.age_s == null ? "not read yet" :
        `read ${span(o.document.age_s + (Date.now() - receivedAt) / 1000)} ago`),
    tile("Azure", failing.length ? "failing" : "answers",
      ...failing.map((s) => `${s.name || s.service}: ${count(s.failures_in_a_row, "consecutive failure")}`),
      `${asked.toLocaleString("en")} requests answered`),
  ];
}

function hold(each) {
  return make("li", {},
    make("strong", {}, `${each.subject}: ${each.reason.replaceAll("_", " ")}`),
    make("p", {}, each.message),
    make("p", { class: "note" }, "since ", time(each.since), `, for ${span(ago(each.since))}`));
}

function step(each, state, cancelled) {
  return make("li", state === "now" ? { class: state, "aria-current": "step" } : { class: state },
    make("span", { class: "mark", "aria-hidden": "true" }, MARKS[state]),
    make("span", { class: "name" }, each.step === "gone" && cancelled ? "cancelled" : each.step),
    make("span", { class: "at" }, each.at ? time(each.at) : "",
      make("span", { class: "hidden" }, ` ${STATES[state]}`)));
}

function timeline(each, cancelled) {
  const waits = each.steps.some((s) => s.state === "pending");
  const last = each.steps.filter((s) => s.state === "done").pop();
  return make("div", { class: "timeline" }, make("h4", {}, each.vm),
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

function verdict(each) {
  return make("tr", {}, make("td", { class: "fixed" }, time(each.at)),
    make("td", { class: "fixed" }, each.vm), make("td", { class: "fixed" }, each.event_type),
    make("td", {}, verdictPill(each), make("span", { class: "note" }, verdictRest(each))));
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

function vm(each) {
  const [phase, tone] = phaseOf(each, shown.agent.role);
  const pools = each.pools.map((pool) => make("li", pool.inside ? {} : { class: "out" },
    `${pool.inside ? "in" : "out of"} ${pool.pool}`));
  const power = each.power && !["running", "unknown"].includes(each.power) ? each.power : null;
  return make("tr", {},
    make("th", { scope: "row" }, each.vm, power ? make("span", { class: "note" }, power) : null),
    make("td", {}, make("span", { class: `pill ${tone}` }, phase),
      each.why ? make("span", { class: "note" }, each.why) : null,
      each.closing && !each.why.includes(each.closing.text) ? make("span", { class: "note" }, each.closing.text) : null),
    make("td", {}, pools.length ? make("ul", { class: "pools" }, pools) : "–"));
}

function line(each) {
  return make("tr", {}, make("td", { class: "fixed" }, time(each.at)),
    make("td", { class: "fixed" }, each.vm),
    make("td", {}, each.text, each.detail ? make("span", { class: "note" }, each.detail) : null));
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
  if (before && before.lease.leader !== after.lease.leader) {
    texts.push(`leader: ${after.lease.leader || "none"}`);
  }
  return texts.map((each) => `${each}.`).join(" ");
}

function alerts() {
  const found = [];
  const add = (title, text, calm) =>
    found.push(make("p", { class: calm ? "alert calm" : "alert" }, make("strong", {}, title), ` ${text}`));
  if (failure && (!shown || stale())) {
    add("The agent does not answer.", shown ? "The page shows the state of " +
      `${new Date(receivedAt + ahead).toISOString().slice(11, 19)} UTC. Retrying.` : "Retrying.");
  } else if (shown) {
    const { agent, ledger } = shown;
    if (agent.role === "starting") add("Starting.", agent.headline, true);
    else if (!agent.healthy) add("Not healthy.", agent.why);
    else if (dry()) add("Dry run.", "This agent writes nothing. It shows what a leader would do.", true);
    const missed = shown.verdicts.find((each) => MISSED.includes(each.verdict));
    if (missed && ago(missed.at) < MISSED_SHOWN_S) {
      add(missed.verdict === "late" ? "Drained late." : "Hit in rotation.",
        `${missed.event_type} of ${missed.vm}, ${missed.at.slice(0, 10)} ${missed.at.slice(11, 19)} UTC: ${verdictRest(missed)}.`);
    }
    for (const each of shown.controls) add(each.kind === "pause" ? "Paused." : "Control.", `${each.text}.`);
    if (shown.controls_problem) add("The controls could not be read.", shown.controls_problem);
    if (ledger.problem) add("The ledger could not be read.", ledger.problem);
  }
  return found;
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
  if (titles !== warned) announce(titles || "The agent answers and is healthy.");
  warned = titles;
  fill("alerts", found);
  fill("pulse", pulse());
  if (!shown) return;
  const { agent } = shown;
  const set = (agent.availability_set || "").split("/").pop();
  fill("whoami", agent.vm ? `${agent.role} on ${agent.vm}, set ${set}` : agent.role);
  document.title = `${agent.vm ? `${agent.vm}: ` : ""}${agent.headline} – lb-drain`;
  fill("tiles", tiles(shown));
  document.getElementById("s-holds").hidden = !shown.holds.length;
  fill("holds", shown.holds.map(hold));
  const requested = shown.events.filter(isManual);
  document.getElementById("s-requested").hidden = !requested.length;
  fill("requested", requested.map(event));
  const events = shown.events.filter((each) => !isManual(each));
  fill("events", events.length ? events.map(event)
    : make("p", { class: "empty" }, shown.document.age_s == null ? "Not read yet." : "No event is announced."));
  fill("vms", shown.vms.length ? shown.vms.map(vm) : empty("3", "Not known yet."));
  document.getElementById("s-verdicts").hidden = !shown.verdicts.length;
  fill("verdicts", shown.verdicts.map(verdict));
  fill("history", shown.history.length ? shown.history.map(line) : empty("3", "No history yet."));
  fill("requests", shown.requests.length ? shown.requests.map(request) : empty("4", "No requests yet."));
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

setInterval(draw, READ_EVERY_MS);
read();
