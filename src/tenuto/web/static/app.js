// What every page does: buttons that send, choosing files, the list of runs. The pages' own parts are in their own files.
import { startCompare } from "./compare.js";
import { startForms } from "./forms.js";
import { startLive } from "./live.js";
import { startPictures } from "./pictures.js";
import { $, $$, ask, element, say, send } from "./shared.js";

// -- small pictures are shown pixel by pixel --------------------------------------------------------------------------

function crisp(image) {
  if (image.naturalWidth && Math.max(image.naturalWidth, image.naturalHeight) <= 192) image.classList.add("crisp");
}
document.addEventListener("load", (event) => event.target.tagName === "IMG" && crisp(event.target), true);
$$("img").forEach(crisp);

// -- buttons that send ------------------------------------------------------------------------------------------------

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-post]");
  if (!button) return;
  button.disabled = true;
  await send(button.dataset.post, JSON.parse(button.dataset.body || "{}"));
  button.disabled = false;
});

for (const form of $$("form[data-json]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = Object.fromEntries(new FormData(form));
    if (event.submitter?.name) body[event.submitter.name] = Boolean(event.submitter.value);
    event.submitter && (event.submitter.disabled = true);
    await send(form.dataset.json, body);
    event.submitter && (event.submitter.disabled = false);
  });
}

// -- choosing a folder or file below the roots ------------------------------------------------------------------------

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-browse]");
  if (button) browse(button.closest("form").elements[button.dataset.browse], button.dataset.for || "", button);
});

function browse(input, wanted, button) {
  const list = element("ul", { className: "folders" });
  const title = element("p", { className: "small wrap" });
  const roots = element("div", { className: "chips" });
  const choose = element("button", { type: "button", className: "main", textContent: "Take this folder" });
  const close = element("button", { type: "button", className: "plain", textContent: "Close" });
  const box = element("dialog", { ariaLabel: "Choose a folder or file" }, element("h2", { textContent: "Choose" }), roots, title, list,
    element("div", { className: "buttons" }, choose, close));
  let here = "";
  const take = (path) => {
    input.value = path;
    input.dispatchEvent(new Event("input", { bubbles: true }));
    box.close();
  };
  const entry = (name, act) => {
    const own = element("button", { type: "button", textContent: name });
    own.addEventListener("click", act);
    return element("li", {}, own);
  };
  async function show(path) {
    try {
      const found = await ask(`/browse?path=${encodeURIComponent(path)}&for=${wanted}`);
      here = found.path;
      title.textContent = `${found.path === "." ? "the workspace" : found.path}${found.pictures ? ` · ${found.pictures} pictures` : ""}`;
      roots.replaceChildren(...(found.roots.length < 2 ? [] : found.roots.map((root) => {
        const chip = element("button", { type: "button", className: "chip", textContent: root });
        chip.addEventListener("click", () => show(root));
        return chip;
      })));
      list.replaceChildren(...(found.up ? [entry("↑ up", () => show(found.up))] : []),
        ...found.entries.map((own) => entry(`${own.folder ? "▸ " : ""}${own.name}`, () => own.folder ? show(own.path) : take(own.path))));
    } catch (error) {
      say(error.message, true);
    }
  }
  choose.addEventListener("click", () => take(here));
  close.addEventListener("click", () => box.close());
  box.addEventListener("close", () => { box.remove(); button.focus(); });
  document.body.append(box);
  box.showModal();
  show(input.value.includes("/") ? input.value : ".");
}

const kept = sessionStorage.getItem("say");
if (kept) {
  sessionStorage.removeItem("say");
  say(kept);
}
/** The list of runs is fetched anew while something runs; not while somebody is about to press one of its buttons. */
async function refresh(list) {
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    const fresh = $("[data-refresh]", new DOMParser().parseFromString(await answer.text(), "text/html"));
    if (answer.ok && fresh && !list.contains(document.activeElement)) {
      list.replaceWith(fresh);
      list = fresh;
    }
  } catch {
    // the server is away: the next look may find it
  }
  if (list.dataset.refresh) setTimeout(() => refresh(list), Number(list.dataset.refresh) * 1000);
}
const runs = $("[data-refresh]");
if (runs?.dataset.refresh) setTimeout(() => refresh(runs), Number(runs.dataset.refresh) * 1000);
startLive();
startPictures();
startCompare();
startForms();
