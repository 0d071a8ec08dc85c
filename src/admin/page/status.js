"use strict";
// Renders status.json once a second. Text goes in through textContent only.

const history = { lag: [], out: [] };
const POINTS = 300;
const byId = (id) => document.getElementById(id);

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function count(n) {
  return n === null || n === undefined ? "–" : Math.round(n).toLocaleString("en-US");
}

function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return (unit === 0 ? n : n.toFixed(1)) + " " + units[unit];
}

function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return seconds.toFixed(1) + " s";
  if (seconds < 60) return Math.round(seconds) + " s";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min " + Math.round(seconds % 60) + " s";
  if (seconds < 86400) return Math.floor(seconds / 3600) + " h " + Math.floor(seconds % 3600 / 60) + " min";
  return Math.floor(seconds / 86400) + " d " + Math.floor(seconds % 86400 / 3600) + " h";
}

function since(moment, now) {
  return moment ? Math.max(0, (now - Date.parse(moment)) / 1000) : null;
}

const words = (name) => name.replaceAll("_", " ");

function stateClass(state) {
  if (state === "live") return "pill good";
  if (state === "failed" || state === "needs_attention") return "pill bad";
  if (state === "paused" || state.startsWith("waiting")) return "pill warn";
  return "pill";
}

function tile(name, value, more, level) {
  const node = element("div", "tile " + (level || ""));
  node.append(element("div", "name", name), element("div", "value", value), element("div", "more", more || ""));
  return node;
}

function draw(id, points, max) {
  const svg = byId(id);
  svg.replaceChildren();
  if (points.length < 2) return;
  const step = 600 / (POINTS - 1), left = 600 - (points.length - 1) * step;
  const at = points.map((v, i) => (left + i * step).toFixed(1) + "," + (78 - 74 * v / max).toFixed(1));
  for (const [kind, d] of [["area", "M" + left.toFixed(1) + ",80L" + at.join("L") + "L600,80Z"], ["line", "M" + at.join("L")]]) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", kind);
    path.setAttribute("d", d);
    svg.append(path);
  }
}

function trend(key, value, line, label, format) {
  const points = history[key];
  points.push(value || 0);
  if (points.length > POINTS) points.shift();
  const max = Math.max(...points, 1e-9);
  draw(line, points, Math.max(max, 1));
  byId(label).textContent = "highest " + format(max);
}

function bar(table) {
  const cell = element("td", "wide");
  const ratio = table.phase === "live" ? 1
    : table.rows_estimate ? Math.min(table.rows_done / table.rows_estimate, 0.999)
      : table.phase === "catching_up" ? 0.999 : 0;
  const frame = element("div", "bar" + (ratio === 1 ? " done" : ""));
  frame.title = (ratio * 100).toFixed(1) + " %";
  const fill = element("i");
  fill.style.width = (ratio * 100).toFixed(1) + "%";
  frame.append(fill);
  cell.append(frame);
  return cell;
}

function rows(id, list, make) {
  byId(id).tBodies[0].replaceChildren(...list.map((item) => {
    const row = element("tr");
    row.append(...make(item));
    return row;
  }));
}

function render(report) {
  const now = Date.parse(report.reported_at) || Date.now();
  document.title = report.tenant + " · " + words(report.state);
  byId("tenant").textContent = report.tenant;
  byId("state").textContent = words(report.state);
  byId("state").className = stateClass(report.state);
  const inState = since(report.since, now);
  byId("since").textContent = "from " + report.source.engine + (inState === null ? "" : ", in this state for " + span(inState));

  const notices = report.tables.filter((t) => t.attention).map((t) => t.name + ": " + t.attention);
  const error = report.last_error;
  if (error && !error.recovered) notices.push(error.message + (error.hint ? " — " + error.hint : ""));
  if (report.delivery.throttled_until && Date.parse(report.delivery.throttled_until) > now) {
    notices.push("the CRM asked us to wait for " + span((Date.parse(report.delivery.throttled_until) - now) / 1000));
  }
  byId("attention").hidden = notices.length === 0;
  byId("attention").replaceChildren(...notices.map((text) => element("p", "", text)));

  const dead = report.entities.reduce((n, e) => n + e.dead_letters, 0);
  const parked = report.entities.reduce((n, e) => n + e.parked, 0);
  const lag = report.lag, kept = report.retention, delivery = report.delivery;
  byId("tiles").replaceChildren(
    tile("lag", span(lag.seconds), count(lag.pending_changes) + " changes pending", lag.seconds > 300 ? "warn" : ""),
    tile("log still to read", bytes(lag.pending_bytes),
      kept.seconds !== null ? "kept for " + span(kept.seconds)
        : kept.bytes_left !== null ? bytes(kept.bytes_left) + " until the source drops it" : ""),
    tile("in", count(report.source.changes_per_second + report.source.snapshot_rows_per_second) + " /s", "changes and snapshot rows"),
    tile("settled", count(delivery.records_per_second) + " /s",
      count(delivery.records_in_flight) + " in " + count(delivery.requests_in_flight) + " requests"),
    tile("window", Math.round(delivery.backpressure * 100) + " %", "of memory for changes", delivery.backpressure >= 1 ? "warn" : ""),
    tile("parked", count(parked), "wait for their parent"),
    tile("dead letters", count(dead), dead ? "tidemark dead-letters list" : "", dead ? "bad" : ""),
    tile("checkpoint", report.checkpoint.saved_at ? span(since(report.checkpoint.saved_at, now)) : "–", report.checkpoint.saved_at ? "ago" : "none yet"));

  trend("lag", lag.seconds, "lag-line", "lag-max", span);
  trend("out", delivery.records_per_second, "out-line", "out-max", (n) => count(n));

  rows("tables", report.tables, (t) => {
    const phase = element("td", t.phase === "needs_attention" ? "bad" : "", words(t.phase));
    const busy = t.phase === "snapshot";
    const total = t.rows_estimate !== null && t.phase !== "live" ? count(t.rows_done) + " / ~" + count(t.rows_estimate) : count(t.rows_done);
    return [element("td", "", t.name), phase, bar(t), element("td", "n", total),
      element("td", "n", busy ? count(t.rows_per_second) : ""), element("td", "n", busy ? span(t.eta_seconds) : ""),
      element("td", "n", count(t.changes))];
  });
  rows("entities", report.entities, (e) => [
    element("td", "", e.name), element("td", "n", count(e.ledger)), element("td", "n", count(e.delivered)),
    element("td", "n", count(e.suppressed)), element("td", "n", count(e.coalesced)),
    element("td", "n", count(e.rejected)), element("td", "n", count(e.parked)),
    element("td", "n" + (e.dead_letters ? " bad" : ""), count(e.dead_letters))]);

  const place = report.checkpoint.position;
  byId("footer").replaceChildren(
    "tidemark " + report.version + " · pid " + report.pid + " · up " + span(report.uptime_seconds)
    + (place ? " · position " + place : "") + " · counts are since the start · ");
  for (const [href, text] of [["status.json", "JSON"], ["metrics", "metrics"], ["readyz", "readyz"]]) {
    const link = element("a", "", text);
    link.href = href;
    byId("footer").append(link, " ");
  }
}

async function poll() {
  let fresh = false;
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(4000) });
    if (answer.ok) {
      render(await answer.json());
      fresh = true;
    }
  } catch (_) {
    fresh = false;
  }
  byId("stale").hidden = fresh;
  setTimeout(poll, document.hidden ? 5000 : 1000);
}
poll();
