// The settings form, the three numbers of the prior with their cost, the search boxes, the import.
import { $, $$, element, say, send } from "./shared.js";

export function startForms() {
  startSettings();
  startNumbers();
  startFinding();
  startImport();
}

function startSettings() {
  const form = $("[data-settings]");
  if (!form) return;
  const first = JSON.stringify(values(form)), changed = $("[data-changed]");
  const dirty = () => JSON.stringify(values(form)) !== first;
  form.addEventListener("input", () => { changed.textContent = dirty() ? "not saved yet" : ""; });
  let sent = false;
  window.addEventListener("beforeunload", (event) => { if (!sent && dirty()) event.preventDefault(); });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    sent = true;
    const answer = await send(form.dataset.settings, { seen: form.dataset.seen, values: values(form) });
    sent = Boolean(answer?.ok);
    for (const own of $$("[data-wrong]", form)) own.hidden = true;
    for (const own of $$("[aria-invalid]", form)) own.removeAttribute("aria-invalid");
    for (const [name, text] of Object.entries(answer?.fields || {})) mark(form, name, text);
    $("[data-wrong]:not([hidden])", form)?.scrollIntoView({ block: "center" });
  });
  for (const box of $$("[data-method]", form)) {
    box.addEventListener("click", (event) => event.stopPropagation());
    box.addEventListener("change", () => { box.closest("details").open = box.checked; });
  }
  const wanted = location.hash ? document.getElementById(location.hash.slice(1)) : null;
  for (let own = wanted; own && own !== document.body; own = own.parentElement) if (own.tagName === "DETAILS") own.open = true;
  wanted?.scrollIntoView();
}

function values(form) {
  const found = {};
  for (const own of $$("input[name], select[name], textarea[name]", form)) found[own.name] = own.value;
  for (const box of $$("[data-list]", form)) found[box.dataset.list] = $$("input:checked", box).map((own) => own.value);
  found.regularizers = $$("[data-method]:checked", form).map((own) => own.dataset.method);
  return found;
}

function mark(form, name, text) {
  const place = $$("[data-setting]", form).find((own) => name === own.dataset.setting || name.startsWith(`${own.dataset.setting}.`));
  if (!place) {
    say(`${name}: ${text}`, true);
    return;
  }
  const wrong = $("[data-wrong]", place);
  wrong.textContent = text;
  wrong.hidden = false;
  $("input, select, textarea", place)?.setAttribute("aria-invalid", "true");
  for (let own = place; own !== form; own = own.parentElement) if (own.tagName === "DETAILS") own.open = true;
}

function startNumbers() {
  const form = $("[data-numbers]");
  if (!form) return;
  const { per_image: pool, enough, ratio, weight } = form.elements, button = $("button", form);
  const touched = new Set();
  let timer = 0, asked = 0;
  const wish = (keep) => {
    const all = { per_image: enough.checked ? null : Number(pool.value), ratio: Number(ratio.value), weight: Number(weight.value) };
    return { keep, seen: form.dataset.seen, ...Object.fromEntries(Object.entries(all).filter(([name]) => touched.has(name))) };
  };
  // a slider rounds what it is given; until it is touched, what stands in the file is shown
  const number = (own) => touched.has(own.name) ? own.value : own.getAttribute("value");
  const dress = () => {
    pool.disabled = enough.checked;
    for (const own of [pool, ratio, weight]) $("output", own.closest("label")).textContent = own === pool && enough.checked ? "auto" : number(own);
  };
  const price = async () => {
    const mine = ++asked, cost = await send(form.dataset.numbers, wish(false));
    if (!cost?.ok || mine !== asked) return;
    if (!touched.has(ratio.name)) {  // where the file names none, it follows the weight
      ratio.setAttribute("value", cost.ratio);
      dress();
    }
    $("[data-cost-images]").textContent = cost.images.toLocaleString("en");
    $("[data-cost-forwards]").textContent = cost.forwards.toLocaleString("en");
    $("[data-cost-lines]").replaceChildren(...cost.sentences.map((text) => element("li", { textContent: text })));
    $("[data-cost-warnings]").replaceChildren(...cost.warnings.map((text) => element("li", { textContent: text })));
  };
  form.addEventListener("input", (event) => {
    touched.add(event.target === enough ? pool.name : event.target.name);
    dress();
    button.disabled = false;
    clearTimeout(timer);
    timer = setTimeout(price, 150);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form.dataset.numbers, wish(true));
  });
  dress();
}

function startFinding() {
  const input = $("[data-find]");
  if (!input) return;
  const pieces = $$("[data-setting], details.method");
  input.addEventListener("keydown", (event) => event.key === "Enter" && event.preventDefault());
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    for (const own of pieces) own.hidden = Boolean(wanted) && !(own.textContent + (own.dataset.setting || "")).toLowerCase().includes(wanted);
    for (const own of $$("details.panel, details.inner")) {
      if (own.classList.contains("method")) continue;
      const any = $$("[data-setting]:not([hidden])", own).length;
      own.hidden = Boolean(wanted) && !any && Boolean(own.closest("form"));
      if (wanted && any) own.open = true;
    }
  });
}

function startImport() {
  const form = $("[data-import]");
  if (!form) return;
  const drop = $("[data-drop]"), file = $("input[type=file]", drop), make = $("[data-import-make]");
  let given = null;
  const look = async () => {
    const found = await send(form.dataset.import, given);
    if (!found?.ok) return;
    $("[data-imported]").hidden = false;
    $("[data-imported-title]").textContent = `A training of ${found.system}`;
    $("[data-carried]").replaceChildren(...found.carried.map((own) => element("li", { textContent: `${own.theirs} → ${own.ours} = ${own.value}` })));
    $("[data-left]").replaceChildren(...found.left.map((own) => element("li", { textContent: `${own.names}: ${own.why}` })));
    $("[data-toml]").textContent = found.toml;
    $("[data-imported]").scrollIntoView({ block: "start" });
  };
  const take = async (name, texts) => {
    try {
      given = { file: name, ...await texts };
    } catch (error) {
      return say(error.message, true);
    }
    $("b", drop).textContent = name;
    look();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    given = { path: form.elements.path.value };
    look();
  });
  make.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form.dataset.import, { ...given, name: make.elements.name.value });
  });
  drop.addEventListener("click", () => file.click());
  drop.addEventListener("keydown", (event) => ["Enter", " "].includes(event.key) && (event.preventDefault(), file.click()));
  file.addEventListener("click", (event) => event.stopPropagation());
  file.addEventListener("change", () => file.files.length && take(file.files[0].name, one(file.files[0])));
  for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", over);
      if (name !== "drop") return;
      const entry = event.dataTransfer.items[0]?.webkitGetAsEntry?.(), [own] = event.dataTransfer.files;
      if (entry?.isDirectory) take(entry.name, known(entry, drop.dataset.known.split(" ")));
      else if (own) take(own.name, one(own));
      else say("No file was dropped; choose one, or give its path.", true);
    });
  }
}

const LARGEST = 4 * 2 ** 20;

/** The text of a file. Throws what can be said to the person. */
async function text(file) {
  if (file.size > LARGEST) throw new Error(`${file.name}: too large for a config`);
  try {
    return await file.text();
  } catch {
    throw new Error(`${file.name}: cannot be read here; choose the file, or give its path`);
  }
}

const one = async (file) => ({ text: await text(file) });

/** What a folder has of the files that are known, by name. */
async function known(folder, names) {
  const found = {};
  for (const name of names) {
    const entry = await new Promise((done) => folder.getFile(name, {}, done, () => done(null)));
    if (entry) found[name] = await text(await new Promise((done, fail) => entry.file(done, fail)));
  }
  if (!Object.keys(found).length) throw new Error(`${folder.name}: holds no ${names.join(" and no ")}; drop the config itself, or give the folder's path`);
  return { folder: found };
}
