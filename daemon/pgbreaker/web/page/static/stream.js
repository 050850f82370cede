// One stream of events for all tabs of a browser: HTTP/1.1 allows six connections to a
// host, and the seventh tab would never load. One tab leads and passes on what it
// hears. Whoever is hidden for a minute hears nothing; without a stream all ask again
// every few seconds.

const KINDS = ["snapshot", "transition", "override", "maintenance", "notice", "pause", "reload", "note", "daemon", "heartbeat"];
const HIDDEN_FOR = 60_000;
const AGAIN_AFTER = [500, 1000, 2000];
const LEASE = 4000; // where the browser has no locks: for how long a leader leads

export function follow(url, { last, told, status }) {
  const channel = new BroadcastChannel(`pgbreaker ${url}`);
  let source = null, release = null, hiding = 0, failures = 0, wants = false, retry = 0;

  function tell(event) {
    if (event.kind === "closed") { status("polls"); return; }
    status("streams");
    if (event.id > last) last = event.id;
    told(event);
  }

  channel.onmessage = ({ data }) => { if (wants) tell(data); };

  function open() {
    if (source || !wants) return;
    // What came after the page was written; without a last one, all of it anew.
    source = new EventSource(last ? `${url}?after=${last}` : url);
    source.onopen = () => { failures = 0; pass({ kind: "open" }); };
    source.onerror = () => {
      // The browser tries again by itself only after some errors, and too often.
      end(AGAIN_AFTER[Math.min(failures++, AGAIN_AFTER.length - 1)]);
    };
    for (const kind of KINDS) {
      source.addEventListener(kind, ({ data, lastEventId }) => {
        // A snapshot is all that the API has: the page asks for what it shows.
        pass({ kind, id: Number(lastEventId), data: kind === "snapshot" ? null : read(data) });
      });
    }
    source.addEventListener("bye", () => end(AGAIN_AFTER[0]));
  }

  function pass(event) {
    tell(event);
    channel.postMessage(event);
  }

  function end(again) {
    close();
    pass({ kind: "closed" });
    retry = setTimeout(open, again);
  }

  function close() {
    clearTimeout(retry);
    source?.close();
    source = null;
  }

  function lead() {
    wants = true;
    if (navigator.locks) {
      const leaving = new AbortController();
      release = () => leaving.abort();
      navigator.locks.request(`pgbreaker ${url}`, { signal: leaving.signal }, () => new Promise((done) => {
        release = done;
        open();
      })).catch(() => {});
    } else {
      // Pages from another machine without TLS have no locks: whoever has the lease leads.
      const key = `pgbreaker ${url}`, me = Math.random().toString(36).slice(2);
      const look = () => {
        const [who, until] = (localStorage.getItem(key) || "").split(" ");
        if (who && who !== me && Number(until) > Date.now()) { close(); return; }
        localStorage.setItem(key, `${me} ${Date.now() + LEASE}`);
        if (who === me) open(); // not before the second look: another may have been quicker
      };
      const timer = setInterval(look, LEASE / 4);
      look();
      release = () => {
        clearInterval(timer);
        if ((localStorage.getItem(key) || "").startsWith(me)) localStorage.removeItem(key);
      };
    }
  }

  function leave() {
    wants = false;
    close();
    release?.();
    release = null;
    status("sleeps");
  }

  function look() {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(leave, HIDDEN_FOR);
    else if (!wants) { status("polls"); lead(); }
  }

  document.addEventListener("visibilitychange", look);
  addEventListener("pagehide", leave);
  addEventListener("pageshow", look);
  look();
}

function read(data) {
  try { return JSON.parse(data); } catch { return null; }
}
