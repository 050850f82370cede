// Keys for those who know them; none does anything while somebody writes.

const VERBS = { o: "open", c: "close", d: "disable", a: "auto" };

export function keys({ rows, shown }) {
  const help = document.getElementById("help");
  document.getElementById("keys").addEventListener("click", () => help.showModal());

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key !== "Escape") return;
      event.preventDefault(); // browsers empty some fields without telling anybody
      if (event.target.type === "search" && event.target.value) {
        event.target.value = "";
        event.target.dispatchEvent(new Event("input", { bubbles: true }));
      }
      event.target.blur();
      return;
    }
    if (act(event)) event.preventDefault();
  });

  function act({ key, target }) {
    if (key === "?") { help.showModal(); return true; }
    if (key === "/") {
      const search = document.getElementById("search");
      search?.focus();
      search?.select();
      return Boolean(search);
    }
    if (key === "t") {
      const timeline = document.getElementById("timeline");
      timeline?.scrollIntoView({ block: "start" });
      timeline?.focus({ preventScroll: true });
      return Boolean(timeline);
    }
    if (rows && (key === "j" || key === "k")) { rows.move(key === "j" ? 1 : -1); return true; }
    if (key === "Enter" && rows?.here && target === rows.here) {
      rows.here.querySelector(".c-name a").click();
      return true;
    }
    if (key in VERBS) return order(VERBS[key]);
    return false;
  }

  // Of a row's breakers the one that is worst; on a breaker's page, that one.
  function order(verb) {
    const link = place().querySelector(`a[data-dialog].${verb}`);
    if (link) { shown.ask(link.href); return true; }
    const path = rows?.here?.dataset.worst;
    if (path && document.documentElement.dataset.can) { shown.ask(`${path}/act?do=${verb}`); return true; }
    return false;
  }

  function place() {
    if (rows?.here) return document.createElement("div");
    return document.getElementById("head") || document.getElementById("attention") || document.body;
  }
}
