"use strict";
// Two pictures in plain SVG: an area of equity with its drawdown below, and bars with what was traded on them.
const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function niceTicks(low, high, count) {
  if (!(high > low)) return [low];
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map(m => m * power).find(s => s >= raw);
  const ticks = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) ticks.push(t);
  return ticks;
}

/** Six figures that count, whatever the size: 95,535.2 and 1.35527 and 0.174068. */
function decimals(value) {
  const size = Math.abs(value);
  return size < 1e-9 ? 0 : Math.max(0, Math.min(8, 5 - Math.floor(Math.log10(size))));
}

const say = (value, digits = decimals(value)) => value.toLocaleString("en-US", {minimumFractionDigits: 0, maximumFractionDigits: digits});
const day = at => new Date(at).toISOString().slice(5, 10), minute = at => new Date(at).toISOString().slice(5, 16).replace("T", " ");

/** Both draw one unit to the pixel, so that their words stay readable at any width. points: [[at, equity, daily drawdown, value of a unit]]; limit: the daily drawdown that halts. */
function equityPicture(points, color, limit, label, width) {
  const top = 10, high = 150, gap = 14, low = 56, left = 52, right = 8, height = top + high + gap + low + 18;
  const picture = shape("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, style: `color: ${color}`});
  if (points.length < 2) {
    picture.append(shape("text", {x: left, y: 80}, "a curve appears after ten minutes of market time"));
    return picture;
  }
  const times = points.map(p => p[0]), values = points.map(p => p[1]);
  let [bottom, peak] = [Math.min(...values), Math.max(...values)];
  const margin = (peak - bottom || Math.abs(peak) * 0.01 || 1) * 0.08;
  bottom -= margin; peak += margin;
  const x = at => left + (at - times[0]) / (times.at(-1) - times[0]) * (width - left - right);
  const y = value => top + (peak - value) / (peak - bottom) * high;
  const deepest = Math.max(limit * 1.2, ...points.map(p => p[2])), base = top + high + gap;
  const under = drawdown => base + drawdown / deepest * low;
  for (const tick of niceTicks(bottom, peak, 4)) {
    picture.append(shape("line", {class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick)}),
      shape("text", {x: left - 6, y: y(tick) + 4, "text-anchor": "end"}, say(tick, peak - bottom > 20 ? 0 : 2)));
  }
  const line = points.map(p => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ");
  picture.append(shape("polygon", {points: `${x(times[0])},${top + high} ${line} ${x(times.at(-1))},${top + high}`, fill: "currentColor", opacity: 0.12}),
    shape("polyline", {points: line, fill: "none", stroke: "currentColor", "stroke-width": 1.8, "stroke-linejoin": "round"}));
  const drawn = points.map(p => `${x(p[0]).toFixed(1)},${under(p[2]).toFixed(1)}`).join(" ");
  picture.append(shape("line", {class: "grid", x1: left, x2: width - right, y1: base, y2: base}),
    shape("polygon", {points: `${x(times[0])},${base} ${drawn} ${x(times.at(-1))},${base}`, fill: "var(--down)", opacity: 0.35}),
    shape("line", {x1: left, x2: width - right, y1: under(limit), y2: under(limit), stroke: "var(--down)", "stroke-dasharray": "5 4"}),
    shape("text", {x: left - 6, y: under(limit) + 4, "text-anchor": "end"}, `-${(limit * 100).toFixed(0)} %`),
    shape("text", {x: left - 6, y: base + 4, "text-anchor": "end"}, "0 %"));
  for (let k = 0; k < 4; k++) {
    const at = times[0] + (times.at(-1) - times[0]) * k / 3;
    picture.append(shape("text", {x: x(at), y: height - 4, "text-anchor": k === 0 ? "start" : k === 3 ? "end" : "middle"},
      times.at(-1) - times[0] > 3 * 864e5 ? day(at) : minute(at).slice(6)));
  }
  follow(picture, width, points, p => x(p[0]), p => `${minute(p[0])}  ${say(p[1], 2)}  -${(p[2] * 100).toFixed(2)} %`, top, base + low);
  return picture;
}

/** bars: [[ts, open, high, low, close]]; trades as /api/chart gives them. */
function pricePicture(bars, trades, interval, label, width) {
  const height = width < 640 ? 300 : 380, left = 8, right = 64, top = 12, bottom = 24;
  const picture = shape("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label});
  if (bars.length < 2) {
    picture.append(shape("text", {x: 20, y: 60}, "bars appear as they close"));
    return picture;
  }
  const first = bars[0][0], last = bars.at(-1)[0] + interval;
  let low = Math.min(...bars.map(b => b[3])), high = Math.max(...bars.map(b => b[2]));
  for (const t of trades) for (const level of [t.stop, t.target]) {
    if (level !== null && level > low - (high - low) * 0.5 && level < high + (high - low) * 0.5) { low = Math.min(low, level); high = Math.max(high, level); }
  }
  const pad = (high - low || high * 0.01) * 0.06;
  low -= pad; high += pad;
  // By bar, not by clock: weekends and holes take no room.
  const place = new Map(bars.map((b, k) => [b[0], k]));
  const step = (width - left - right) / bars.length;
  const nearest = at => { const found = place.get(at - at % interval); if (found !== undefined) return found;
    let k = bars.findIndex(b => b[0] > at); return k < 0 ? bars.length : k; };
  const x = at => left + (nearest(at) + 0.5) * step, y = price => top + (high - price) / (high - low) * (height - top - bottom);
  for (const tick of niceTicks(low, high, 5)) {
    picture.append(shape("line", {class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick)}),
      shape("text", {x: width - right + 6, y: y(tick) + 4}, say(tick)));
  }
  const up = [], down = [], body = Math.max(1, step * 0.6);
  bars.forEach((b, k) => {
    const middle = left + (k + 0.5) * step, rising = b[4] >= b[1];
    (rising ? up : down).push(`M${middle.toFixed(1)} ${y(b[2]).toFixed(1)}V${y(b[3]).toFixed(1)}`
      + `M${(middle - body / 2).toFixed(1)} ${y(Math.max(b[1], b[4])).toFixed(1)}h${body.toFixed(1)}V${(y(Math.min(b[1], b[4])) + 0.6).toFixed(1)}h${(-body).toFixed(1)}Z`);
  });
  picture.append(shape("path", {d: up.join(""), fill: "var(--up)", stroke: "var(--up)", "stroke-width": 0.8, opacity: 0.75}),
    shape("path", {d: down.join(""), fill: "var(--down)", stroke: "var(--down)", "stroke-width": 0.8, opacity: 0.75}));
  const marks = Math.max(2, Math.floor(width / 190));
  for (let k = 0; k < marks; k++) {
    const index = Math.round(k * (bars.length - 1) / (marks - 1));
    picture.append(shape("text", {x: left + (index + 0.5) * step, y: height - 6, "text-anchor": k === 0 ? "start" : k === marks - 1 ? "end" : "middle"}, minute(bars[index][0])));
  }
  for (const t of trades) {
    const begin = t.entry_at >= first ? x(t.entry_at) : left, end = t.exit_at === null ? x(last) : x(t.exit_at);
    const side = t.side.toUpperCase() === "BUY" ? 1 : -1, color = side > 0 ? "var(--up)" : "var(--down)";
    for (const [level, ink] of [[t.stop, "var(--down)"], [t.target, "var(--up)"]]) {
      if (level !== null) picture.append(shape("line", {x1: begin, x2: end, y1: y(level), y2: y(level), stroke: ink, "stroke-dasharray": "6 4", "stroke-width": 1.4}));
    }
    if (t.exit !== null) picture.append(shape("line", {x1: begin, x2: end, y1: y(t.entry), y2: y(t.exit), stroke: "currentColor", opacity: 0.55}));
    if (t.entry_at >= first) {
      const v = y(t.entry);
      picture.append(shape("path", {d: side > 0 ? `M${begin} ${v}l-6 11h12z` : `M${begin} ${v}l-6 -11h12z`, fill: color, stroke: "var(--card)"},
        shape("title", {}, `${t.strategy}: ${t.side} at ${t.entry}, ${minute(t.entry_at)}`)));
    }
    if (t.exit !== null) picture.append(shape("circle", {cx: end, cy: y(t.exit), r: 4.5, fill: t.net >= 0 ? "var(--up)" : "var(--down)", stroke: "var(--card)"},
      shape("title", {}, `out at ${t.exit}, ${minute(t.exit_at)}: ${t.net} (${t.reason})`)));
  }
  follow(picture, width, bars, (b, k) => left + (k + 0.5) * step, b => `${minute(b[0])}  O ${say(b[1])}  H ${say(b[2])}  L ${say(b[3])}  C ${say(b[4])}`, top, height - bottom);
  return picture;
}

/** A vertical line with the figures of the nearest point under the pointer. */
function follow(picture, width, rows, place, words, top, bottom) {
  const line = shape("line", {class: "cursor", y1: top, y2: bottom, visibility: "hidden"}), text = shape("text", {y: top + 4, visibility: "hidden"});
  picture.append(line, text);
  const places = rows.map(place);
  picture.addEventListener("pointermove", event => {
    const box = picture.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * width;
    let k = places.findIndex(p => p >= at);
    if (k < 0) k = places.length - 1;
    line.setAttribute("x1", places[k]); line.setAttribute("x2", places[k]);
    text.textContent = words(rows[k], k);
    text.setAttribute("x", places[k] > width / 2 ? places[k] - 6 : places[k] + 6);
    text.setAttribute("text-anchor", places[k] > width / 2 ? "end" : "start");
    for (const node of [line, text]) node.setAttribute("visibility", "visible");
  });
  picture.addEventListener("pointerleave", () => { for (const node of [line, text]) node.setAttribute("visibility", "hidden"); });
}
