"use strict";
const PAUSE = 2000;
const silence = document.getElementById("silence");
let tag = "";
let timer = 0;
let asking = false;

// While somebody selects a text, it stays.
function isHeld(part) {
  const selection = getSelection();
  return !selection.isCollapsed && selection.containsNode(part, true);
}

// Only what changed is replaced, inside elements that stay: so they keep their focus and their place.
function show(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  let whole = true;
  for (const part of fresh.querySelectorAll("[data-live]")) {
    const shown = document.getElementById(part.id);
    if (shown.isEqualNode(part)) continue;
    if (isHeld(shown)) whole = false;
    else shown.replaceChildren(...part.childNodes);
  }
  return whole;
}

async function ask() {
  const answer = await fetch(location.href, {
    cache: "no-store",
    headers: { "If-None-Match": tag },
    signal: AbortSignal.timeout(10000),
  });
  if (answer.ok && show(await answer.text())) tag = answer.headers.get("ETag");
  return answer.ok || answer.status === 304;
}

async function refresh() {
  if (asking || document.hidden) return;
  asking = true;
  clearTimeout(timer);
  const answered = await ask().catch(() => false);
  silence.textContent = answered ? "" : "The gateway does not answer. This is what was there last; it is asked again.";
  asking = false;
  timer = setTimeout(refresh, PAUSE);
}

document.addEventListener("visibilitychange", refresh);
timer = setTimeout(refresh, PAUSE);
