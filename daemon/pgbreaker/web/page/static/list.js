// The list of targets: searched, sorted and grouped here, without asking anybody.

const ORDERS = {
  health: (a, b) => a.dataset.rank - b.dataset.rank || byName(a, b),
  name: byName,
  latency: (a, b) => b.dataset.latency - a.dataset.latency || byName(a, b),
  changed: (a, b) => b.dataset.changed - a.dataset.changed || byName(a, b),
};

function byName(a, b) {
  return a.dataset.name < b.dataset.name ? -1 : a.dataset.name > b.dataset.name ? 1 : 0;
}

export function list(rows) {
  const search = document.getElementById("search");
  const sort = document.getElementById("sort");
  const group = document.getElementById("group");
  const chips = [...document.querySelectorAll("[data-show]")];
  let show = new URLSearchParams(location.search).get("show") || "";
  let here = null, whole = true;

  // The server has left out what was not asked for; from here on nothing is left out.
  const query = new URLSearchParams(location.search);
  if (query.get("q") || show) whole = false;

  function settle() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const all = [...rows.children].filter((row) => row.id);
    let count = 0;
    for (const row of all) {
      const tags = row.dataset.tags.split(" ");
      row.hidden = !((!show || tags.includes(show)) && words.every((word) => row.dataset.words.includes(word)));
      if (!row.hidden) count += 1;
    }
    arrange(all);
    document.getElementById("none").hidden = count > 0;
  }

  function arrange(all) {
    const order = ORDERS[sort.value] || ORDERS.health;
    const heads = new Map([...rows.children].filter((row) => !row.id).map((row) => [row.dataset.of ?? row.textContent.trim(), row]));
    const wanted = [];
    if (group.checked) {
      const groups = Map.groupBy ? Map.groupBy(all, (row) => row.dataset.group) : grouped(all);
      for (const [name, members] of [...groups].sort()) {
        const title = name || "without a label";
        const head = heads.get(title) || heading(title);
        head.hidden = members.every((row) => row.hidden);
        wanted.push(head, ...members.sort(order));
      }
    } else {
      wanted.push(...all.sort(order));
    }
    const keep = new Set(wanted);
    for (const child of [...rows.children]) if (!keep.has(child)) child.remove();
    // Only what stands in the wrong place is moved: whoever has the focus keeps it.
    let place = rows.firstElementChild;
    for (const row of wanted) {
      if (row === place) place = place.nextElementSibling;
      else rows.insertBefore(row, place);
    }
  }

  function grouped(all) {
    const groups = new Map();
    for (const row of all) groups.set(row.dataset.group, [...(groups.get(row.dataset.group) || []), row]);
    return groups;
  }

  function heading(title) {
    const head = document.createElement("div");
    head.className = "row group";
    head.setAttribute("role", "row");
    head.dataset.of = title;
    const cell = document.createElement("div");
    cell.setAttribute("role", "cell");
    cell.setAttribute("aria-colspan", "8");
    cell.textContent = title;
    head.append(cell);
    return head;
  }

  function asked() {
    const query = new URLSearchParams(location.search);
    for (const [name, value] of [["q", search.value], ["show", show], ["sort", sort.value === "health" ? "" : sort.value], ["group", group.checked ? "1" : ""]]) {
      if (value) query.set(name, value);
      else query.delete(name);
    }
    const text = query.toString();
    history.replaceState(null, "", `${location.pathname}${text ? `?${text}` : ""}${location.hash}`);
    for (const chip of chips) {
      if (chip.dataset.show === show) chip.setAttribute("aria-current", "true");
      else chip.removeAttribute("aria-current");
    }
    settle();
  }

  for (const chip of chips) {
    chip.addEventListener("click", (event) => {
      if (!whole) return; // the others are not here: let the server send them
      event.preventDefault();
      show = chip.dataset.show;
      asked();
    });
  }
  search.addEventListener("input", asked);
  search.addEventListener("search", asked); // its cross
  sort.addEventListener("change", asked);
  group.addEventListener("change", asked);
  search.form.addEventListener("submit", (event) => { if (whole) event.preventDefault(); });

  function move(step) {
    const seen = [...rows.children].filter((row) => row.id && !row.hidden);
    if (!seen.length) return;
    const at = seen.indexOf(here);
    here?.removeAttribute("tabindex");
    here = seen[at < 0 ? (step > 0 ? 0 : seen.length - 1) : Math.max(0, Math.min(seen.length - 1, at + step))];
    here.setAttribute("tabindex", "0");
    here.focus();
  }

  return { settle, move, search, get here() { return here?.isConnected ? here : null; } };
}
