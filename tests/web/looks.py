"""How a page looks, as scripts that run in it: what is hard to read, what cannot be named, what came from elsewhere."""

from __future__ import annotations

HARD_TO_READ = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const laid = (colours) => {
  for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
  return canvas.getImageData(0, 0, 1, 1).data;
};
const linear = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = (pixel) => {
  const [r, g, b] = [...pixel].map((value) => linear(value / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const papers = (own) => own ? [...papers(own.parentElement), getComputedStyle(own).backgroundColor] : ["white"];
const contrast = (own) => {
  const paper = papers(own), pair = [light(laid(paper)), light(laid([...paper, getComputedStyle(own).color]))];
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
};
const least = (own) => {
  const { color, fontSize, fontWeight } = getComputedStyle(own);
  if (color === getComputedStyle(document.body).color) return 7;
  return parseFloat(fontSize) >= (fontWeight >= 700 ? 18.66 : 24) ? 3 : 4.5;
};
const says = (own) => [...own.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
const seen = (own) => own.checkVisibility({ visibilityProperty: true }) && !own.closest(":disabled, svg, option");
return [...document.body.querySelectorAll("*")]
  .filter((own) => says(own) && seen(own))
  .filter((own) => contrast(own) < least(own))
  .map((own) => `${own.outerHTML.slice(0, 120)}: ${contrast(own).toFixed(2)}`);
"""
"""Text of any size, on whatever lies under it, with less contrast than WCAG's AA asks for; in plain ink: AAA."""
HEADS = """
const text = (own) => own.innerText.trim().split("\\n")[0];
return [...document.querySelectorAll("h1, h2, summary, label")].filter((own) => own.checkVisibility()).map(text);
"""
READ = """
const there = (selector) => [...document.querySelectorAll(selector)].some((own) => own.checkVisibility());
return ["small, .small", ".badge", "button.main, .button.main", ".soft, .lead"].filter(there);
"""
"""The sorts of text beside the plain one that stand on this page."""
DARK = """
const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);
return r + g + b < 384;
"""
NAMELESS = """
const words = (own) => own.ariaLabel || own.labels?.length || own.textContent.trim() || own.title;
const named = (own) => words(own) || own.querySelector('[alt]');
return [...document.querySelectorAll('input, select, textarea, button, a, summary, [tabindex]')]
  .filter((own) => own.checkVisibility() && own.id !== 'main' && !named(own)).map((own) => own.outerHTML);
"""
"""What can be reached and has no name to be read aloud."""
OUTSIDE = """
const names = performance.getEntriesByType('resource').map((own) => own.name);
return names.filter((name) => !name.startsWith(location.origin) && !name.startsWith('data:'));
"""
