// Makes one piece of the page like another, and leaves alone what people are about:
// the field they write in, what they unfolded, what they selected, where they are.

const THEIRS = new Set(["open", "tabindex"]);

export function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeName !== fresh.nodeName || (old.id || "") !== (fresh.id || "")) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.nodeValue = fresh.nodeValue;
    return;
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !THEIRS.has(name)) old.removeAttribute(name);
  }
  if (old === document.activeElement && "value" in old) return;
  children(old, fresh);
}

function children(old, fresh) {
  const wanted = new Set();
  for (const child of fresh.children) if (child.id) wanted.add(child.id);
  const known = new Map();
  for (const child of [...old.children]) {
    if (!child.id) continue;
    // Gone first: whoever is moved because of it would lose the focus.
    if (wanted.has(child.id)) known.set(child.id, child);
    else child.remove();
  }
  let place = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const same = next.id ? known.get(next.id) : null;
    if (same) {
      if (same === place) place = place.nextSibling;
      else old.insertBefore(same, place);
      morph(same, next);
    } else if (place && !next.id && !place.id && place.nodeName === next.nodeName) {
      const here = place;
      place = place.nextSibling;
      morph(here, next);
    } else {
      old.insertBefore(next, place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}
