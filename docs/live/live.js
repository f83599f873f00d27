// The live page: sliders in, numbers and pictures out.
"use strict";

const $ = (id) => document.getElementById(id);
const WIDE = 440, TALL = 260, LEFT = 60, RIGHT = 20, TOP = 12, BOTTOM = 30, LINE = 20;

// A picture: scales from data to pixels, and strings of SVG that are collected and set at once.
class Plot {
  constructor(id, title, [left, right], [low, high], tall = TALL) {
    Object.assign(this, { id, title, left, right, low, high, tall, parts: [], around: [] });
  }
  x(value) { return LEFT + (value - this.left) / (this.right - this.left) * (WIDE - LEFT - RIGHT); }
  y(value) { return this.tall - BOTTOM - (value - this.low) / (this.high - this.low) * (this.tall - TOP - BOTTOM); }
  clip(value) { return Math.max(-500, Math.min(this.tall + 500, this.y(value))); }
  path(xs, ys) { return xs.map((x, i) => `${i ? "L" : "M"}${this.x(x).toFixed(2)},${this.clip(ys[i]).toFixed(2)}`).join(""); }
  curve(kind, xs, ys) { this.parts.push(`<path class="${kind} curve" d="${this.path(xs, ys)}"/>`); return this; }
  area(kind, xs, ys) {
    const base = this.y(Math.max(this.low, 0)).toFixed(2);
    this.parts.push(`<path class="${kind} area" d="${this.path(xs, ys)}L${this.x(xs.at(-1))},${base}L${this.x(xs[0])},${base}Z"/>`);
    return this;
  }
  box(kind, [a, b], [c, d]) {
    this.parts.push(`<rect class="${kind}" x="${this.x(a)}" y="${this.y(d)}" width="${Math.max(0, this.x(b) - this.x(a))}" height="${this.y(c) - this.y(d)}"/>`);
    return this;
  }
  dot(kind, x, y) { this.parts.push(`<circle class="${kind} dot" cx="${this.x(x)}" cy="${this.clip(y)}" r="5"/>`); return this; }
  text(kind, x, y, words, anchor = "start") {
    this.around.push(`<text class="${kind}" x="${this.x(x)}" y="${this.y(y)}" text-anchor="${anchor}">${words}</text>`);
    return this;
  }
  legend(lines, anchor = "start") {  // lines of words in a corner, apart by the height of the letters
    const x = anchor === "start" ? LEFT + 6 : WIDE - RIGHT - 4;
    lines.forEach(([kind, words], i) => this.around.push(`<text class="${kind}" x="${x}" y="${TOP + 12 + LINE * i}" text-anchor="${anchor}">${words}</text>`));
    return this;
  }
  axes(xTicks, yTicks, label) {
    const bottom = this.tall - BOTTOM;
    const lines = xTicks.map(([v, words]) => `<path class="grid" d="M${this.x(v)},${bottom}v5"/><text x="${this.x(v)}" y="${bottom + 18}" text-anchor="middle">${words}</text>`);
    lines.push(...yTicks.map(([v, words]) => `<path class="grid" d="M${LEFT},${this.y(v)}H${WIDE - RIGHT}"/><text x="${LEFT - 5}" y="${this.y(v) + 4}" text-anchor="end">${words}</text>`));
    lines.push(`<path class="axis" d="M${LEFT},${bottom}H${WIDE - RIGHT}"/><text x="${WIDE - RIGHT}" y="${bottom - 6}" text-anchor="end">${label}</text>`);
    this.around.unshift(...lines);
    return this;
  }
  show() {
    const clip = `${this.id}-clip`, frame = `x="${LEFT}" y="0" width="${WIDE - LEFT - RIGHT}" height="${this.tall - BOTTOM}"`;
    const drawn = `<clipPath id="${clip}"><rect ${frame}/></clipPath><g clip-path="url(#${clip})">${this.parts.join("")}</g>`;
    $(this.id).innerHTML = `<svg viewBox="0 0 ${WIDE} ${this.tall}" role="img" aria-label="${this.title}">${drawn}${this.around.join("")}</svg>`;
  }
}

const line = (from, to, n = 241) => Array.from({ length: n }, (_, i) => from + (to - from) * i / (n - 1));
const minus = (words) => String(words).replace("-", "−");
const ticks = (values) => values.map((v) => [v, minus(v)]);
const powers = (values) => values.map((v) => [v, `10<tspan dy="-5" font-size="10">${minus(v)}</tspan>`]);
const written = (value, digits = 6) => {
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const plain = Math.abs(value) >= 1e-4 || value === 0 ? value.toFixed(digits) : value.toExponential(3);
  return plain.replace("-", "−").replace("e−", " · 10^−");
};

// Numbers for eyes, and at full precision as data for tests.
function numbers(id, rows) {
  $(id).innerHTML = rows.map(([key, words, value, digits, warn]) =>
    `<div><dt>${words}</dt><dd data-key="${key}" data-value="${value}"${warn ? ' class="warn"' : ""}>${written(value, digits)}</dd></div>`).join("");
}

function setting(id, words = (v) => v.toFixed(2)) {
  const input = $(id), value = Number(input.value);
  input.parentElement.querySelector("output").textContent = words(value).replace("-", "−");
  return value;
}

function drawElbo() {
  const now = { m: setting("elbo-m"), t: setting("elbo-t"), x: setting("elbo-x"), s: setting("elbo-s") };
  const found = bound(now), zs = line(-4, 4);
  const density = (mean, std) => zs.map((z) => Math.exp(logNormal(z, mean, std)));
  const q = density(now.m, now.t), post = density(found.posteriorMean, found.posteriorStd);
  const high = 1.15 * Math.max(Math.exp(logNormal(0, 0, found.posteriorStd)), Math.min(1.6, Math.max(...q)));
  new Plot("elbo-plot", "Prior, posterior and q over z", [-4, 4], [0, high])
    .area("model", zs, post).curve("model", zs, post).curve("truth dashed", zs, density(0, 1)).curve("bound", zs, q)
    .legend([["truth", "prior p(z)"], ["model", "posterior p(z|x)"], ["bound", "your q(z)"]])
    .axes(ticks([-4, -2, 0, 2, 4]), [], "z").show();
  const low = Math.min(-8, Math.floor(found.elbo) - 1), bar = new Plot("elbo-bar", "ELBO, gap and log p(x)", [low, 0], [0, 3], 150);
  bar.box("bound area", [low, found.elbo], [0.5, 1.4]).box("gap area", [found.elbo, found.logP], [0.5, 1.4])
    .curve("truth", [found.logP, found.logP], [0.2, 2])
    .text("bound", low + 0.02 * -low, 1.75, "ELBO").text("truth", found.logP, 2.2, "log p(x)", "middle")
    .text("", (found.elbo + found.logP) / 2, 0.85, found.gap > 0.12 * -low ? "gap" : "", "middle")
    .axes(ticks([low, Math.round(low / 2), 0]), [], "nats").show();
  numbers("elbo-numbers", [
    ["logP", "log p(x)", found.logP], ["elbo", "ELBO", found.elbo], ["gap", "KL(q ‖ posterior)", found.gap],
    ["reconstruction", "E log p(x|z)", found.reconstruction], ["toPrior", "KL(q ‖ prior)", found.toPrior],
    ["posteriorMean", "posterior mean", found.posteriorMean], ["posteriorStd", "posterior width", found.posteriorStd],
  ]);
}

function drawDelta() {
  const sigma = 10 ** setting("delta-s"), x = setting("delta-x"), found = relaxed({ x, sigma });
  const slope = 1 / Math.sqrt(1 + x * x), z = Math.asinh(x), zs = line(-3, 3);
  new Plot("delta-map", "The flow's map, with the widths of encoder and decoder", [-3, 3], [-6, 6])
    .box("model area", [-3, 3], [x - sigma, x + sigma]).box("model area", [z - sigma * slope, z + sigma * slope], [-6, 6])
    .curve("truth", zs, zs.map(Math.sinh)).dot("bound", z, x)
    .legend([["truth", "x = sinh z"], ["model", "encoder ↔, decoder ↕"]])
    .axes(ticks([-3, 0, 3]), ticks([-5, 0, 5]), "z").show();
  const exponents = line(-3, 0, 31), near = (value) => Math.log10(Math.max(1e-12, Math.abs(value)));
  const offs = exponents.map((e) => relaxed({ x, sigma: 10 ** e }));
  const middle = near(relaxed({ x, sigma: 0.01 }).off);
  new Plot("delta-rate", "How far the ELBO is from the flow's log p(x), against sigma", [-3, 0], [-9, 1])
    .curve("truth dashed", [-3, 0], [middle - 2, middle + 4]).curve("model", exponents, offs.map((o) => near(o.gap)))
    .curve("bound", exponents, offs.map((o) => near(o.off))).dot("bound", Math.log10(sigma), near(found.off))
    .legend([["bound", "|log p(x) of the flow − ELBO|"], ["model", "gap of the VAE"], ["truth", "slope 2"]])
    .axes(powers([-3, -2, -1, 0]), powers([-8, -4, 0]), "σ").show();
  numbers("delta-numbers", [
    ["logP", "log p(x), flow", found.logP], ["logPSigma", "log p(x), VAE", found.logPSigma], ["elbo", "ELBO", found.elbo],
    ["off", "flow less ELBO", found.off], ["rate", "… in units of σ²", found.rate], ["gap", "gap of the VAE", found.gap],
  ]);
}

function drawWeights() {
  const r = setting("weights-r"), seed = setting("weights-seed", (v) => v.toFixed(0));
  const count = Math.round(10 ** setting("weights-k", (v) => `${v.toFixed(2)}: ${Math.round(10 ** v)}`));
  const found = importance({ r, count, seed }), at = [], estimates = [], elbos = [];
  let top = -Infinity, sum = 0, plain = 0, next = 1;
  found.logWeights.forEach((value, i) => {  // running log-mean-exp, in units of the largest weight so far
    if (value > top) { sum = sum * Math.exp(top - value) + 1; top = value; } else { sum += Math.exp(value - top); }
    plain += value;
    if (i + 1 >= next || i + 1 === count) {
      at.push(Math.log10(i + 1)); estimates.push(top + Math.log(sum / (i + 1))); elbos.push(plain / (i + 1));
      next = Math.max(i + 2, next * 1.03);
    }
  });
  const spread = Math.max(0.4, ...estimates.concat(elbos).slice(Math.min(20, Math.floor(at.length / 2))).map((v) => 1.15 * Math.abs(v - found.logP)));
  const step = 10 ** Math.floor(Math.log10(spread)), marks = [-step, 0, step].map((d) => [found.logP + d, (found.logP + d).toFixed(2).replace("-", "−")]);
  new Plot("weights-run", "Running estimates of log p(x)", [0, 4], [found.logP - spread, found.logP + spread])
    .curve("truth dashed", [0, 4], [found.logP, found.logP]).curve("bound", at, elbos).curve("model", at, estimates)
    .legend([["model", "log of the mean weight"], ["bound", "mean log-weight: ELBO"]], "end")
    .axes([[0, "1"], [1, "10"], [2, "100"], [3, "1000"], [4, "10⁴"]], marks, "draws").show();
  const largest = found.shares.slice().sort((a, b) => b - a).slice(0, 20), tallest = Math.max(0.05, 1.1 * largest[0]);
  const bars = new Plot("weights-top", "Share of the twenty largest weights", [0, 20], [0, tallest]);
  largest.forEach((share, i) => bars.box("bar", [i + 0.15, i + 0.85], [0, share]));
  const each = 10 ** Math.floor(Math.log10(tallest)), lines = line(0, Math.floor(tallest / each) * each, Math.floor(tallest / each) + 1);
  bars.legend([["", "share of all weight, largest first"]], "end")
    .axes([[0.5, "1"], [9.5, "10"], [19.5, "20"]], lines.map((v) => [v, `${(100 * v).toFixed(each < 0.01 ? 1 : 0)} %`]), "").show();
  numbers("weights-numbers", [
    ["logP", "log p(x)", found.logP], ["estimate", "log of the mean weight", found.estimate], ["elbo", "mean log-weight", found.elbo],
    ["k", "Pareto k̂", found.k, 3, found.k > found.threshold], ["threshold", "k̂ believed up to", found.threshold, 3],
    ["limit", "k in the limit, 1 − r²", 1 - r * r, 3], ["error", "stated error", found.error],
    ["effective", "effective draws", found.effective, 1], ["largest", "largest share", largest[0], 4, largest[0] > found.allowed], ["allowed", "share allowed", found.allowed, 4],
  ]);
}

const DRAW = { elbo: drawElbo, delta: drawDelta, weights: drawWeights };
for (const [section, draw] of Object.entries(DRAW)) {
  $(section).querySelectorAll("input").forEach((input) => input.addEventListener("input", draw));
  draw();
}
$("elbo-best").addEventListener("click", () => {
  const p = posterior(Number($("elbo-x").value), Number($("elbo-s").value));
  for (const [id, value] of [["elbo-m", p.mean], ["elbo-t", p.std]]) { $(id).step = "any"; $(id).value = value; }
  drawElbo();
});

// The site's choice of light or dark, if it was made there; else the system's.
function theme(choice) {
  document.documentElement.dataset.theme = choice;
}
const dark = window.matchMedia("(prefers-color-scheme: dark)");
let kept = null;
try { kept = window.localStorage.getItem("theme"); } catch { /* a page from a disk may have no storage */ }
theme(kept === "dark" || kept === "light" ? kept : dark.matches ? "dark" : "light");
$("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
