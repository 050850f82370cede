// Makes one piece of the page like another, and leaves alone what people are about:
// the field they write in, what they unfolded, what they selected, where they are.

const KEPT = new Set(["open", "hidden", "tabindex", "data-here"]);

export function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeName !== fresh.nodeName || (old.id || "") !== (fresh.id || "")) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  attributes(old, fresh);
  if (old === document.activeElement && "value" in old) return;
  children(old, fresh);
}

function attributes(old, fresh) {
  const isOurs = old.hasAttribute("data-kept");
  for (const { name, value } of [...fresh.attributes]) {
    if (isOurs && KEPT.has(name)) continue;
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !KEPT.has(name) && name !== "data-kept" && name !== "class") old.removeAttribute(name);
  }
  if (!fresh.hasAttribute("class") && old.hasAttribute("class")) old.removeAttribute("class");
  if (!fresh.hasAttribute("hidden") && old.hasAttribute("hidden") && !isOurs) old.removeAttribute("hidden");
}

function children(old, fresh) {
  const keyed = new Map();
  for (const child of old.children) if (child.id) keyed.set(child.id, child);
  let place = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const known = wanted.id ? keyed.get(wanted.id) : null;
    if (known) {
      if (known !== place) old.insertBefore(known, place);
      else place = place.nextSibling;
      morph(known, wanted);
    } else if (place && !wanted.id && !place.id && place.nodeName === wanted.nodeName) {
      const here = place;
      place = place.nextSibling;
      morph(here, wanted);
    } else {
      old.insertBefore(wanted, place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}
