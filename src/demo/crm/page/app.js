"use strict";

// Whatever comes from the CRM is shown as text: nodes are made here, and strings only ever become text nodes.

const byId = (id) => document.getElementById(id);

/** Makes an element: properties, then children (nodes or texts; null is left out). */
function h(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("aria-") || name === "role" || name === "for") node.setAttribute(name, value);
    else if (name === "data") Object.assign(node.dataset, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const number = new Intl.NumberFormat("en");
const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
const key = (entity, id) => JSON.stringify([entity, id]);

// Calls ---------------------------------------------------------------------------------------------------------------

let token = sessionStorage.getItem("token") ?? "";

async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.status === 401) {
    signIn();
    throw new Error("the token is missing or wrong");
  }
  if (!answer.ok) {
    const body = await answer.json().catch(() => null);
    throw new Error(body?.error?.message ?? `the CRM answers ${answer.status}`);
  }
  return answer;
}

const get = async (path) => (await call(path)).json();

function signIn() {
  if (!byId("sign-in").open) byId("sign-in").showModal();
}

byId("sign-in-form").addEventListener("submit", () => {
  token = byId("token").value.trim();
  sessionStorage.setItem("token", token);
  byId("token").value = "";
  follow();
  route();
});

// What is shown -------------------------------------------------------------------------------------------------------

const view = {
  entity: null,
  search: "",
  records: [],
  next: null,
  versions: new Map(),
  selected: null,
  asked: 0,
  stale: false,
  paused: false,
  counts: {},
};

// The address names what is shown: #/entity, #/entity/external id, #/faults.
const address = (entity, id) => `#/${encodeURIComponent(entity)}${id === undefined ? "" : `/${encodeURIComponent(id)}`}`;

function route() {
  const [entity, id] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  if (entity === "faults" && id === undefined) {
    openFaults();
    return;
  }
  if (entity && entity !== view.entity) {
    Object.assign(view, { entity, search: "", records: [], next: null, versions: new Map() });
    byId("search").value = "";
    drawTabs();
    byId("tabs").querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest", inline: "center" });
    load();
  }
  view.selected = id === undefined || id === "" ? null : { entity, id };
  drawSelection();
  loadDetail(true);
}

addEventListener("hashchange", route);

// Figures and tabs ----------------------------------------------------------------------------------------------------

function drawFigures(stats, rate) {
  const requests = Object.values(stats.requests).reduce((all, count) => all + count, 0);
  const records = Object.values(stats.entities).reduce((all, count) => all + count, 0);
  const figures = [
    ["records", number.format(records)],
    ["writes per second", number.format(rate)],
    ["requests", number.format(requests)],
    ["in flight", number.format(stats.in_flight)],
    ["rejected", number.format(stats.records.rejected)],
    ["stale writes", number.format(stats.stale_writes)],
    ["went back in time", number.format(stats.regressions), stats.regressions > 0],
  ];
  byId("figures").replaceChildren(
    ...figures.map(([name, value, bad]) => h("div", { class: bad ? "bad" : "" }, h("dt", {}, name), h("dd", {}, value))),
  );
  const alarm = byId("open-faults");
  alarm.classList.toggle("alarm", stats.faults_on);
  alarm.textContent = stats.faults_on ? "Fault switches are on" : "Fault switches";
}

function drawTabs() {
  const names = Object.keys(view.counts);
  if (view.entity && !names.includes(view.entity)) names.push(view.entity);
  const strip = byId("tabs");
  const present = new Map([...strip.children].map((tab) => [tab.dataset.name, tab]));
  strip.replaceChildren(
    ...names.map((name) => {
      const tab =
        present.get(name) ??
        h(
          "button",
          { type: "button", role: "tab", data: { name }, onclick: () => (location.hash = address(name)), onkeydown: stepTabs },
          name,
          h("span", { class: "count" }),
        );
      const chosen = name === view.entity;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
      tab.querySelector(".count").textContent = number.format(view.counts[name] ?? 0);
      return tab;
    }),
  );
}

function stepTabs(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const tabs = [...byId("tabs").children];
  const next = tabs[(tabs.indexOf(event.currentTarget) + step + tabs.length) % tabs.length];
  next.focus();
  next.click();
}

// Records -------------------------------------------------------------------------------------------------------------

/** Reads as many records as are shown (a first page otherwise), or a page more. */
async function load(more = false) {
  const { entity, search } = view;
  if (!entity) return;
  const turn = ++view.asked;
  const query = new URLSearchParams({ entity, q: search, limit: more ? 50 : Math.min(Math.max(view.records.length, 50), 500) });
  if (more && view.next !== null) query.set("after", view.next);
  try {
    const page = await get(`/admin/records?${query}`);
    if (turn !== view.asked) return;
    view.records = more ? [...view.records, ...page.records] : page.records;
    view.next = page.next;
    drawRecords();
  } catch (error) {
    if (turn !== view.asked) return;
    view.records = [];
    view.next = null;
    drawRecords(error.message);
  }
}

/** Up to six fields to show: those that most records have and that tell records apart, plain values before nested. */
function columns(records) {
  const seen = new Map();
  for (const { fields } of records) {
    Object.entries(fields).forEach(([name, value], place) => {
      const column = seen.get(name) ?? { name, count: 0, place: 0, numbers: 0, weight: 0, values: new Set() };
      column.count += 1;
      column.place += place;
      column.numbers += typeof value === "number" ? 1 : 0;
      if (typeof value === "string" && value.length > 90) column.weight += 3;
      if (value !== null && typeof value === "object" && !isReference(value)) column.weight += 0.5;
      if (column.values.size < 2) column.values.add(JSON.stringify(value));
      seen.set(name, column);
    });
  }
  const worth = (column) => column.count - column.weight - (column.values.size < 2 && records.length > 2 ? column.count * 0.6 : 0);
  const place = (column) => column.place / column.count;
  return [...seen.values()]
    .filter((column) => column.weight < column.count * 2)
    .sort((a, b) => worth(b) - worth(a) || place(a) - place(b))
    .slice(0, byId("records").clientWidth > 950 ? 6 : 5)
    .sort((a, b) => place(a) - place(b))
    .map((column) => ({ name: column.name, number: column.numbers * 2 > column.count }));
}

const isReference = (value) =>
  value !== null && typeof value === "object" && typeof value.external_id === "string" && Object.keys(value).length === 1;

/** A value on one line. */
function brief(value) {
  if (value === undefined || value === null) return h("span", { class: "nothing" }, "–");
  if (isReference(value)) return `→ ${value.external_id}`;
  if (Array.isArray(value)) return `${value.length} ${value.length === 1 ? "item" : "items"}`;
  if (typeof value === "object") {
    return Object.values(value).filter((part) => part !== null && typeof part !== "object").join(", ");
  }
  return String(value);
}

function drawRecords(problem) {
  const shown = columns(view.records);
  byId("head").replaceChildren(
    h(
      "tr",
      {},
      h("th", { scope: "col" }, "external id"),
      ...shown.map((column) => h("th", { scope: "col", class: column.number ? "number" : "" }, column.name)),
    ),
  );
  const before = view.versions;
  view.versions = new Map();
  byId("rows").replaceChildren(
    ...view.records.map((record) => {
      view.versions.set(record.external_id, record.version);
      const fresh = before.size > 0 && before.get(record.external_id) !== record.version;
      const open = () => (location.hash = address(view.entity, record.external_id));
      return h(
        "tr",
        { data: { id: record.external_id }, class: fresh ? "arrived" : "", onclick: open },
        h("td", { class: "id" }, h("button", { type: "button", class: "link" }, record.external_id)),
        ...shown.map((column) => h("td", { class: column.number ? "number" : "" }, brief(record.fields[column.name]))),
      );
    }),
  );
  byId("head").hidden = view.records.length === 0;
  const total = view.counts[view.entity] ?? 0;
  const found = number.format(view.records.length);
  byId("records-note").textContent = view.search
    ? `${found}${view.next === null ? "" : " or more"} found`
    : `${found} of ${number.format(total)}`;
  byId("more").hidden = view.next === null;
  const empty = byId("empty");
  empty.hidden = view.records.length > 0;
  empty.replaceChildren(
    ...(problem
      ? [h("strong", {}, "The records cannot be shown"), problem]
      : view.search
        ? [h("strong", {}, "Nothing found"), `No ${view.entity} holds “${view.search}”.`]
        : [h("strong", {}, "No records yet"), "They appear here as they arrive."]),
  );
  drawSelection();
}

function drawSelection() {
  const id = view.selected?.entity === view.entity ? view.selected.id : null;
  for (const row of byId("rows").children) row.setAttribute("aria-selected", row.dataset.id === id);
}

let typing = 0;
byId("search").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    view.search = event.target.value.trim();
    view.records = [];
    view.versions = new Map();
    load();
  }, 200);
});
byId("more").addEventListener("click", () => load(true));

// One record ----------------------------------------------------------------------------------------------------------

byId("close-detail").addEventListener("click", () => (location.hash = address(view.entity)));
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && view.selected && !document.querySelector("dialog[open]")) location.hash = address(view.entity);
});

/** Which entity a field refers to, from the CRM's own model. */
let references = null;

async function model() {
  if (references) return references;
  const found = {};
  const { components } = await get("/openapi.json");
  for (const [entity, { properties }] of Object.entries(components.schemas)) {
    for (const [name, schema] of Object.entries(properties ?? {})) {
      if (typeof schema["x-ref"] === "string") found[key(entity, name)] = schema["x-ref"];
    }
  }
  references = found;
  return found;
}

/** A value in full. `target` is the entity that a reference leads to, if that is known. */
function full(value, target) {
  if (value === null || value === undefined) return h("span", { class: "nothing" }, "–");
  if (value === "") return h("span", { class: "nothing" }, "empty text");
  if (isReference(value)) {
    const id = value.external_id;
    return target ? h("button", { type: "button", class: "link", onclick: () => (location.hash = address(target, id)) }, id) : `→ ${id}`;
  }
  if (Array.isArray(value)) {
    return value.length ? h("ol", { class: "list" }, ...value.map((item) => h("li", {}, full(item)))) : h("span", { class: "nothing" }, "empty list");
  }
  if (typeof value === "object") return pairs(value, () => undefined);
  return String(value);
}

function pairs(fields, target) {
  return h("dl", { class: "pairs" }, ...Object.entries(fields).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, full(value, target(name)))]));
}

const nested = (value) => value !== null && typeof value === "object" && !isReference(value);

/** What changed, nested values part by part: [path, from, to]. */
function parts(name, from, to) {
  const both = nested(from) && nested(to) && Array.isArray(from) === Array.isArray(to);
  const one = (from === undefined && nested(to)) || (to === undefined && nested(from));
  if (!both && !one) return JSON.stringify(from) === JSON.stringify(to) ? [] : [[name, from, to]];
  const list = Array.isArray(from ?? to);
  const names = [...new Set([...Object.keys(from ?? {}), ...Object.keys(to ?? {})])];
  if (names.length === 0) return [[name, from, to]];
  return names.flatMap((part) => parts(list ? `${name}[${part}]` : `${name}.${part}`, from?.[part], to?.[part]));
}

function change(name, from, to) {
  const text = (value) => (typeof value === "string" ? value || "empty text" : isReference(value) ? `→ ${value.external_id}` : JSON.stringify(value));
  return h(
    "div",
    { class: "change" },
    h("span", {}, name),
    h(
      "span",
      {},
      from === undefined ? null : h("del", {}, text(from)),
      from === undefined || to === undefined ? null : h("span", { class: "arrow", "aria-hidden": "true" }, "→"),
      to === undefined ? null : h("ins", {}, text(to)),
    ),
  );
}

async function loadDetail(opened = false) {
  const { selected } = view;
  const panel = byId("detail");
  if (!selected) {
    panel.hidden = true;
    return;
  }
  let shown;
  let targets = {};
  try {
    targets = await model();
    shown = await get(`/admin/record?${new URLSearchParams(selected)}`);
  } catch (error) {
    shown = { problem: error.message };
  }
  if (view.selected !== selected) return;
  byId("detail-entity").textContent = selected.entity;
  byId("detail-title").textContent = selected.id;
  const parts = [];
  if (shown.problem) parts.push(h("p", { class: "note" }, shown.problem));
  if (shown.record) {
    const { id, version, fields } = shown.record;
    parts.push(
      h("p", { class: "meta" }, h("span", {}, "id ", h("code", {}, id)), h("span", {}, "version ", h("code", {}, version))),
      h("h3", {}, "Fields"),
      pairs(fields, (name) => targets[key(selected.entity, name)]),
    );
  } else if (!shown.problem) {
    parts.push(h("p", { class: "note" }, "This record is deleted."));
  }
  if (shown.history) {
    parts.push(h("h3", {}, "History since the server started"));
    if (shown.history.length === 0) parts.push(h("p", { class: "note" }, shown.recorded ? "Nothing is kept of it any more." : "History is switched off."));
    else parts.push(h("ol", { class: "past" }, ...shown.history.map(drawPast)));
  }
  byId("detail-body").replaceChildren(...parts);
  panel.hidden = false;
  if (opened) panel.focus({ preventScroll: matchMedia("(min-width: 1081px)").matches });
}

function drawPast(past) {
  const changes = Object.entries(past.changes ?? {}).flatMap(([name, { from, to }]) => parts(name, from, to));
  return h(
    "li",
    {},
    h(
      "div",
      { class: "when" },
      h("span", { class: `chip ${past.status}` }, past.status),
      h("time", { dateTime: new Date(past.at).toISOString() }, clock(past.at)),
      h("span", {}, "version ", h("code", {}, past.version)),
    ),
    past.message ? h("p", { class: "why" }, past.message) : null,
    changes.length ? h("div", { class: "changes" }, ...changes.map((parts) => change(...parts))) : null,
  );
}

// What arrives --------------------------------------------------------------------------------------------------------

const FEED = 120;
const rates = [];
let last = null;

function news({ stats, events, skipped }) {
  const records = Object.values(stats.records).reduce((all, count) => all + count, 0);
  let rate = 0;
  if (last && stats.now > last.now) rate = ((records - last.records) * 1000) / (stats.now - last.now);
  if (!last || stats.now - last.now > 200) {
    last = { now: stats.now, records };
    rates.push({ at: stats.now, rate });
    while (rates.length > 2 && rates[1].at < stats.now - 60_000) rates.shift();
  }
  const recent = rates.filter((point) => point.at > stats.now - 2_000);
  const average = Math.round(recent.reduce((all, point) => all + point.rate, 0) / Math.max(recent.length, 1));
  const grown = view.entity && (stats.entities[view.entity] ?? 0) !== (view.counts[view.entity] ?? 0);
  view.counts = stats.entities;
  drawFigures(stats, average);
  drawTabs();
  drawSpark(stats.now);
  byId("rate").textContent = average > 0 ? `${number.format(average)} per second` : "quiet";
  if (!view.entity && Object.keys(view.counts).length > 0) {
    const fullest = Object.entries(view.counts).sort((a, b) => b[1] - a[1])[0][0];
    if (location.hash === "#/faults") Object.assign(view, { entity: fullest }) && load();
    else location.replace(address(fullest));
  }
  if (view.paused) return;
  drawEvents(events, skipped);
  view.stale ||= grown || events.some((event) => event.entity === view.entity);
  if (view.selected && events.some((event) => key(event.entity, event.external_id) === key(view.selected.entity, view.selected.id))) loadDetail();
}

// The table follows at its own pace: once a second is as fast as anybody can read.
setInterval(() => {
  if (!view.stale || view.paused || document.hidden || byId("search") === document.activeElement) return;
  view.stale = false;
  load();
}, 1000);

function drawEvents(events, skipped) {
  if (events.length === 0) return;
  const feed = byId("feed");
  const rows = events.map((event) =>
    h(
      "li",
      { class: "arrived", title: event.message ?? "" },
      h("time", { dateTime: new Date(event.at).toISOString() }, clock(event.at)),
      h("span", { class: `chip ${event.status}` }, event.status.replace("_", " ")),
      h(
        "span",
        { class: "what" },
        h("button", { type: "button", class: "link", onclick: () => (location.hash = address(event.entity, event.external_id)) }, event.external_id),
        h("span", {}, ` ${event.entity}`),
      ),
    ),
  );
  if (skipped > 0) rows.unshift(h("li", { class: "skipped" }, `${number.format(skipped)} more`));
  feed.prepend(...rows.reverse());
  while (feed.children.length > FEED) feed.lastElementChild.remove();
}

function drawSpark(now) {
  const width = 240;
  const height = 40;
  const top = Math.max(1, ...rates.map((point) => point.rate));
  const x = (at) => Math.max(0, width - ((now - at) / 60_000) * width).toFixed(1);
  const y = (rate) => (height - 2 - (rate / top) * (height - 8)).toFixed(1);
  const line = rates.map((point, index) => `${index ? "L" : "M"}${x(point.at)} ${y(point.rate)}`).join("");
  const path = (name, d) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", "path");
    node.setAttribute("class", name);
    node.setAttribute("d", d);
    return node;
  };
  const from = x(rates[0]?.at ?? now);
  byId("spark").replaceChildren(...(rates.length > 1 ? [path("area", `${line}L${width} ${height}L${from} ${height}Z`), path("line", line)] : []));
}

function connection(state, text) {
  byId("connection").dataset.state = state;
  byId("connection").textContent = text;
}

const say = () => connection(view.paused ? "paused" : "live", view.paused ? "paused" : "live");

byId("pause").addEventListener("click", (event) => {
  view.paused = !view.paused;
  event.target.setAttribute("aria-pressed", view.paused);
  event.target.textContent = view.paused ? "Paused" : "Pause";
  say();
});

// Server-sent events over fetch: an EventSource cannot carry a token.
let following = 0;
async function follow() {
  const turn = ++following;
  for (let wait = 500; turn === following; wait = Math.min(wait * 2, 10_000)) {
    try {
      const answer = await call("/admin/events");
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      say();
      wait = 500;
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done || turn !== following) break;
        text += value;
        const lines = text.split("\n\n");
        text = lines.pop();
        for (const line of lines) if (line.startsWith("data: ")) news(JSON.parse(line.slice(6)));
      }
      if (turn !== following) return void reader.cancel();
    } catch (error) {
      connection("lost", error instanceof TypeError ? "not reachable" : error.message);
      if (byId("sign-in").open) return;
    }
    connection("lost", "connecting again");
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

// Fault switches ------------------------------------------------------------------------------------------------------

const SHARES = [
  ["error_500", "Error 500", "Nothing is done."],
  ["error_503", "Error 503", "Nothing is done."],
  ["drop_before", "Cut before", "The connection is cut; nothing is done."],
  ["drop_after_apply", "Cut after", "The write is done, then the connection is cut without an answer."],
  ["cut_answer", "Cut in the answer", "The write is done; the connection breaks half-way."],
  ["truncated_json", "Half an answer", "The write is done; its answer is half a JSON document."],
  ["too_few_results", "Too few results", "The write is done; the answer lacks its last results."],
  ["html_login", "Login page", "200 with HTML; nothing is done."],
  ["stale", "Stale", "Share of records that are written and answered “stale”."],
];

const field = {};

function line(name, about, ...inputs) {
  const label = h("div", {}, h("span", { class: "name" }, name), h("p", {}, about));
  return h("div", { class: "switch" }, label, ...inputs);
}

function labelled(name, input) {
  input.setAttribute("aria-label", name);
  return input;
}

function share(id, name) {
  const range = labelled(`${name}, share`, h("input", { type: "range", min: 0, max: 100, step: 1, value: 0 }));
  const box = labelled(`${name}, percent`, h("input", { type: "number", min: 0, max: 100, step: "any", value: 0 }));
  range.addEventListener("input", () => (box.value = range.value));
  box.addEventListener("input", () => (range.value = box.value));
  field[id] = { get: () => Number(box.value) / 100, set: (value) => (box.value = range.value = +(value * 100).toFixed(4)) };
  return [range, box];
}

function plain(id, name, properties, read = (value) => value) {
  const box = labelled(name, h("input", properties));
  field[id] = { get: () => read(box.value), set: (value) => (box.value = value ?? "") };
  return box;
}

function buildFaults() {
  const wide = (...inputs) => h("div", { class: inputs.length > 1 ? "wide pair" : "wide" }, ...inputs);
  const count = (value) => Math.max(0, Math.floor(Number(value) || 0));
  const fencing = labelled("No version fencing", h("input", { type: "checkbox", class: "check" }));
  field.no_fencing = { get: () => fencing.checked, set: (value) => (fencing.checked = value) };
  const whole = { type: "number", min: 0, step: 1 };
  byId("faults-body").replaceChildren(
    h("h3", {}, "Time"),
    line("Latency", "Every call takes so many ms, and up to so many more.",
      wide(plain("latency_ms", "Latency in ms", { ...whole, placeholder: "ms", autofocus: true }, count), plain("jitter_ms", "Jitter in ms", { ...whole, placeholder: "jitter" }, count))),
    line("Too many requests", "429; nothing is done.", ...share("throttle", "Too many requests")),
    line("Retry-After", "Sent as it is here; date:7 is the HTTP date in 7 s.",
      wide(plain("retry_after", "Retry-After", { type: "text", placeholder: "none" }))),
    h("h3", {}, "Answers, in percent of the calls"),
    ...SHARES.map(([id, name, about]) => line(name, about, ...share(id, name))),
    h("h3", {}, "Credentials"),
    line("Unauthorized", "401 to the next so many calls.", wide(plain("unauthorized", "Unauthorized calls", { ...whole, placeholder: "calls" }, count))),
    h("h3", {}, "Records"),
    line("Reject", "One in so many upserts of an entity (of all, if it is empty), always the same records.",
      wide(plain("reject_entity", "Entity to reject", { type: "text", placeholder: "entity" }), plain("reject_every", "One in", { ...whole, placeholder: "one in" }, count))),
    line("No fencing", "Lower versions are applied, and counted as going back in time.", fencing),
  );
}

/** Switches that this page does not show (made by a call) are kept as they are. */
let others = {};

function fillFaults(faults) {
  others = structuredClone(faults);
  const rule = (faults.reject ?? []).find((reject) => reject.every) ?? {};
  const amount = (dose) => dose?.share ?? 0;
  field.latency_ms.set(faults.latency_ms || "");
  field.jitter_ms.set(faults.jitter_ms || "");
  field.throttle.set(faults.throttle?.share ?? 0);
  field.retry_after.set(faults.throttle?.retry_after);
  for (const [id] of SHARES) field[id].set(id === "stale" ? faults.stale : amount(faults[id]));
  field.unauthorized.set(faults.unauthorized?.next || "");
  field.reject_entity.set(rule.entity);
  field.reject_every.set(rule.every);
  field.no_fencing.set(faults.no_fencing);
}

function readFaults() {
  const faults = { ...others };
  const dose = (id, change) => ({ share: 0, next: 0, ...others[id], ...change });
  faults.latency_ms = field.latency_ms.get();
  faults.jitter_ms = field.jitter_ms.get();
  faults.throttle = { ...others.throttle, share: field.throttle.get(), retry_after: field.retry_after.get() || null };
  if (!faults.throttle.share && !faults.throttle.next) delete faults.throttle;
  for (const [id] of SHARES) faults[id] = id === "stale" ? field.stale.get() : dose(id, { share: field[id].get() });
  faults.unauthorized = dose("unauthorized", { next: field.unauthorized.get() });
  faults.reject = (others.reject ?? []).filter((reject) => !reject.every);
  if (field.reject_every.get() > 0) faults.reject.push({ entity: field.reject_entity.get().trim() || null, every: field.reject_every.get() });
  faults.no_fencing = field.no_fencing.get();
  return faults;
}

async function openFaults() {
  try {
    fillFaults(await get("/admin/faults"));
    byId("faults-error").hidden = true;
    if (!byId("faults").open) byId("faults").showModal();
  } catch (error) {
    notice(error.message);
  }
}

async function sendFaults(options) {
  try {
    fillFaults(await (await call("/admin/faults", options)).json());
    byId("faults").close();
  } catch (error) {
    byId("faults-error").textContent = error.message;
    byId("faults-error").hidden = false;
  }
}

byId("open-faults").addEventListener("click", openFaults);
byId("close-faults").addEventListener("click", () => byId("faults").close());
byId("faults-off").addEventListener("click", () => sendFaults({ method: "DELETE" }));
byId("faults").addEventListener("close", () => {
  if (location.hash === "#/faults") location.replace(view.entity ? address(view.entity) : "#/");
});
byId("faults-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sendFaults({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(readFaults()) });
});

function notice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = false;
}

buildFaults();
follow();
if (location.hash) route();
