// Forms in a dialog: the same that the server shows on a page of their own.

export function dialogs({ renew }) {
  const dialog = document.getElementById("dialog");
  const toasts = document.getElementById("toasts");
  let from = null;

  async function ask(href) {
    from = document.activeElement;
    const url = new URL(href, location.href);
    url.searchParams.set("part", "1");
    const answer = await fetch(url).catch(() => null);
    if (!answer || !(answer.headers.get("Content-Type") || "").startsWith("text/html")) {
      say(answer ? `That cannot be done now (${answer.status}).` : "The daemon does not answer.");
      return;
    }
    fill(await answer.text());
    if (!dialog.open) dialog.showModal();
    first()?.focus();
  }

  function fill(text) {
    dialog.innerHTML = text;
    const author = dialog.querySelector("[name=author]");
    if (author && !author.value) author.value = localStorage.getItem("pgbreaker author") || "";
    command();
    confirmed();
  }

  function first() {
    return dialog.querySelector("[aria-invalid]") || dialog.querySelector("[autofocus]") || dialog.querySelector("button");
  }

  // The command says what the fields say.
  function command() {
    const shown = dialog.querySelector("[data-cli]");
    if (!shown) return;
    shown.dataset.cli ||= shown.textContent;
    const reason = dialog.querySelector("[name=reason]").value.trim() || "…";
    const lasting = dialog.querySelector("[name=for]");
    const [verb, name] = [dialog.querySelector("[name=do]").value, dialog.querySelector("#dialog-title").textContent.split(": ").pop()];
    shown.textContent = `pgbreaker ${verb} ${quoted(name)} --reason ${quoted(reason)}${lasting ? ` --for ${lasting.value}` : ""}`;
  }

  function quoted(word) {
    return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\"'\"'")}'`;
  }

  function confirmed() {
    const typed = dialog.querySelector("[data-confirm]");
    const button = dialog.querySelector("button.primary");
    if (typed && button) button.disabled = typed.value !== typed.dataset.confirm;
  }

  dialog.addEventListener("input", () => { command(); confirmed(); });
  dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    if (from?.isConnected) from.focus();
  });

  document.addEventListener("click", (event) => {
    if (event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const link = event.target.closest("a[data-dialog]");
    if (link) { event.preventDefault(); ask(link.href); return; }
    if (event.target.closest("dialog a[data-close]")) { event.preventDefault(); dialog.close(); }
  });

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("dialog [data-order], .toast [data-order]")) return;
    event.preventDefault();
    const button = form.querySelector("button:not([type])");
    if (button) button.disabled = true;
    const author = form.querySelector("input[name=author]:not([type=hidden])");
    if (author?.value) localStorage.setItem("pgbreaker author", author.value);
    const url = new URL(form.action);
    url.searchParams.set("part", "1");
    const answer = await fetch(url, { method: "POST", body: new URLSearchParams(new FormData(form)) }).catch(() => null);
    if (button) button.disabled = false;
    if (!answer) { say("The daemon does not answer; nothing was done."); return; }
    const isHtml = (answer.headers.get("Content-Type") || "").startsWith("text/html");
    if (!isHtml) { say(await why(answer)); return; }
    const text = await answer.text();
    if (!answer.ok) {
      if (form.closest("dialog")) { fill(text); first()?.focus(); return; }
      const fresh = document.createElement("template");
      fresh.innerHTML = text;
      say(`That was not done: ${fresh.content.querySelector(".error")?.textContent || answer.status}`);
      return;
    }
    if (dialog.open) dialog.close();
    form.closest(".toast")?.remove();
    toast(text);
    renew();
  });

  async function why(answer) {
    const problem = await answer.json().catch(() => ({}));
    return problem.detail || `That was not done (${answer.status}).`;
  }

  function toast(text) {
    const fresh = document.createElement("template");
    fresh.innerHTML = text;
    const node = fresh.content.firstElementChild;
    node.removeAttribute("id");
    toasts.append(node);
    expire(node);
  }

  function say(text) {
    const node = document.createElement("div");
    node.className = "toast";
    node.append(Object.assign(document.createElement("p"), { textContent: text }));
    toasts.append(node);
    expire(node);
  }

  function expire(node) {
    const undo = node.querySelector("[data-undo]");
    const stays = 1000 * Number(undo?.dataset.undo || 8);
    setTimeout(() => node.remove(), stays);
  }

  const done = document.getElementById("done");
  if (done) expire(done);
  return { ask };
}
