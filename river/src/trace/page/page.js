'use strict';
(() => {
const data = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id);
const { vms, vrs, labels, reasons, end } = data;
const COLOURS = { receive: '#d9a441', 'full queue': '#d1495b', send: '#e07a5f', connect: '#8d6cab', discover: '#4a90a4',
  lease: '#3d7ea6', deploy: '#5b9e6d', checkpoint: '#7f7f7f', barrier: '#b5629b' };

// ---- the data, as columns of numbers ----
// Times are differences from the line before.
const times = deltas => { const out = new Float64Array(deltas.length); let t = 0;
  deltas.forEach((d, i) => { t += d; out[i] = t; }); return out; };
const M = data.messages, W = data.waits, S = data.spans;
// -1 stands for an unknown end of a message.
const firstAt = times(M.at), sent = firstAt.map((t, i) => M.took[i] === -2 ? -1 : t);
const received = firstAt.map((t, i) => M.took[i] === -1 ? -1 : M.took[i] === -2 ? t : t + M.took[i]);
const waitAt = times(W.at), spanAt = times(S.at);
let longest = 0;
M.took.forEach(t => { longest = Math.max(longest, t); });

const time = ns => { const a = Math.abs(ns);
  return a < 1e3 ? ns.toFixed(0) + ' ns' : a < 1e6 ? (ns / 1e3).toFixed(2) + ' µs' : a < 1e9 ? (ns / 1e6).toFixed(3) + ' ms'
    : (ns / 1e9).toFixed(4) + ' s'; };
const bytes = b => b < 1024 ? b + ' B' : b < 1048576 ? (b / 1024).toFixed(1) + ' KiB' : b < 1073741824
  ? (b / 1048576).toFixed(1) + ' MiB' : (b / 1073741824).toFixed(2) + ' GiB';
const element = (name, attributes, ...children) => { const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) e.setAttribute(key, value);
  e.append(...children); return e; };

// ---- lines: a VM's name, then its VRs ----
const rows = [], rowOf = new Int32Array(vrs.length);
vms.forEach((vm, v) => {
  rows.push({ vm: v });
  vrs.forEach((vr, i) => { if (vr.vm === v) { rowOf[i] = rows.length; rows.push({ vr: i }); } });
});
const waitsOf = vrs.map(() => []), spansOf = vrs.map(() => []);
W.vr.forEach((vr, i) => waitsOf[vr].push(i));
S.vr.forEach((vr, i) => spansOf[vr].push(i));

// ---- the view ----
const canvas = $('diagram'), pen = canvas.getContext('2d');
const GUTTER = 170, AXIS = 20, ROW = Math.max(14, Math.min(26, 460 / rows.length));
const view = { from: 0, to: Math.max(end, 1), top: 0 };
let width = 0, height = 0, filter = '', hidden = new Set(), hover = null, kept = null, marks = [], queued = false;

const x = t => GUTTER + (t - view.from) / (view.to - view.from) * (width - GUTTER);
const t = px => view.from + (px - GUTTER) / (width - GUTTER) * (view.to - view.from);
const y = row => AXIS + (row + .5) * ROW - view.top;
const fits = text => text.toLowerCase().includes(filter);
const vrFits = i => fits(vrs[i].name) || fits(vms[vrs[i].vm].name);
let labelFits = [], vrsFit = [];
const refilter = () => { labelFits = labels.map(fits); vrsFit = vrs.map((_, i) => vrFits(i)); };
const messageFits = i => !filter || labelFits[M.label[i]] || vrsFit[M.from[i]] || vrsFit[M.to[i]];

const lowerBound = (array, value) => { let a = 0, b = array.length;
  while (a < b) { const m = (a + b) >> 1; if (array[m] < value) a = m + 1; else b = m; } return a; };

function clamp() {
  const all = Math.max(end, 1), least = 20;
  let span = Math.min(Math.max(view.to - view.from, least), all * 1.1);
  const middle = (view.from + view.to) / 2;
  view.from = Math.min(Math.max(middle - span / 2, -all * .05), all * 1.05 - span);
  view.to = view.from + span;
  view.top = Math.max(0, Math.min(view.top, rows.length * ROW - (height - AXIS)));
}
function zoom(factor, at = (view.from + view.to) / 2) {
  view.from = at - (at - view.from) * factor; view.to = at + (view.to - at) * factor; redraw();
}
function show(from, to, vr) {
  const room = Math.max((to - from) * .15, end / 1e6, 50);
  view.from = from - room; view.to = to + room;
  if (vr !== undefined) view.top = (rowOf[vr] + .5) * ROW - (height - AXIS) / 2;
  redraw();
}
function redraw() { if (!queued) { queued = true; requestAnimationFrame(() => { queued = false; draw(); }); } }

// Colours that depend on the theme are resolved once per drawing, through an element.
const probe = element('span', { hidden: '' });
document.body.append(probe);
const colour = name => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };

const MOST = 20000;
function draw() {
  clamp();
  const c = Object.fromEntries(['back', 'text', 'faint', 'line', 'band', 'run', 'arrow', 'path', 'bad'].map(n => [n, colour(n)]));
  pen.fillStyle = c.back; pen.fillRect(0, 0, width, height);
  pen.font = '11px system-ui, sans-serif'; pen.textBaseline = 'middle';
  marks = [];
  const firstRow = Math.max(0, Math.floor(view.top / ROW)), lastRow = Math.min(rows.length, Math.ceil((view.top + height) / ROW));
  pen.save(); pen.beginPath(); pen.rect(0, AXIS, width, height - AXIS); pen.clip();
  for (let r = firstRow; r < lastRow; r++) {
    if (rows[r].vm !== undefined) { pen.fillStyle = c.band; pen.fillRect(0, y(r) - ROW / 2, width, ROW); }
  }
  grid(c);
  let drawnWaits = 0;
  const bar = Math.max(3, ROW * .42);
  for (let r = firstRow; r < lastRow; r++) {
    const i = rows[r].vr;
    if (i === undefined) continue;
    const vr = vrs[i], dim = filter && !vrsFit[i], Y = y(r);
    const a = Math.max(GUTTER, x(vr.began)), b = Math.min(width, x(vr.ended));
    if (b < GUTTER || a > width) continue;
    pen.globalAlpha = dim ? .55 : 1;
    pen.fillStyle = vr.lost ? c.line : c.run;
    pen.fillRect(a, Y - bar / 2, Math.max(1, b - a), bar);
    for (const w of visible(waitsOf[i], waitAt, W.nanos)) {
      const reason = reasons[W.reason[w]];
      if (hidden.has(reason)) continue;
      const wa = Math.max(GUTTER, x(waitAt[w])), wb = Math.min(width, x(waitAt[w] + W.nanos[w]));
      pen.fillStyle = COLOURS[reason] || c.faint;
      pen.fillRect(wa, Y - bar / 2, Math.max(.7, wb - wa), bar);
      drawnWaits++;
    }
    for (const s of visible(spansOf[i], spanAt, S.nanos)) {
      const sa = Math.max(GUTTER, x(spanAt[s])), sb = Math.min(width, x(spanAt[s] + S.nanos[s]));
      pen.fillStyle = c.text; pen.fillRect(sa, Y - bar / 2 - 2, Math.max(.7, sb - sa), 1.5);
    }
    pen.globalAlpha = 1;
    if (vr.failure || vr.lost) {
      const e = x(vr.ended);
      if (e >= GUTTER && e <= width) { pen.strokeStyle = c.bad; pen.lineWidth = 2; pen.beginPath();
        pen.moveTo(e - 4, Y - 4); pen.lineTo(e + 4, Y + 4); pen.moveTo(e + 4, Y - 4); pen.lineTo(e - 4, Y + 4); pen.stroke(); }
    }
  }
  pen.save(); pen.beginPath(); pen.rect(GUTTER, AXIS, width - GUTTER, height - AXIS); pen.clip();
  const [drawn, there] = $('arrows').checked ? arrows(c) : [0, 0];
  data.deploys.forEach(([parent, child, at]) => arrow(x(at), y(rowOf[parent]), x(vrs[child].began), y(rowOf[child]),
    COLOURS.deploy, [4, 3]));
  if ($('path').checked) path(c);
  for (const chosen of [hover, kept]) if (chosen && chosen.message !== undefined) {
    const m = chosen.message; pen.lineWidth = 2.5;
    arrow(x(sent[m] < 0 ? received[m] : sent[m]), y(rowOf[M.from[m]]), x(received[m] < 0 ? sent[m] : received[m]),
      y(rowOf[M.to[m]]), c.text); pen.lineWidth = 1;
  }
  pen.restore();
  names(c, firstRow, lastRow);
  pen.restore();
  axis(c);
  const part = there > drawn ? `every ${Math.ceil(there / drawn)}th of ` : '';
  $('status').textContent = `${time(view.to - view.from)} shown; ${part}${there} messages, ${drawnWaits} waits`;
  $('status').dataset.span = view.to - view.from; $('status').dataset.messages = there; $('status').dataset.waits = drawnWaits;
}

// Yields the sorted intervals in view; of those that share a pixel only the longest.
function* visible(list, at, nanos) {
  const pixel = (view.to - view.from) / Math.max(1, width - GUTTER);
  let a = 0, b = list.length;
  while (a < b) { const m = (a + b) >> 1; if (at[list[m]] + nanos[list[m]] < view.from) a = m + 1; else b = m; }
  let covered = -Infinity;
  for (let k = a; k < list.length; k++) {
    const i = list[k], until = at[i] + nanos[i];
    if (at[i] > view.to) return;
    if (until < covered + pixel * .5 && nanos[i] < pixel) continue;
    covered = Math.max(covered, until);
    yield i;
  }
}

function inView() {
  const a = lowerBound(firstAt, view.from - longest), b = lowerBound(firstAt, view.to), list = [];
  const top = view.top / ROW - 1, bottom = (view.top + height - AXIS) / ROW + 1;
  for (let i = a; i < b; i++) {
    if (Math.max(sent[i], received[i]) < view.from || !messageFits(i)) continue;
    const f = rowOf[M.from[i]], g = rowOf[M.to[i]];
    if (Math.max(f, g) < top || Math.min(f, g) > bottom) continue;
    list.push(i);
  }
  return list;
}

function arrows(c) {
  const list = inView(), step = Math.ceil(list.length / MOST) || 1;
  pen.strokeStyle = c.arrow; pen.fillStyle = c.arrow;
  // The more there are per pixel, the paler, so that what is below them stays visible.
  pen.globalAlpha = Math.min(.8, Math.max(.03, .6 * (width - GUTTER) / Math.max(1, list.length / step)));
  const heads = list.length / step < 2500;
  let drawn = 0;
  for (let k = 0; k < list.length; k += step) {
    const i = list[k], from = y(rowOf[M.from[i]]), to = y(rowOf[M.to[i]]);
    const a = x(sent[i] < 0 ? received[i] : sent[i]), b = x(received[i] < 0 ? sent[i] + (end - sent[i]) * .002 : received[i]);
    marks.push([i, a, from, b, to]);
    if (received[i] < 0) pen.setLineDash([2, 3]);
    line(a, from, b, to, heads);
    if (received[i] < 0) pen.setLineDash([]);
    drawn++;
  }
  pen.globalAlpha = 1;
  return [drawn, list.length];
}
function line(a, from, b, to, head) {
  pen.beginPath(); pen.moveTo(a, from); pen.lineTo(b, to); pen.stroke();
  if (!head) return;
  const angle = Math.atan2(to - from, b - a);
  pen.beginPath(); pen.moveTo(b, to);
  pen.lineTo(b - 6 * Math.cos(angle - .35), to - 6 * Math.sin(angle - .35));
  pen.lineTo(b - 6 * Math.cos(angle + .35), to - 6 * Math.sin(angle + .35)); pen.fill();
}
function arrow(a, from, b, to, stroke, dash = []) {
  pen.strokeStyle = pen.fillStyle = stroke; pen.setLineDash(dash); line(a, from, b, to, true); pen.setLineDash([]);
}
function path(c) {
  const thick = new Path2D(), thin = new Path2D();
  // Dense hops would hide what is below them: of those, one per 4 pixels is drawn, thin and pale.
  let last = -Infinity, drawn = -Infinity;
  for (const s of data.path) {
    const hop = s.kind !== 'run', a = x(s.at), b = x(s.at + s.nanos), dense = hop && Math.abs(b - last) < 8;
    if (hop) last = b;
    if (dense && Math.abs(b - drawn) < 4) continue;
    if (hop) drawn = b;
    const line = dense ? thin : thick;
    line.moveTo(a, y(rowOf[hop ? s.from : s.vr])); line.lineTo(b, y(rowOf[hop ? s.to : s.vr]));
  }
  pen.strokeStyle = c.path; pen.lineJoin = 'round';
  pen.globalAlpha = .35; pen.lineWidth = 1; pen.stroke(thin);
  pen.globalAlpha = 1; pen.lineWidth = 2.5; pen.stroke(thick); pen.lineWidth = 1;
}
function names(c, first, last) {
  pen.fillStyle = c.back; pen.fillRect(0, AXIS, GUTTER, height - AXIS);
  for (let r = first; r < last; r++) {
    const { vm, vr } = rows[r];
    if (vm !== undefined) { pen.fillStyle = c.band; pen.fillRect(0, y(r) - ROW / 2, GUTTER, ROW); }
    pen.fillStyle = vm !== undefined ? c.text : vrs[vr].failure || vrs[vr].lost ? c.bad : filter && !vrsFit[vr] ? c.faint : c.text;
    pen.font = (vm !== undefined ? 'bold ' : '') + '11px system-ui, sans-serif';
    pen.fillText(vm !== undefined ? vms[vm].name : '  ' + vrs[vr].name, 6, y(r), GUTTER - 10);
  }
  pen.fillStyle = c.line; pen.fillRect(GUTTER - 1, AXIS, 1, height);
}
function ticks() {
  const about = (view.to - view.from) / Math.max(2, (width - GUTTER) / 110), power = 10 ** Math.floor(Math.log10(about));
  const step = [1, 2, 5, 10].map(f => f * power).find(s => s >= about) || power, out = [];
  for (let v = Math.ceil(view.from / step) * step; v <= view.to; v += step) out.push(v);
  // All labels have the same unit, and as many digits as it takes to tell them apart.
  const [unit, name] = [[1e9, 's'], [1e6, 'ms'], [1e3, 'µs'], [1, 'ns']].find(([u]) => u <= Math.max(view.to, 1));
  const digits = Math.max(0, Math.ceil(Math.log10(unit / step) - 1e-9));
  return out.map(v => [v, `${(v / unit).toFixed(digits)} ${name}`]);
}
function grid(c) { pen.fillStyle = c.line; for (const [v] of ticks()) pen.fillRect(x(v), AXIS, 1, height); }
function axis(c) {
  pen.fillStyle = c.back; pen.fillRect(0, 0, width, AXIS); pen.fillStyle = c.faint; pen.font = '11px system-ui, sans-serif';
  for (const [v, label] of ticks()) {
    const left = x(v) + 3;
    if (x(v) >= GUTTER && left + pen.measureText(label).width <= width) pen.fillText(label, left, AXIS / 2);
  }
}

// ---- pointing ----
function near(px, py) {
  let best = null, least = 5;
  for (const [i, a, from, b, to] of marks) {
    const dx = b - a, dy = to - from, l = dx * dx + dy * dy;
    const k = l ? Math.max(0, Math.min(1, ((px - a) * dx + (py - from) * dy) / l)) : 0;
    const d = Math.hypot(px - a - k * dx, py - from - k * dy);
    if (d < least) { least = d; best = i; }
  }
  const row = Math.floor((py - AXIS + view.top) / ROW), vr = rows[row] && rows[row].vr;
  const onBar = vr !== undefined && Math.abs(py - y(row)) <= ROW * .3;
  if (onBar && px >= GUTTER) {
    const at = t(px), slack = (view.to - view.from) / width;
    const inside = (list, begin, nanos) => list.filter(i => begin[i] <= at + slack && at - slack <= begin[i] + nanos[i])
      .sort((p, q) => nanos[p] - nanos[q])[0];
    const wait = inside(waitsOf[vr].filter(i => !hidden.has(reasons[W.reason[i]])), waitAt, W.nanos);
    if (wait !== undefined && least > 2) return { wait };
    const span = inside(spansOf[vr], spanAt, S.nanos);
    if (span !== undefined && least > 2) return { span };
  }
  if (best !== null && px >= GUTTER) return { message: best };
  return vr !== undefined && (px < GUTTER || onBar) ? { vr } : null;
}
function describe(what) {
  const { message: m, wait: w, span: s, vr: v } = what;
  if (m !== undefined) {
    const known = sent[m] >= 0 && received[m] >= 0;
    return `${labels[M.label[m]] || 'message'}\n${vrs[M.from[m]].name} → ${vrs[M.to[m]].name}\n${bytes(M.bytes[m])}; `
      + (sent[m] < 0 ? 'the send is not in the trace' : `sent at ${time(sent[m])}`)
      + (received[m] < 0 ? ', never received' : `, received at ${time(received[m])}`)
      + (known ? ` (after ${time(received[m] - sent[m])})` : '');
  }
  if (w !== undefined) return `waits: ${reasons[W.reason[w]]}${W.on[w] >= 0 ? ', on ' + vrs[W.on[w]].name : ''}\n`
    + `${vrs[W.vr[w]].name}, ${time(W.nanos[w])} from ${time(waitAt[w])}` + (W.label[w] ? `\nin ${labels[W.label[w]]}` : '');
  if (s !== undefined) return `${labels[S.label[s]]}\n${vrs[S.vr[s]].name}, ${time(S.nanos[s])} from ${time(spanAt[s])}`;
  const vr = vrs[v];
  return `${vr.name} on ${vms[vr.vm].name}\n${vr.type || 'its type is not known'}\n${time(vr.began)} to ${time(vr.ended)}`
    + (vr.failure ? `\nfailed: ${vr.failure}` : '') + (vr.lost ? '\nlost: what it did died with its host' : '')
    + (vr.dropped ? `\n${vr.dropped} older events were not kept` : '');
}
function keep(what) { kept = what; $('info').textContent = what ? describe(what) : ''; redraw(); }

let drag = null;
canvas.addEventListener('pointermove', e => {
  if (drag) {
    const dt = (e.offsetX - drag.x) / (width - GUTTER) * (view.to - view.from);
    view.from = drag.from - dt; view.to = drag.to - dt; view.top = drag.top - (e.offsetY - drag.y);
    if (Math.hypot(e.offsetX - drag.x, e.offsetY - drag.y) > 3) drag.moved = true;
    return redraw();
  }
  const found = near(e.offsetX, e.offsetY);
  if (JSON.stringify(found) !== JSON.stringify(hover)) { hover = found; redraw(); }
  const tip = $('tip');
  tip.hidden = !found;
  if (found) {
    tip.textContent = describe(found);
    tip.style.left = Math.min(e.clientX + 14, innerWidth - tip.offsetWidth - 8) + 'px';
    tip.style.top = Math.min(e.clientY + 14, innerHeight - tip.offsetHeight - 8) + 'px';
  }
});
canvas.addEventListener('pointerdown', e => { drag = { x: e.offsetX, y: e.offsetY, ...view, moved: false };
  canvas.setPointerCapture(e.pointerId); });
canvas.addEventListener('pointerup', e => { const moved = drag && drag.moved; drag = null;
  if (!moved) keep(near(e.offsetX, e.offsetY)); });
canvas.addEventListener('pointerleave', () => { hover = null; $('tip').hidden = true; redraw(); });
canvas.addEventListener('wheel', e => { e.preventDefault();
  if (e.shiftKey) { view.top += e.deltaY || e.deltaX; return redraw(); }
  zoom(Math.exp(Math.max(-200, Math.min(200, e.deltaY)) / 250), t(Math.max(GUTTER, e.offsetX))); }, { passive: false });
canvas.addEventListener('keydown', e => {
  const move = (view.to - view.from) * .15;
  const keys = { ArrowLeft: () => { view.from -= move; view.to -= move; }, ArrowRight: () => { view.from += move; view.to += move; },
    ArrowUp: () => { view.top -= 3 * ROW; }, ArrowDown: () => { view.top += 3 * ROW; },
    '+': () => zoom(.6), '=': () => zoom(.6), '-': () => zoom(1 / .6), 0: () => fit(),
    n: () => step(1), p: () => step(-1), Escape: () => keep(null) };
  if (!keys[e.key] || e.ctrlKey || e.metaKey) return;
  e.preventDefault(); keys[e.key](); redraw();
});
document.addEventListener('keydown', e => { if (e.key === '/' && e.target.tagName !== 'INPUT') { e.preventDefault(); $('filter').focus(); } });
function fit() { view.from = -end * .01; view.to = end * 1.01; view.top = 0; redraw(); }
function step(direction) {
  const count = firstAt.length;
  let i = kept && kept.message !== undefined ? kept.message + direction : direction > 0 ? lowerBound(firstAt, view.from) : count - 1;
  while (i >= 0 && i < count && !messageFits(i)) i += direction;
  if (i < 0 || i >= count) return;
  keep({ message: i });
  const a = firstAt[i], b = Math.max(sent[i], received[i]);
  if (a < view.from || b > view.to) { const span = view.to - view.from; view.from = a - span / 2; view.to = a + span / 2; }
}

// ---- tools ----
$('in').onclick = () => zoom(.6); $('out').onclick = () => zoom(1 / .6); $('fit').onclick = fit;
$('arrows').onchange = $('path').onchange = redraw;
$('filter').oninput = e => { filter = e.target.value.trim().toLowerCase(); refilter(); redraw(); };
labels.slice(1, 500).forEach(label => $('tags').append(element('option', { value: label })));
const working = element('i');
working.style.background = 'var(--run)';
$('legend').append(element('span', {}, working, 'works'));
for (const [r, reason] of reasons.entries()) {
  if (!W.reason.includes(r)) continue;
  const swatch = element('i'); swatch.style.background = COLOURS[reason];
  const button = element('button', { type: 'button', 'aria-pressed': 'true', 'data-reason': reason }, swatch, reason);
  button.onclick = () => { const on = hidden.delete(reason) || !hidden.add(reason);
    button.setAttribute('aria-pressed', on); redraw(); };
  $('legend').append(button);
}
$('title').textContent = data.program;
$('summary').textContent = `${time(end)}; ${vrs.length} VRs on ${vms.length} VMs; ${data.total.messages} messages, `
  + `${bytes(data.total.bytes)}; ${data.total.waits} waits`;
data.notes.forEach(note => $('notes').append(element('li', {}, note)));

// ---- panels ----
const cell = (text, number) => element('td', number ? { class: 'n' } : {}, String(text));
const head = titles => element('thead', {}, element('tr', {}, ...titles.map(([title, n]) => element('th', n ? { class: 'n' } : {}, title))));
function table(titles, lines) { const body = element('tbody', {}, ...lines); return element('table', {}, head(titles), body); }
function jump(cells, from, to, vr) {
  const row = element('tr', { 'data-from': from, tabindex: 0 }, ...cells);
  const go = () => { show(from, to, vr); canvas.scrollIntoView({ block: 'nearest' }); };
  row.onclick = go; row.onkeydown = e => { if (e.key === 'Enter') go(); };
  return row;
}
const panels = {
  matrix(into) {
    const talkers = [...new Set(data.pairs.flatMap(p => [p[0], p[1]]))].sort((a, b) => rowOf[a] - rowOf[b]);
    if (talkers.length <= 40) {
      const most = Math.max(...data.pairs.map(p => p[3]), 1), of = new Map(data.pairs.map(p => [p[0] + ',' + p[1], p]));
      const top = element('tr', {}, element('th', {}, 'from ↓ to →'), ...talkers.map(i => element('th', {}, vrs[i].name)));
      const lines = talkers.map(a => element('tr', {}, element('th', {}, vrs[a].name), ...talkers.map(b => {
        const pair = of.get(a + ',' + b), td = element('td', pair ? { class: 'n', title: `${pair[2]} messages, ${bytes(pair[3])}` } : {},
          pair ? String(pair[2]) : '');
        if (pair) td.style.background = `color-mix(in srgb, var(--path) ${Math.round(8 + 52 * Math.log1p(pair[3]) / Math.log1p(most))}%, transparent)`;
        return td; })));
      into.append(element('div', { class: 'scroll' },
        element('table', { class: 'heat' }, element('thead', {}, top), element('tbody', {}, ...lines))));
    }
    into.append(table([['from'], ['to'], ['messages', 1], ['bytes', 1], ['mean', 1]], data.pairs.slice(0, 200).map(p => {
      const row = element('tr', {}, cell(vrs[p[0]].name), cell(vrs[p[1]].name), cell(p[2], 1), cell(bytes(p[3]), 1),
        cell(bytes(Math.round(p[3] / p[2])), 1)); return row; })));
  },
  waits(into) {
    into.append(table([['how long', 1], ['what for'], ['VR'], ['on'], ['in'], ['from', 1]], data.longest.map(([vr, at, nanos, reason, on, label]) =>
      jump([cell(time(nanos), 1), cell(reasons[reason]), cell(vrs[vr].name), cell(on >= 0 ? vrs[on].name : ''),
        cell(labels[label]), cell(time(at), 1)], at, at + nanos, vr))));
  },
  critical(into) {
    const sum = kind => data.path.filter(s => s.kind === kind).reduce((a, s) => a + s.nanos, 0);
    const waited = data.path.reduce((a, s) => a + (s.waited || 0), 0), all = Math.max(1, data.path.reduce((a, s) => a + s.nanos, 0));
    const share = ns => `${time(ns)} (${(100 * ns / all).toFixed(1)} %)`;
    into.append(element('p', {}, `What the end had to wait for, step by step: ${share(sum('run') - waited)} of work, ${share(waited)} `
      + `of waiting on the way, ${share(sum('message'))} of messages, ${share(sum('deploy'))} of starting VRs.`));
    const by = new Map();
    data.path.filter(s => s.kind === 'run').forEach(s => by.set(s.vr, (by.get(s.vr) || 0) + s.nanos - s.waited));
    into.append(table([['VR'], ['work on the path', 1]], [...by].sort((a, b) => b[1] - a[1]).slice(0, 15).map(([vr, ns]) =>
      element('tr', {}, cell(vrs[vr].name), cell(share(ns), 1)))));
    const long = [...data.path].sort((a, b) => b.nanos - a.nanos).slice(0, 300).sort((a, b) => a.at - b.at);
    into.append(table([['at', 1], ['how long', 1], ['what'], ['VR']], long.map(s => jump([cell(time(s.at), 1), cell(time(s.nanos), 1),
      cell(s.kind === 'run' ? 'works' + (s.waited ? ` (waits ${time(s.waited)})` : '') : s.kind === 'deploy' ? 'is started'
        : labels[s.label] || 'message'), cell(s.kind === 'run' ? vrs[s.vr].name : `${vrs[s.from].name} → ${vrs[s.to].name}`)],
      s.at, s.at + s.nanos, s.kind === 'run' ? s.vr : s.to))));
  },
  vrs(into) {
    into.append(table([['VR'], ['VM'], ['type'], ['from', 1], ['to', 1], ['ended'], ['not kept', 1]], vrs.slice(0, 2000).map((vr, i) =>
      jump([cell(vr.name), cell(vms[vr.vm].name), cell(vr.type), cell(time(vr.began), 1), cell(time(vr.ended), 1),
        cell(vr.lost ? 'lost' : vr.failure || ''), cell(vr.dropped || '', 1)], vr.began, vr.ended, i))));
  },
};
const tabs = [...document.querySelectorAll('[role=tab]')];
function open(tab) {
  for (const other of tabs) {
    other.setAttribute('aria-selected', other === tab); other.tabIndex = other === tab ? 0 : -1;
    $(other.dataset.panel).hidden = other !== tab;
  }
  const into = $(tab.dataset.panel);
  if (!into.hasChildNodes()) panels[tab.dataset.panel](into);
}
tabs.forEach((tab, i) => { tab.onclick = () => open(tab);
  tab.onkeydown = e => { const d = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (d) { const next = tabs[(i + d + tabs.length) % tabs.length]; open(next); next.focus(); } }; });

function resize() {
  const scale = devicePixelRatio || 1;
  width = canvas.clientWidth; height = Math.round(Math.min(Math.max(160, rows.length * ROW + AXIS + 4), innerHeight * .62));
  canvas.style.height = height + 'px'; canvas.width = width * scale; canvas.height = height * scale;
  pen.setTransform(scale, 0, 0, scale, 0, 0); redraw();
}
addEventListener('resize', resize);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
refilter(); open(tabs[0]); resize(); fit();
})();
