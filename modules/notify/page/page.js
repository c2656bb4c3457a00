"use strict";
// Asks the daemon's own documents every two seconds while somebody looks, and draws them. It can change nothing.
const $ = id => document.getElementById(id);
const percent = (share, digits = 2) => `${(share * 100).toFixed(digits)} %`;
const money = value => value === null || value === undefined ? "-" : Number(value).toLocaleString("en-US", {minimumFractionDigits: 2, maximumFractionDigits: 2});
const plain = value => value === null || value === undefined ? "-" : typeof value === "number" ? say(value) : isFinite(value) && value !== "" ? say(Number(value)) : value;
const when = at => at ? (typeof at === "number" ? new Date(at).toISOString() : at).slice(5, 16).replace("T", " ") : "-";

function make(name, options = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(options)) key === "class" ? node.className = value : key in node && key !== "style" ? node[key] = value : node.setAttribute(key, value);
  node.append(...children.filter(child => child !== null));
  return node;
}

/** columns: [title, row => cell, "n" for numbers]; a cell is text or a node. */
function table(place, caption, columns, rows, none) {
  if (!rows.length) return place.replaceChildren(make("p", {class: "none"}, none));
  place.replaceChildren(make("table", {}, make("caption", {class: "hidden"}, caption),
    make("thead", {}, make("tr", {}, ...columns.map(([title, , kind = ""]) => make("th", {scope: "col", class: kind}, title)))),
    make("tbody", {}, ...rows.map(row => make("tr", {}, ...columns.map(([, cell, kind = ""]) => make("td", {class: kind}, cell(row))))))));
}

const signed = value => make("span", {class: Number(value) < 0 ? "down" : Number(value) > 0 ? "up" : ""}, (Number(value) > 0 ? "+" : "") + money(value));
const fall = share => (share > 0 ? "-" : "") + percent(share);
const readable = name => name.toLowerCase().replaceAll("_", " ");
const direction = side => ({BUY: "long", SELL: "short"})[side.toUpperCase()] ?? side;

/** The answers that came with the page, each good for one question; {} where the page came without (a proxy, a file). */
const first = JSON.parse($("first").textContent || "{}");

async function ask(name, query = {}) {
  const words = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "")).toString();
  const question = name + (words ? "?" + words : ""), known = first[question];
  if (known) { delete first[question]; return known; }
  const reply = await fetch(`/api/${question}`, {cache: "no-store"});
  const document = await reply.json();
  if (!reply.ok) throw new Error(document.error);
  return document;
}

// -- parts --------------------------------------------------------------------------------------------------------------

const asked = {days: 7, symbol: ""};
let limits = {}, drawn = null;

function meter(share, limit, words) {
  const part = Math.min(1, share / limit);
  return make("div", {class: "meter", role: "meter", "aria-label": words, "aria-valuemin": 0, "aria-valuemax": limit * 100, "aria-valuenow": (share * 100).toFixed(2)},
    make("i", {class: part >= 1 ? "over" : part > 0.6 ? "high" : "", style: `width: ${(part * 100).toFixed(1)}%`}));
}

function showStatus(status, balance) {
  $("mode").textContent = status.mode.toUpperCase();
  $("mode").className = `badge ${status.mode}`;
  $("clock").textContent = `${status.at.slice(0, 16).replace("T", " ")} UTC`;
  const health = $("health");
  health.className = status.problems.length ? "warn" : "up";
  const words = status.problems.length ? status.problems.join("; ") : "healthy";
  if (health.textContent !== words) health.textContent = words;
  const before = JSON.stringify(limits);
  limits = Object.fromEntries(Object.entries(status.classes).map(([name, c]) => [name, c.drawdown_daily_max]));
  if (before !== JSON.stringify(limits) && drawn) showEquity(drawn);
  $("cards").replaceChildren(...Object.entries(status.classes).map(([name, c]) => {
    const books = balance.classes[name];
    const reason = c.halted_by ? `halted by ${c.halted_by}` : c.blackout ? `entries closed: ${c.blackout}` : c.paused ? "paused by an operator: exits only"
      : c.state === "REDUCING" ? "no entries until the wallet agrees with the books; exits go on" : "";
    return make("article", {class: "card", style: `--class: var(--${name})`, "aria-label": name},
      make("div", {class: "row"}, make("h3", {}, name), make("span", {class: `badge ${c.state}`}, c.state)),
      make("div", {class: "big"}, c.equity === null ? "unknown" : money(c.equity), " ", make("small", {class: "quiet"}, c.currency)),
      make("dl", {}, make("dt", {}, "net so far"), make("dd", {}, signed(books.net)),
        make("dt", {}, "phase"), make("dd", {}, `${c.phase ?? "unknown"}`),
        make("dt", {}, "open positions"), make("dd", {}, `${c.open_positions}`),
        make("dt", {}, "drawdown today"), make("dd", {}, `${fall(c.drawdown_daily)} of ${percent(c.drawdown_daily_max, 0)}`), meter(c.drawdown_daily, c.drawdown_daily_max, "daily drawdown"),
        make("dt", {}, "drawdown this month"), make("dd", {}, `${fall(c.drawdown_monthly)} of ${percent(c.drawdown_monthly_max, 0)}`), meter(c.drawdown_monthly, c.drawdown_monthly_max, "monthly drawdown")),
      reason ? make("p", {class: "reason warn"}, reason) : null);
  }));
  const rows = Object.entries(status.feeds);
  table($("feeds"), "Feeds", [["feed", r => r[0]], ["state", r => make("span", {class: r[1].state === "ok" ? "up" : "warn"}, r[1].state)],
    ["last bar", r => r[1].age_s === null ? "-" : `${Math.round(r[1].age_s)} s ago`, "n"]], rows, "no feed");
  $("feeds").prepend(make("p", {class: "quiet"}, `loop lag p99 ${plain(status.loop_lag_ms_p99)} ms, wallet read ${plain(status.wallet_age_s)} s ago, policies ${status.policy_hash.slice(0, 12)}`));
  $("doubt").replaceChildren(status.in_doubt.length ? make("p", {class: "warn"}, "In doubt (funds stay reserved until the venue answers): "
    + status.in_doubt.map(o => `${o.side} ${plain(o.quantity)} ${o.symbol}`).join(", ")) : "");
}

function showTrades(trades) {
  const picked = t => make("button", {class: "link", type: "button", onclick: () => choose(t.symbol)}, t.symbol);
  table($("positions"), "Open positions", [["instrument", picked], ["side", t => direction(t.side)], ["net now", t => t.net_now === null ? "-" : signed(t.net_now), "n"],
    ["entry", t => plain(t.entry), "n"], ["now", t => plain(t.mark), "n"], ["stop", t => plain(t.stop), "n"], ["target", t => plain(t.target), "n"],
    ["quantity", t => plain(Math.abs(Number(t.quantity))), "n"], ["at risk", t => money(t.risk), "n"], ["strategy", t => t.strategy],
    ["since", t => t.closing ? `closing: ${t.closing}` : when(t.opened_at)]], trades.open, "nothing is held");
  table($("closed"), "Latest trades", [["instrument", picked], ["net", t => signed(t.net), "n"], ["closed", t => when(t.closed_at)], ["side", t => direction(t.side)],
    ["R", t => t.net_r === null ? "-" : t.net_r.toFixed(2), "n"], ["by", t => readable(t.exit_reason)], ["strategy", t => t.strategy],
    ["entry", t => plain(t.entry), "n"], ["exit", t => plain(t.exit), "n"], ["fees", t => money(t.fees), "n"]],
    trades.closed, "no trade has closed yet");
}

function showEquity(equity) {
  const columns = getComputedStyle($("equity")).gridTemplateColumns.split(" ").length, width = Math.floor($("equity").clientWidth / columns) - 12;
  $("equity").replaceChildren(...Object.entries(equity.classes).map(([name, c]) => {
    const last = c.points.at(-1), first = c.points[0];
    const change = first && first[3] ? last[3] / first[3] - 1 : 0;  // of a unit: a deposit is not profit
    const words = last ? `${name}: ${money(last[1])} ${c.currency}, ${(change * 100).toFixed(2)} % over ${equity.days} days` : `${name}: no curve yet`;
    return make("figure", {}, make("figcaption", {}, make("strong", {}, name), make("span", {class: change < 0 ? "down" : "up"}, last ? `${change >= 0 ? "+" : ""}${(change * 100).toFixed(2)} %` : "")),
      equityPicture(c.points, `var(--${name})`, limits[name] ?? 0.05, words, width));
  }));
}

function showDecisions(found) {
  table($("decisions"), "Decisions", [["at", d => make("button", {class: "link", type: "button", onclick: () => explain(d.decision_id)}, when(d.at))],
    ["instrument", d => d.symbol], ["outcome", d => make("span", {class: d.outcome === "APPROVED" ? "up" : "quiet"}, d.outcome === "APPROVED" ? "approved" : readable(d.stopped_by ?? "denied"))],
    ["measured", d => d.outcome === "APPROVED" ? "" : plain(d.measured), "n"], ["limit", d => d.outcome === "APPROVED" ? "" : plain(d.limit), "n"],
    ["", d => d.outcome === "APPROVED" ? (d.bound_by ? `size bound by ${readable(d.bound_by)}` : "") : d.unit], ["strategy", d => d.strategy], ["side", d => direction(d.side)],
    ["confidence", d => d.confidence.toFixed(2), "n"]], found.decisions, "no decision fits");
  fill($("by-rule"), found.rules, readable);
}

function fill(select, values, label = value => value) {
  const known = new Set([...select.options].map(o => o.value));
  for (const value of values) if (!known.has(value)) select.append(make("option", {value}, label(value)));
}

async function explain(id) {
  const d = await ask("explain", {subject: id});
  $("explain-title").textContent = `${d.outcome}: ${d.strategy} wanted ${d.side} ${d.instrument} at ${when(d.at)}`;
  table($("checks"), "Every check", [["rule", c => readable(c.rule)], ["", c => make("span", {class: c.passed ? "up" : "down"}, c.passed ? "passed" : "failed")],
    ["measured", c => plain(c.measured), "n"], ["limit", c => plain(c.limit), "n"], ["unit", c => c.unit]], [...d.checks, ...(d.size ? d.size.checks : [])], "no check on record");
  $("checks").prepend(make("p", {}, d.size ? d.size.reason : ""));
  $("explain").showModal();
}

function showNews(news) {
  const place = $("news");
  if (!news.enabled) return place.replaceChildren(make("p", {class: "none"}, "feeds are off ([news] enabled = true); mood counts as neutral"));
  const cautions = news.cautions.map(c => make("p", {class: "warn"}, `${c.kind}: “${c.headline}” (${c.domain}) closes ${[...c.assets, ...c.classes].join(", ")} until ${when(c.until)}`));
  const moods = news.moods.slice(0, 8).map(m => make("details", {}, make("summary", {}, `${m.asset} `,
    make("strong", {class: m.mood === null ? "quiet" : m.mood < 0 ? "down" : "up"}, m.mood === null ? "no mood" : (m.mood > 0 ? "+" : "") + m.mood.toFixed(2)), ` from ${m.sources} source${m.sources === 1 ? "" : "s"}`),
    make("ul", {class: "plain"}, ...m.headlines.map(h => make("li", {}, `${h.score > 0 ? "+" : ""}${h.score.toFixed(2)} ${h.title} `, make("span", {class: "quiet"}, h.domain))))));
  const dead = news.sources.filter(s => s.state !== "ok").map(s => make("p", {class: "quiet"}, `${s.source}: ${s.state} ${s.reason}`));
  place.replaceChildren(...cautions, ...(moods.length ? moods : [make("p", {class: "none"}, "no mood yet: it takes two independent sources")]), ...dead);
}

function showEvents(events) {
  table($("events"), "Coming events", [["at", e => when(e.at)], ["event", e => e.title || e.kind],
    ["entries closed", e => make("span", {class: e.open_window ? "warn" : ""}, `${when(e.closes_entries_at)} to ${when(e.opens_entries_at).slice(6)}`)],
    ["for", e => e.classes.join(", ")]], events.events, `nothing within ${events.days} days`);
  for (const [name, kind] of Object.entries(events.exhausted)) $("events").prepend(make("p", {class: "warn"}, `${name}: the ${kind} calendar ends too soon; entries are closed until it is extended`));
}

function showCertificates(found) {
  table($("certificates"), "Certificates", [["strategy", c => c.strategy], ["class", c => c.asset_class], ["state", c => make("span", {class: c.valid ? "up" : "warn"}, c.state)],
    ["Sharpe", c => plain(c.sharpe), "n"], ["trades", c => plain(c.trades), "n"], ["expires", c => when(c.expires_at)]], found.certificates,
    "no strategy is certified: nothing can trade live (paper and demo are never gated); python main.py validate");
  for (const fault of found.faults) $("certificates").append(make("p", {class: "warn"}, fault));
}

function showLearning(found) {
  table($("learning"), "Learning", [["strategy", r => r.strategy], ["class", r => r.asset_class], ["weight", r => plain(r.weight), "n"], ["trades", r => plain(r.n), "n"],
    ["expected net R", r => plain(r.expected_r), "n"], ["why", r => r.reason, "wide"]], found.strategies, "nothing learned yet: it needs closed trades");
}

// -- life ---------------------------------------------------------------------------------------------------------------

function choose(symbol) {
  asked.symbol = symbol;
  $("symbol").value = symbol;
  drawChart();
  $("chart-title").scrollIntoView({behavior: "smooth", block: "start"});
}

/** Without a choice the daemon draws what matters most: what is held, else what is traded most. */
async function drawChart() {
  const wanted = asked.symbol, found = await ask("chart", {symbol: wanted, n: 200});
  if (asked.symbol !== wanted) return;
  asked.symbol = found.symbol;
  if ($("symbol").value !== found.symbol) { fill($("symbol"), [found.symbol]); $("symbol").value = found.symbol; }
  const bars = window.innerWidth < 640 ? found.bars.slice(-80) : found.bars;
  const trades = found.trades.filter(t => t.exit_at === null || (bars.length && t.exit_at >= bars[0][0]));
  $("chart").replaceChildren(pricePicture(bars, trades, found.interval_ms, `${found.symbol}: ${bars.length} bars, ${trades.length} trades on them`, $("chart").clientWidth));
}

async function drawEquity() { showEquity(drawn = await ask("equity", {days: asked.days})); }

async function drawDecisions() {
  showDecisions(await ask("decisions", {n: 25, symbol: $("by-symbol").value, rule: $("by-rule").value, outcome: $("by-outcome").value}));
}

/** A part that cannot be had says so in its own place; the others go on. */
async function part(name, show) {
  try { show(await ask(name)); } catch (error) { $(name).replaceChildren(make("p", {class: "none"}, error.message)); }
}

async function figures() {
  const [status, balance, trades] = await Promise.all([ask("status"), ask("balance"), ask("trades", {n: 15})]);
  showStatus(status, balance);
  showTrades(trades);
}

async function instruments() {
  const found = await ask("instruments");
  if ($("symbol").options.length < found.instruments.length) for (const id of ["symbol", "by-symbol"]) fill($(id), found.instruments.map(i => i.symbol));
}

const fast = () => Promise.all([figures(), drawDecisions(), drawChart()]);
const slow = () => Promise.all([instruments(), drawEquity(), part("news", showNews), part("events", showEvents),
  part("certificates", showCertificates), part("learning", showLearning)]);

let turn = 0, busy = false;
async function round() {
  if (busy || document.hidden) return;
  busy = true;
  try {
    await Promise.all([fast(), turn % 8 === 0 ? slow() : null]);
    document.body.classList.remove("stale");
    if (turn === 0) document.body.dataset.drawn = performance.now().toFixed(0);  // ms since the click
    turn += 1;
  } catch (error) {
    document.body.classList.add("stale");
    $("health").className = "down";
    $("health").textContent = `no answer from the daemon (${error.message}); what is shown is old`;
  } finally { busy = false; }
}

for (const [days, label] of [[1, "day"], [7, "week"], [31, "month"], [366, "year"]]) {
  const button = make("button", {type: "button", "aria-pressed": String(days === asked.days)}, label);
  button.onclick = () => { asked.days = days; for (const other of $("span").children) other.setAttribute("aria-pressed", String(other === button)); drawEquity(); };
  $("span").append(button, " ");
}
$("symbol").onchange = () => { asked.symbol = $("symbol").value; drawChart(); };
for (const id of ["by-symbol", "by-rule", "by-outcome"]) $(id).onchange = drawDecisions;
$("close").onclick = () => $("explain").close();
document.addEventListener("visibilitychange", round);
setInterval(round, 2000);
round();
