// The Pictures tab: filter by tag, lay masks over, look at one picture and mend its caption, change many at once.
import { $, $$, element, send } from "./shared.js";

export function startPictures() {
  const box = $("[data-cards]");
  if (!box) return;
  const cards = $$(".picture", box);
  startFilter(cards);
  $("[data-masks]")?.addEventListener("change", (event) => { for (const own of $$("[data-mask]", box)) own.hidden = !event.target.checked; });
  startViewer(box, cards);
  startBulk(cards);
}

const shown = (cards) => cards.filter((card) => !card.hidden);

function startFilter(cards) {
  const input = $("[data-filter]"), chips = $$("[data-tag]"), concept = $("[data-concept-filter]");
  const apply = () => {
    const wanted = input.value.trim().toLowerCase();
    const own = concept?.value || "";
    for (const card of cards) {
      const text = `${card.dataset.tags}|${card.dataset.name}`.toLowerCase();
      card.hidden = (wanted && !text.includes(wanted)) || (own && card.dataset.concept !== own);
    }
    for (const chip of chips) chip.ariaPressed = String(chip.dataset.tag.toLowerCase() === wanted);
  };
  input.addEventListener("input", apply);
  concept?.addEventListener("change", () => {
    apply();
    const tags = $("[name=tags]"), trigger = concept.selectedOptions[0].dataset.trigger;
    if (tags.value === tags.dataset.trigger && trigger) tags.value = trigger;
    if (trigger) tags.dataset.trigger = trigger;
  });
  // a finding's file is shown whatever the filters say, opened, and reached by the keyboard
  addEventListener("hashchange", () => show(location.hash));
  for (const link of $$("a[href^='#picture-']")) link.addEventListener("click", () => show(link.hash));
  function show(hash) {
    const card = cards.find((own) => `#${own.id}` === hash);
    if (!card) return;
    input.value = "";
    if (concept) concept.value = "";
    apply();
    card.scrollIntoView({ block: "center" });
    $(".thumb", card).focus();
  }
  for (const chip of chips) {
    chip.ariaPressed = "false";
    chip.addEventListener("click", () => {
      input.value = chip.ariaPressed === "true" ? "" : chip.dataset.tag;
      apply();
    });
  }
}

function startViewer(box, cards) {
  const dialog = $("[data-viewer]"), image = $("[data-viewer-image]"), text = $("[data-viewer-text]"), name = $("[data-viewer-name]");
  let at = 0;
  const open = (number) => {
    const some = shown(cards);
    at = (number + some.length) % some.length;
    const card = some[at];
    image.src = card.dataset.large;
    image.alt = card.dataset.caption;
    text.value = card.dataset.caption;
    name.textContent = card.dataset.name;
    if (!dialog.open) dialog.showModal();
  };
  for (const card of cards) $(".thumb", card).addEventListener("click", () => open(shown(cards).indexOf(card)));
  for (const button of $$("[data-viewer-step]")) button.addEventListener("click", () => open(at + Number(button.dataset.viewerStep)));
  $("[data-viewer-save]").addEventListener("click", () => {
    const { file, seen } = shown(cards)[at].dataset;
    send(box.dataset.save, { picture: file, seen, text: text.value });
  });
  dialog.addEventListener("close", () => $(".thumb", shown(cards)[at] || cards[0])?.focus());
}

function startBulk(cards) {
  const form = $("[data-bulk]"), apply = $("[data-apply]"), list = $("[data-diff]");
  const tags = form.elements.tags, action = form.elements.action;
  const words = { add: "Tags to add, with commas", remove: "Tags to take out", replace: "Tags to replace", trigger_first: "The trigger", filter: "artist, meta, character_name, character_appearance, copyright" };
  const dress = () => {
    for (const own of $$("[data-only]", form)) own.hidden = own.dataset.only !== action.value;
    $("[data-tags-label]", form).textContent = words[action.value];
    if (action.value === "trigger_first" && !tags.value) tags.value = tags.dataset.trigger;
    apply.hidden = true;
    list.replaceChildren();
  };
  action.addEventListener("change", dress);
  dress();
  for (const own of [tags, form.elements.instead]) own.addEventListener("input", () => { apply.hidden = true; });
  const wish = (write) => ({
    write,
    pictures: shown(cards).length === cards.length ? null : shown(cards).map((card) => card.dataset.file),
    edit: { action: action.value, tags: [tags.value], instead: form.elements.instead.value ? [form.elements.instead.value] : [], front: form.elements.front.checked },
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const found = await send(form.dataset.bulk, wish(false));
    if (!found?.ok) return;
    apply.hidden = !found.count;
    apply.textContent = `Change ${found.count} caption${found.count === 1 ? "" : "s"}`;
    list.replaceChildren(...(found.count ? found.changes.slice(0, 12).map(line) : [element("p", { textContent: "Nothing would change." })]),
      ...(found.count > 12 ? [element("p", { textContent: `and ${found.count - 12} more` })] : []));
  });
  apply.addEventListener("click", () => send(form.dataset.bulk, wish(true)));
}

function line(change) {
  const split = (text) => text.split(",").map((tag) => tag.trim()).filter(Boolean);
  const before = split(change.before), after = split(change.after);
  const row = element("p", {}, element("b", { textContent: `${change.name}  ` }));
  for (const tag of before.filter((own) => !after.includes(own))) row.append(element("del", { textContent: tag }), " ");
  for (const tag of after) row.append(element(before.includes(tag) ? "span" : "ins", { textContent: tag }), ", ");
  row.lastChild?.remove();
  return row;
}
