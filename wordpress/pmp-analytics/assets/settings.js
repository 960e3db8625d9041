/** Shows in the settings how many page views have arrived, as they do, until somebody has left the page alone for ten minutes. */
(() => {
  const place = document.getElementById("pmp-arrivals");
  if (!place) return;
  const { route, nonce } = place.dataset;
  const PAUSE_MILLISECONDS = 3000;
  const until = Date.now() + 600_000;

  async function look() {
    if (document.visibilityState === "visible") {
      try {
        const answer = await fetch(route, { method: "POST", headers: { accept: "application/json", "x-wp-nonce": nonce } });
        const { text } = await answer.json();
        if (answer.ok && place.textContent !== text) place.textContent = text;
      } catch {
        // The next look may succeed.
      }
    }
    if (Date.now() < until) setTimeout(look, PAUSE_MILLISECONDS);
  }

  void look();
})();
