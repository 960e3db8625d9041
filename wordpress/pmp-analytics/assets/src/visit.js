import { address, campaign, utm } from './address.js';
import { newId } from './store.js';

const IDLE_MS = 1_800_000;
const COOKIE = 'pmp_session';

/** Who visits, which visit this is, and what brought it. Until `session` is called, nothing of it is stored but a held landing. */
export class Visit {
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
   * Looks where the visitor comes from.
   *
   * @param {boolean} loaded the page was loaded; else only its address changed
   * @param {boolean} mayHold the landing may be kept for the next page
   */
  arrive(loaded, mayHold) {
    const { document, location } = this.#window;
    const query = campaign(location.search);
    const before = loaded ? address(document.referrer) : '';
    const inside = before.startsWith(`${location.origin}/`);
    const held = this.#tab.get('landing');
    const referrer = inside ? '' : before;
    if (query || (referrer && !held)) this.#landing = { query, referrer, tagged: query };
    // The page before may have been a landing on which nothing could be stored: its address still says the campaign.
    else if (loaded) this.#landing = held ?? { query: inside ? campaign(new URL(before).search) : '', referrer };
    if (mayHold && this.#landing) this.#tab.set('landing', { ...this.#landing, tagged: '' });
  }

  /**
   * The current visit; a new one after 30 idle minutes or with a new campaign.
   *
   * @returns {{id: string, visitor: string, utm: object, referrer: string, fresh: boolean}} `referrer` is the landing's
   */
  session() {
    const now = Date.now();
    const { query = '', referrer = '', tagged } = this.#landing ?? {};
    this.#landing = null;
    this.#tab.remove('landing');
    const last = this.#store.get('session');
    const fresh = !last || Math.abs(now - last.seen) > IDLE_MS || (tagged && query !== last.query);
    const session = { ...(fresh ? { id: newId(), query, referrer } : last), seen: now };
    const visitor = this.#store.get('visitor') ?? newId();
    this.#store.set('session', session);
    this.#store.set('visitor', visitor);
    // The shop's server finds the visit of an order here.
    this.#cookie(session.id, IDLE_MS / 1000);
    return { ...session, visitor, utm: utm(session.query), fresh };
  }

  /** Forgets visitor and visit, and the landing unless a consent may still come for it. */
  forget(landing) {
    this.#store.remove('session');
    this.#store.remove('visitor');
    this.#cookie('', 0);
    if (!landing) return;
    this.#landing = null;
    this.#tab.remove('landing');
  }

  #cookie(value, seconds) {
    const { document, location } = this.#window;
    const secure = location.protocol === 'https:' ? ';secure' : '';
    document.cookie = `${COOKIE}=${value};path=/;max-age=${seconds};samesite=lax${secure}`;
  }
}
