import { AnalyticsAPIClient } from './client.js';
import { Tracker } from './tracker.js';

export { AnalyticsAPIClient };

/**
 * Starts the tracker of a page with settings in `<script type="application/json" id="pmp-settings">`. They are the same for
 * every visitor, so that pages can be cached.
 *
 * Events that were pushed to `window.pmp` before are tracked as well. Afterwards `window.pmp` is the tracker.
 */
export function start(window) {
  const { document, pmp } = window;
  const settings = document.getElementById('pmp-settings');
  if (!settings || pmp?.client) return;
  const tracker = new Tracker(JSON.parse(settings.textContent), window);
  window.pmp = tracker;
  const begin = () => {
    tracker.start();
    for (const event of pmp ?? []) tracker.push(event);
  };
  // A prerendered page may never be shown.
  if (document.prerendering) document.addEventListener('prerenderingchange', begin, { once: true });
  else begin();
}

if (typeof document === 'object') start(window);
