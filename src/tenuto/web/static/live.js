// The run as it goes: asked for every two seconds, drawn from what lies on disk. A server that is away is waited for.
import { $, $$, element, say, send, ask } from "./shared.js";

const WORDS = {
  waiting: "Waiting in the queue",
  running: "Running",
  done: "Done",
  stopped: "Stopped",
  failed: "It failed",
  killed: "It was interrupted",
};
const TITLES = { "loss.instance": "Learning the concept", drift: "Drift: how far the rest has moved", validation: "Loss on pictures set aside" };

export function startLive() {
  const bar = $("[data-live]");
  if (!bar) return;
  const start = $("[data-run-start]", bar), stop = $("[data-run-stop]", bar);
  let last = null, timer = 0;
  start.addEventListener("click", async () => {
    start.disabled = true;
    await send(`/p/${bar.dataset.key}/start`, { what: start.dataset.runStart });
    start.disabled = false;
    look();
  });
  stop.addEventListener("click", async () => {
    if (last?.job?.id) await send("/stop", { job: last.job.id });
    look();
  });
  async function look() {
    clearTimeout(timer);
    try {
      const found = await ask(bar.dataset.live + ({ training: "?curves=1", prior: "?prior=1" }[bar.dataset.tab] || ""));
      const ended = last?.job?.state === "running" && (found.job?.state || found.how) === "done";
      last = found;
      show(bar, start, stop, found);
      if (bar.dataset.tab === "training") showTraining(found);
      if (bar.dataset.tab === "prior") showGallery(found);
      if (ended && bar.dataset.tab === "compare") location.reload();
    } catch (error) {
      const away = error instanceof TypeError;
      $("[data-run-what]", bar).textContent = away ? "The page's server does not answer; a run goes on without it." : error.message;
    }
    const busy = ["running", "waiting"].includes(last?.job?.state);
    timer = setTimeout(look, document.hidden ? 8000 : busy ? 2000 : 6000);
  }
  look();
}

function show(bar, start, stop, found) {
  const job = found.job, state = job?.state || "", busy = state === "running" || state === "waiting";
  bar.dataset.state = state;
  $("[data-run-state]", bar).textContent = job?.state === "running" && job.stop_asked ? "Stopping"
    : WORDS[state] || (found.how ? WORDS[found.how] : found.report ? "Done" : "Not started yet");
  $("[data-run-what]", bar).textContent = busy ? runningText(found) : job?.text || found.text || nextText(found, state);
  tell($("[data-run-said]", bar), `${$("[data-run-state]", bar).textContent} ${busy ? spoken(found) : ""}`.trim());
  const progress = $("[data-run-progress]", bar);
  progress.hidden = !(busy && found.total);
  if (found.total) { progress.max = found.total; progress.value = found.done; }
  stop.hidden = !busy || !job.id;
  stop.textContent = job?.stop_asked ? "Stop at once" : state === "waiting" ? "Take out" : "Stop";
  start.hidden = busy;
  const again = ["stopped", "failed", "killed"].includes(state || found.how);
  const words = start.dataset.runStart === "prior" ? ["Build the prior set", "Go on building"] : ["Start", "Go on"];
  start.textContent = again ? words[1] : found.report && start.dataset.runStart === "run" ? "Run again" : words[0];
}

function runningText(found) {
  if (found.job?.state === "waiting") return "";
  const amount = found.total ? ` · ${found.what} ${found.done} of ${found.total}` : "";
  return `${found.stage || "starting"}${amount}${found.left ? ` · ${found.left} left` : ""}`;
}

/** What is read aloud: not every two seconds, but when a tenth of the work is done or another one begins. */
function spoken(found) {
  const share = found.total ? Math.floor((10 * found.done) / found.total) * 10 : 0;
  return `${found.stage || ""}${share ? `, ${share} percent` : ""}`;
}

function tell(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

function nextText(found, state) {
  if (["stopped", "killed"].includes(state || found.how)) return "nothing is lost: it goes on where it was";
  return found.report ? "the report is ready" : "";
}

// -- training ---------------------------------------------------------------------------------------------------------

function showTraining(found) {
  const box = $("[data-charts]"), names = Object.keys(found.curves || {});
  if (names.length) {
    $("[data-charts-empty]")?.remove();
    const order = [...names].sort((a, b) => rank(a) - rank(b));
    box.replaceChildren(...order.map((name) => chart(name, found.curves[name], name === "drift" ? found.budget : null)));
  }
  const made = $("[data-made]"), focused = made.contains(document.activeElement) ? document.activeElement.getAttribute("href") : "";
  made.replaceChildren(...(found.made || []).map(madeRow));
  $$("a", made).find((own) => own.getAttribute("href") === focused)?.focus();
  const samples = (found.made || []).flatMap((own) => own.samples.map((sample) => ({ ...sample, name: `${own.arm}, seed ${own.seed}, update ${Number(sample.name.split("-")[0])}` })));
  const drawn = $("[data-samples]");
  fill(drawn, samples.map((own) => ({ id: own.url, url: own.url, text: own.name })));
  $("[data-samples-empty]").hidden = Boolean(drawn.childElementCount);
  $("[data-notes]").replaceChildren(...found.notes.map((own) => element("li", { className: own.kind === "warning" ? "warn" : "", textContent: own.text })));
}

const rank = (name) => ["loss.instance", "drift"].includes(name) ? ["loss.instance", "drift"].indexOf(name) : name === "validation" ? 9 : 2;

function madeRow(own) {
  const row = element("li", { className: "panel row" }, element("b", { className: `is-${own.arm}`, textContent: own.arm }),
    element("span", { className: "soft grow", textContent: `seed ${own.seed} · ${own.updates}${own.total ? ` of ${own.total}` : ""} updates` }));
  if (own.lora) {
    const link = element("a", { className: "button", href: own.lora, textContent: "Download" });
    link.setAttribute("download", "");
    row.append(link);
  }
  return row;
}

const SVG = "http://www.w3.org/2000/svg";
function svg(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function chart(name, curves, budget) {
  const wide = 360, high = 190, left = 44, bottom = 22, top = 8;
  const all = curves.flatMap((own) => own.points);
  const drawn = curves.flatMap((own) => name.startsWith("loss.") ? smoothed(own.points) : own.points);
  const values = drawn.map((point) => point[1]).filter(Number.isFinite);
  const most = Math.max(...values, budget || 0, 1e-9) * 1.05, end = Math.max(...all.map((point) => point[0]), 1);
  const x = (value) => left + (value / end) * (wide - left - 6), y = (value) => top + (1 - Math.min(value, most) / most) * (high - top - bottom);
  const drawing = svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `${TITLES[name] || name}, over updates` });
  for (const share of [0, 0.5, 1]) {
    const at = y(share * most);
    drawing.append(svg("line", { class: "axis", x1: left, x2: wide - 6, y1: at, y2: at }));
    const text = svg("text", { x: left - 6, y: at + 4, "text-anchor": "end" });
    text.textContent = short(share * most, 2);
    drawing.append(text);
  }
  for (const [value, anchor] of [[0, "start"], [end, "end"]]) {
    const text = svg("text", { x: x(value), y: high - 5, "text-anchor": anchor });
    text.textContent = value ? `${value} updates` : "0";
    drawing.append(text);
  }
  if (budget) drawing.append(svg("line", { class: "budget", x1: left, x2: wide - 6, y1: y(budget), y2: y(budget), "stroke-width": 1.6 }));
  for (const own of curves) {
    const finite = own.points.filter((point) => Number.isFinite(point[1]));
    const points = name.startsWith("loss.") ? smoothed(finite) : finite;
    const path = points.map((point, number) => `${number ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`).join("");
    if (path) drawing.append(svg("path", { class: `is-${own.arm}`, d: path, opacity: own.seed === curves[0].seed ? 1 : 0.55 }));
  }
  const arms = [...new Map(curves.map((own) => [own.arm, own.points.at(-1)])).entries()];
  const legend = element("div", { className: "legend" }, ...arms.map(([arm, point]) => element("span", { className: `is-${arm}`, textContent: `${arm} ${point ? short(point[1], 3) : ""}` })));
  if (budget) legend.append(element("span", { className: "soft", textContent: `budget ${budget}` }));
  const title = TITLES[name] || `Held by ${name.replace("loss.", "")}`;
  return element("div", { className: "chart" }, element("h3", { textContent: title }), drawing, legend);
}

const short = (value, digits) => value && Math.abs(value) < 0.001 ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits)));

/** A loss jumps from row to row; the mean of its neighbourhood shows where it goes. */
function smoothed(points) {
  const reach = Math.ceil(points.length / 16);
  return points.map(([at], number) => {
    const near = points.slice(Math.max(0, number - reach), number + reach + 1);
    return [at, near.reduce((sum, point) => sum + point[1], 0) / near.length];
  });
}

// -- galleries --------------------------------------------------------------------------------------------------------

function showGallery(found) {
  const box = $("[data-gallery]");
  fill(box, found.prior || []);
  $("[data-gallery-empty]").hidden = Boolean(box.childElementCount);
}

function fill(box, pictures) {
  const there = new Map($$("figure", box).map((own) => [own.dataset.id, own]));
  for (const own of pictures) if (!there.has(own.id)) box.append(figure(own.id, own.url, own.text));
}

function figure(id, url, text) {
  const made = element("figure", {}, element("img", { src: url, alt: text || "prior image", loading: "lazy" }));
  made.dataset.id = id;
  if (text) made.append(element("figcaption", { textContent: text }));
  return made;
}
