import { AnalyticsAPIClient } from './client.js';
import { Tracker } from './tracker.js';

export { AnalyticsAPIClient };

/**
 * Starts the tracker of a page whose settings lie in `<script type="application/json" id="pmp-settings">`. They are the
 * same for every visitor, so that a page cache may keep them.
 *
 * What was pushed to `window.pmp` before is told as well. Afterwards `window.pmp` is the tracker.
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
  // A page rendered ahead may never be seen.
  if (document.prerendering) document.addEventListener('prerenderingchange', begin, { once: true });
  else begin();
}

if (typeof document === 'object') start(window);
