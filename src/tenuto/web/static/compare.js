// The Compare tab: two arms under one slider, and the weight strip.
import { $, $$, element } from "./shared.js";

export function startCompare() {
  startBeforeAfter();
  startStrip();
}

function startBeforeAfter() {
  const box = $("[data-ba]");
  if (!box) return;
  const row = $("[data-ba-row]"), left = $("[data-ba-left]"), right = $("[data-ba-right]"), data = $$("[data-ba-data]");
  const chosen = (select) => ({ name: select.selectedOptions[0].text, key: `arm${select.value}` });
  const draw = () => {
    const pictures = $$("[data-prompt]", data[Number(row.value)]);
    box.replaceChildren(...pictures.map((own) => pair(own.dataset, chosen(left), chosen(right))));
  };
  for (const select of [row, left, right]) select.addEventListener("change", draw);
  draw();
}

function pair(data, left, right) {
  const frame = element("div", { className: "ba-frame" },
    element("img", { src: data[left.key], alt: left.name }),
    element("img", { src: data[right.key], alt: right.name, className: "over" }),
    element("div", { className: "line" }),
    element("span", { className: "left", textContent: left.name }),
    element("span", { className: "right", textContent: right.name }));
  const first = $("img", frame);
  first.addEventListener("load", () => made.style.setProperty("--shape", first.naturalWidth / first.naturalHeight));
  const slider = element("input", { type: "range", min: 0, max: 100, value: 50, ariaLabel: `From ${left.name} to ${right.name}` });
  const move = (share) => frame.style.setProperty("--at", `${share}%`);
  slider.addEventListener("input", () => move(slider.value));
  const drag = (event) => {
    const place = frame.getBoundingClientRect();
    slider.value = Math.round((100 * (event.clientX - place.left)) / place.width);
    move(slider.value);
  };
  frame.addEventListener("pointerdown", (event) => { frame.setPointerCapture(event.pointerId); drag(event); });
  frame.addEventListener("pointermove", (event) => event.buttons && drag(event));
  const made = element("figure", { className: "ba" }, frame, slider, element("figcaption", { textContent: data.prompt }));
  return made;
}

function startStrip() {
  const slider = $("[data-strip]"), prompt = $("[data-strip-prompt]"), take = $("[data-take]");
  if (!slider) return;
  const show = () => {
    const url = `url${prompt?.value ?? 0}`;
    for (const image of $$("[data-strip-arm]")) {
      const cell = $$("[data-weight]", image.closest("figure"))[Number(slider.value)];
      $("[data-strip-value]").textContent = cell.dataset.weight;
      if (cell.dataset[url]) image.src = cell.dataset[url];
      image.style.visibility = cell.dataset[url] ? "visible" : "hidden";
    }
    if (take) offer($("[data-strip-value]").textContent);
  };
  const offer = (weight) => {
    take.search = new URLSearchParams({ strength: weight });
    take.parentElement.hidden = Number(weight) === 0;
  };
  slider.addEventListener("input", show);
  prompt?.addEventListener("change", show);
  show();
}
