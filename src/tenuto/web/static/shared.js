// What all parts of the page share: finding and making elements, asking the server, telling the person.
export const $ = (selector, where = document) => where.querySelector(selector);
export const $$ = (selector, where = document) => [...where.querySelectorAll(selector)];

const toasts = $("[data-toasts]");

/** Above an open dialog too, which shuts out all that is not in it. */
export function say(text, bad = false) {
  ($("dialog[open]") || document.body).append(toasts);
  const toast = document.createElement("div");
  toast.className = bad ? "toast bad" : "toast";
  toast.textContent = text;
  toasts.append(toast);
  setTimeout(() => toast.remove(), bad ? 9000 : 4500);
}

export async function ask(url) {
  const answer = await fetch(url, { headers: { accept: "application/json" } });
  if (answer.status === 401) location.reload();
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.error || answer.statusText);
  return data;
}

/** Sends JSON; tells errors; goes where the answer says. Returns the answer, or null. */
export async function send(url, body) {
  try {
    const answer = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", "x-tenuto": "page" },
      body: JSON.stringify(body ?? {}),
    });
    const data = await answer.json();
    if (answer.status === 401) location.reload();
    if (!answer.ok) {
      say(data.error || "that did not work", true);
      return { ...data, ok: false };
    }
    if (data.say) keepSaying(data.say, data.go || data.reload);
    if (data.go) go(data.go);
    else if (data.reload) location.reload();
    return { ...data, ok: true };
  } catch {
    say("The page's server does not answer. Runs go on without it; start `tenuto web` again.", true);
    return null;
  }
}

function go(target) {
  const here = location.pathname + location.search;
  location.assign(target);
  if (target.split("#")[0] === here) location.reload();
}

function keepSaying(text, leaving) {
  if (leaving) sessionStorage.setItem("say", text);
  else say(text);
}

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
