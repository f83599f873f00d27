// The numbers of the live page, as functions of its settings: no document here, so that they can be tested by themselves.
"use strict";

const LOG_2PI = Math.log(2 * Math.PI);
const logNormal = (x, mean, std) => -0.5 * ((x - mean) / std) ** 2 - Math.log(std) - 0.5 * LOG_2PI;

function logMeanExp(values) {
  const largest = values.reduce((a, b) => Math.max(a, b), -Infinity);
  return largest + Math.log(values.reduce((sum, value) => sum + Math.exp(value - largest), 0) / values.length);
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

// z ~ N(0, 1), x|z ~ N(z, s²): the posterior is N(x/(1 + s²), s²/(1 + s²)).
function posterior(x, s) {
  return { mean: x / (1 + s * s), std: s / Math.sqrt(1 + s * s) };
}

function klNormal(m, t, mean, std) {
  return 0.5 * ((t / std) ** 2 + ((m - mean) / std) ** 2 - 1) - Math.log(t / std);
}

// The bound of q = N(m, t²), its terms, and its gap, each in closed form.
function bound({ m, t, x, s }) {
  const p = posterior(x, s);
  const reconstruction = -0.5 * LOG_2PI - Math.log(s) - 0.5 * ((x - m) ** 2 + t * t) / (s * s);
  const toPrior = klNormal(m, t, 0, 1);
  return {
    logP: logNormal(x, 0, Math.sqrt(1 + s * s)), elbo: reconstruction - toPrior, gap: klNormal(m, t, p.mean, p.std),
    reconstruction, toPrior, posteriorMean: p.mean, posteriorStd: p.std,
  };
}

// Expectations under a standard normal: the trapezoid rule on [-10, 10], whose error for such functions is rounding.
const CELL = 0.02;
const NODES = Array.from({ length: 1001 }, (_, i) => -10 + CELL * i);
const SHARES = NODES.map((t) => CELL * Math.exp(logNormal(t, 0, 1)));
const expectation = (f) => NODES.reduce((sum, t, i) => sum + SHARES[i] * f(t), 0);

// The flow z = asinh(x), and the VAE that it becomes when its deltas have width sigma.
const flowLogP = (x) => logNormal(Math.asinh(x), 0, 1) - 0.5 * Math.log1p(x * x);

function relaxed({ x, sigma }) {
  const slope = 1 / Math.sqrt(1 + x * x), centre = Math.asinh(x), width = sigma * slope;
  const logWeight = (e) => {
    const z = centre + width * e;
    return logNormal(z, 0, 1) + logNormal(x, Math.sinh(z), sigma) - logNormal(e, 0, 1) + Math.log(width);
  };
  const elbo = expectation(logWeight);
  const logPSigma = Math.log(expectation((t) => Math.exp(flowLogP(x + sigma * t))));  // the flow's density, blurred
  const logP = flowLogP(x);
  return { logP, logPSigma, elbo, off: logP - elbo, rate: (logP - elbo) / sigma ** 2, gap: logPSigma - elbo };
}

// Normal draws by seed: mulberry32, then Box and Muller.
function noise(count, seed) {
  let state = (seed + 1) * 0x9e3779b9 | 0;
  const uniform = () => {
    state = state + 0x6d2b79f5 | 0;
    let t = Math.imul(state ^ state >>> 15, 1 | state);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) / 4294967296;
  };
  return Array.from({ length: count }, () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
}

// Shape of the Pareto distribution of the largest weights: Zhang & Stephens 2009, Vehtari et al. 2024.
function paretoK(logWeights) {
  const count = logWeights.length, size = Math.floor(Math.min(count / 5, 3 * Math.sqrt(count)));
  const sorted = Float64Array.from(logWeights).sort().reverse();
  const range = sorted[0] - sorted[count - 1];
  if (range * range <= 8 * Number.EPSILON * (Math.abs(sorted[0]) + 3)) return -Infinity;  // equal but for rounding
  if (size < 5) return Infinity;
  const cutoff = Math.exp(sorted[size] - sorted[0]);
  const excess = Array.from(sorted.slice(0, size), (value) => Math.exp(value - sorted[0]) - cutoff).reverse();
  const quartile = excess[Math.floor(size / 4 + 0.5) - 1], largest = excess[size - 1];
  const grid = 30 + Math.floor(Math.sqrt(size)), candidates = [], logLikelihoods = [];
  const shape = (b) => mean(excess.map((y) => Math.log1p(-b * y)));
  for (let step = 1; step <= grid; step++) {
    const b = (1 - Math.sqrt(grid / (step - 0.5))) / (3 * quartile) + 1 / largest;
    const k = shape(b), logLikelihood = size * (Math.log(-b / k) - k - 1);
    candidates.push(b);
    logLikelihoods.push(Number.isNaN(logLikelihood) ? -Infinity : logLikelihood);
  }
  const top = Math.max(...logLikelihoods);
  const shares = logLikelihoods.map((value) => Math.exp(value - top));
  const total = shares.reduce((a, b) => a + b, 0);
  const best = candidates.reduce((sum, b, i) => sum + shares[i] / total * b, 0);
  return (size * shape(best) + 5) / (size + 10);
}

const threshold = (count) => Math.min(1 - 1 / Math.log10(count), 0.7);

// K log-weights of a q with the posterior's mean and r times its width, at x = 1, s = 1; and what is made of them.
function importance({ r, count, seed }) {
  const x = 1, s = 1, p = posterior(x, s), t = r * p.std;
  const logWeights = noise(count, seed).map((e) => {
    const z = p.mean + t * e;
    return logNormal(z, 0, 1) + logNormal(x, z, s) - logNormal(z, p.mean, t);
  });
  const top = logWeights.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = logWeights.map((value) => Math.exp(value - top));
  const total = weights.reduce((a, b) => a + b, 0);
  return {
    logWeights, logP: logNormal(x, 0, Math.sqrt(1 + s * s)), estimate: logMeanExp(logWeights), elbo: mean(logWeights),
    k: paretoK(logWeights), threshold: threshold(count), shares: weights.map((w) => w / total), allowed: 1 / count + 1 / 50,
    error: Math.sqrt(weights.reduce((sum, w) => sum + (w * count / total - 1) ** 2, 0) / (count * (count - 1))),
    effective: total ** 2 / weights.reduce((sum, w) => sum + w * w, 0),
  };
}
