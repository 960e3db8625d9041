import { address, campaign, clip, utm } from './address.js';
import { newId } from './store.js';

const IDLE_MS = 1_800_000;
const MONTH_MS = 2_592_000_000;

/** The visitor, the current session and its source. Until `current` is called, nothing is stored except a held landing. */
export class Session {
  #window;
  #store;
  #tab;
  #landing;

  constructor(window, store, tab) {
    this.#window = window;
    this.#store = store;
    this.#tab = tab;
  }

  /**
   * Determines the source of the visitor.
   *
   * @param {boolean} loaded whether the page was loaded, or only its address changed
   * @param {boolean} mayHold whether the landing may be kept for the next page
   */
  arrive(loaded, mayHold) {
    const { document, location } = this.#window;
    const before = loaded ? address(document.referrer) : '';
    const inside = before.startsWith(`${location.origin}/`);
    // Campaign parameters on the shop's own links are not a campaign.
    const query = inside ? '' : campaign(location.search);
    const held = this.#tab.get('landing');
    const referrer = inside ? '' : before;
    if (query || (referrer && !held)) this.#landing = { query, referrer, tagged: query };
    // The previous page may have been a landing on which nothing could be stored: its address still has the campaign.
    else if (loaded) this.#landing = held ?? { query: inside ? campaign(new URL(before).search) : '', referrer };
    if (mayHold && this.#landing) this.#tab.set('landing', { ...this.#landing, tagged: '' });
  }

  /**
   * The current session; a new one after 30 idle minutes or with a new campaign.
   *
   * @returns {{id: string, visitor: string, utm: object, referrer: string, fresh: boolean}} `referrer` is the landing's
   */
  current() {
    const now = Date.now();
    const { query = '', referrer = '', tagged } = this.#landing ?? {};
    this.#landing = null;
    this.#tab.remove('landing');
    const last = this.#store.get('session');
    const fresh = !last || Math.abs(now - last.seen) > IDLE_MS || (tagged && query !== last.query);
    // A partner's code outlives the session: people come back to buy.
    const ref = new URLSearchParams(query).get('ref') ?? (now - last?.seen < MONTH_MS ? last.ref : undefined);
    const session = { ...(fresh ? { id: newId(), query, referrer, ref } : last), seen: now };
    const visitor = this.#store.get('visitor') ?? newId();
    this.#store.set('session', session);
    this.#store.set('visitor', visitor);
    const found = utm(session.query);
    // With these the shop's server finds the session and the source of an order.
    this.#cookie('session', session.id, IDLE_MS);
    this.#cookie('landing', encodeURIComponent(JSON.stringify({
      ...found, referrer: clip(session.referrer, 500), ref: session.ref,
    })), MONTH_MS);
    return { ...session, visitor, utm: found, fresh };
  }

  /** Forgets visitor and session, and with `landing` also the held landing. */
  forget(landing) {
    this.#store.remove('session');
    this.#store.remove('visitor');
    this.#cookie('session', '', 0);
    this.#cookie('landing', '', 0);
    if (!landing) return;
    this.#landing = null;
    this.#tab.remove('landing');
  }

  #cookie(name, value, ms) {
    const { document, location } = this.#window;
    const secure = location.protocol === 'https:' ? ';secure' : '';
    document.cookie = `pmp_${name}=${value};path=/;max-age=${ms / 1000};samesite=lax${secure}`;
  }
}
