// The bar on top: what the simulated fleet does just now.
const ASK_EVERY_MS = 1000;
const KEPT = 60;
const LABELS = {
  none: ["no incident", ""],
  triggered: ["triggered", "triggered"],
  acknowledged: ["acknowledged", "acknowledged"],
  resolved: ["resolved", "resolved"],
};

const $ = (id) => document.getElementById(id);
const seen = [[], []];

export function watchState(getJson) {
  const ask = async () => {
    try { show(await getJson("/lab/state")); } catch { $("incident").textContent = "no lab"; }
    setTimeout(ask, ASK_EVERY_MS);
  };
  ask();
}

function show(state) {
  $("lab-time").textContent = state.now.slice(11, 19) + " UTC";
  $("pace").textContent = state.pace ? `${state.pace}×` : "–";
  const [label, style] = LABELS[state.incident] ?? [state.incident ?? "–", ""];
  $("incident").textContent = label;
  $("incident").className = `pill ${style}`;
  (state.gauges ?? []).slice(0, seen.length).forEach((gauge, i) => {
    $(`gauge-${i + 1}-label`).textContent = gauge.label;
    $(`gauge-${i + 1}`).textContent = reading(gauge);
    trace(`gauge-${i + 1}-line`, seen[i], gauge.value);
  });
}

function reading({ value, unit }) {
  if (value == null) return "–";
  if (unit === "share") return `${Math.round(value * 100)} %`;
  if (unit === "s") return value < 10 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
  return `${value < 100 ? value.toFixed(1) : Math.round(value)} ${unit}`;
}

function trace(id, values, value) {
  if (value == null) return;
  values.push(value);
  if (values.length > KEPT) values.shift();
  const top = Math.max(...values) * 1.15 || 1;
  const points = values.map((v, i) => `${((i / (KEPT - 1)) * 96).toFixed(1)},${(23 - (v / top) * 21).toFixed(1)}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.join(" "));
  $(id).replaceChildren(line);
}
