import { Store, newId } from './store.js';

const EVENT_BYTES = 32_768; // what the mesh takes
const BODY_BYTES = 60_000; // browsers let 64 KiB of requests outlive their page
const BATCH = 50;
const QUEUE = 500;
const REQUEST_MS = 10_000;
const ORPHAN_MS = 60_000;
const SEEN_MS = 200; // until a tab has surely seen what another one stored
const LONGEST_WAIT_MS = 3_600_000;

/** The beginning of a key, which sorts by time. */
const stamp = (ms, count = 0) => `q.${(ms * 1000 + count % 1000).toString(36)}`;
const bytes = (event) => new Blob([JSON.stringify(event)]).size;

/**
 * Brings events to the mesh. They lie in a queue that outlives the page; each belongs to a tab, which alone tells it: what
 * other tabs take out of the storage is seen too late to share a queue. A tab hands its events from page to page, and a
 * page that begins adopts those of tabs that are gone.
 *
 * An event leaves the queue when the mesh has answered for it, never before. Its id stays the same, so that telling it
 * again is harmless.
 */
export class AnalyticsAPIClient {
  #settings;
  #window;
  #store;
  #tab;
  /** Name of the tab, once it has told something. */
  #me;
  #running;
  #timer;
  #size = BATCH;
  #count = 0;
  /** Promises of `trackEvent`, by event id. */
  #callers = new Map();
  /** Keys of what is on its way. */
  #flying = new Set();

  /**
   * @param {object} settings the shop's own REST route, or the gateway
   * @param {string} [settings.route] address of the route
   * @param {string} [settings.drain] address that makes the shop send on what waits there
   * @param {string} [settings.endpoint] address of the gateway, up to and including `/api`
   * @param {string} [settings.apiKey] the browser's API key
   * @param {string} [settings.token] a token of scope `track`
   * @param {string} [settings.tokenUrl] where to POST for one instead; answers `{token, expires_in}`
   */
  constructor(settings, window = globalThis) {
    this.#settings = settings;
    this.#window = window;
    this.#store = new Store(() => window.localStorage);
    this.#tab = new Store(() => window.sessionStorage);
    window.addEventListener?.('online', () => {
      // A network that is back ends our own patience, not what the mesh asked for.
      if (!this.#store.get('wait')?.asked) this.#store.remove('wait');
      this.flush();
    });
  }

  /**
   * Tells an event now.
   *
   * @param {object} event as the mesh takes it; `id` and `timestamp` are made where missing
   * @returns {Promise<{success: true, event_id: string}>} rejects when the mesh refused the event, or when it could not
   *   be told: then it stays queued and is tried again
   */
  async trackEvent(event) {
    const id = this.enqueue(event);
    return new Promise((resolve, reject) => {
      this.#callers.set(id, { resolve, reject });
      this.flush();
    });
  }

  /** The events that wait for an answer, the oldest first. */
  getQueuedEvents() {
    return this.#queue('').map(([, event]) => event);
  }

  /**
   * Keeps an event for the next `flush`. In a full queue the oldest makes room.
   *
   * @returns {string} the event's id
   * @throws {RangeError} for an event that the mesh would refuse for its size
   */
  enqueue(event) {
    const kept = { ...event, id: event.id || newId(), timestamp: event.timestamp || new Date().toISOString() };
    if (bytes(kept) > EVENT_BYTES) throw new RangeError(`over ${EVENT_BYTES} bytes`);
    const keys = this.#store.names('q.');
    if (keys.length >= QUEUE) this.#refused([keys[0], { ...this.#store.get(keys[0]) }], 'queue full');
    this.#keep(kept);
    return kept.id;
  }

  /** Tells what is queued, on a page that has queued something: on another one the visitor may not have agreed. Never rejects. */
  async flush() {
    clearTimeout(this.#timer);
    if (this.#me && this.#store.names('q.').length) {
      this.#running = (this.#running ?? this.#adopt()).then(async () => { while (await this.#deliver()); });
    }
    return this.#running;
  }

  /** Flushes after so many milliseconds. */
  flushLater(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.flush(), ms);
  }

  /**
   * Hands the queue to the tab's next page. Unless that one is of the shop too, it is told now: no answer can be heard, so
   * the events stay, and are told again later.
   */
  unload(inside) {
    if (!this.#me) return;
    this.#tab.set('tab', this.#me);
    const events = this.#batch(([key]) => !this.#flying.has(key)).map(([, event]) => event);
    if (inside || !events.length || this.#patience() > 0) return;
    const body = JSON.stringify({ events });
    const { route } = this.#settings;
    if (route) this.#window.navigator.sendBeacon?.(route, body);
    else if (this.#token()) this.#send(body).catch(() => {});
  }

  /** Forgets the queue and all that was stored for it. */
  purge() {
    clearTimeout(this.#timer);
    [...this.#store.names('q.'), 'wait', 'claim'].forEach((key) => this.#store.remove(key));
    ['token', 'tab'].forEach((key) => this.#tab.remove(key));
    this.#me = undefined;
    this.#reject(new Error('purged'));
  }

  /**
   * One request.
   *
   * @returns {Promise<object>} the mesh's answer: `results` has a verdict for each event. Rejects with `status`, and
   *   `retryAfter` in milliseconds.
   */
  async makeRequest(events) {
    if (!this.#settings.route && !this.#token()) await this.#fetchToken();
    const response = await this.#send(JSON.stringify({ events }));
    const answer = await response.json().catch(() => null);
    // A captive portal says 200, too: only a verdict counts.
    if (answer?.results?.length === events.length || (response.ok && answer?.success && !answer.results)) return answer;
    if (response.status === 401) this.#tab.remove('token');
    const after = response.headers.get('retry-after');
    throw Object.assign(new Error(answer?.message ?? `HTTP ${response.status}`), {
      status: response.status,
      retryAfter: after * 1000 || Date.parse(after) - Date.now(),
    });
  }

  #send(body) {
    const { route, endpoint, apiKey } = this.#settings;
    if (route) return this.#post(route, { body, headers: { 'content-type': 'text/plain' } });
    const token = this.#token();
    const headers = { 'content-type': 'application/json', 'x-api-key': apiKey, ...(token && { authorization: `Bearer ${token}` }) };
    return this.#post(`${endpoint}/v1/events/batch`, { body, headers, credentials: 'omit' });
  }

  #post(url, options) {
    return this.#window.fetch(url, { method: 'POST', keepalive: true, signal: AbortSignal.timeout?.(REQUEST_MS), ...options });
  }

  #token() {
    const kept = this.#tab.get('token');
    return this.#settings.token ?? (kept?.until > Date.now() && kept.token);
  }

  async #fetchToken() {
    const { tokenUrl } = this.#settings;
    if (!tokenUrl) return;
    // By POST: a page cache must not give one visitor's token to another.
    const response = await this.#post(tokenUrl);
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    const { token, expires_in: seconds } = await response.json();
    this.#tab.set('token', { token, until: Date.now() + (seconds - 30) * 1000 });
  }

  /** Stores an event under a key of its own: time, and tab. */
  #keep(event) {
    this.#me ??= this.#tab.get('tab') ?? newId();
    this.#tab.remove('tab'); // a tab that is duplicated gets a name of its own
    this.#store.set(`${stamp(Date.now(), this.#count++)}.${this.#me}`, event);
  }

  /** Keys and events of this tab, or of all with an empty name. */
  #queue(tab = this.#me) {
    return this.#store.names('q.').filter((key) => key.endsWith(tab))
      .map((key) => [key, this.#store.get(key)]).filter(([, event]) => event);
  }

  /** Takes over what has waited for so long that its tab must be gone. Of pages that begin together, the last one does. */
  async #adopt() {
    const latest = stamp(Date.now() - ORPHAN_MS);
    const orphan = ([key]) => key < latest;
    if (!this.#queue('').some(orphan)) return;
    const me = newId();
    this.#store.set('claim', me);
    await new Promise((resolve) => { setTimeout(resolve, SEEN_MS); });
    if (this.#store.get('claim') !== me) return;
    this.#store.remove('claim');
    for (const [key, event] of this.#queue('').filter(orphan)) {
      this.#keep(event);
      this.#store.remove(key);
    }
  }

  #batch(wanted = () => true) {
    let room = BODY_BYTES;
    const fits = ([, event]) => (room -= bytes(event) + 1) > 0;
    return this.#queue().filter(wanted).slice(0, this.#size).filter(fits);
  }

  /** Milliseconds until the mesh may be asked again. */
  #patience() {
    const wait = this.#store.get('wait')?.until - Date.now();
    return wait <= LONGEST_WAIT_MS ? wait : 0; // longer than we ever wait: the clock was set back
  }

  /** Tells one batch; true if there may be more. */
  async #deliver() {
    const wait = this.#patience();
    if (wait > 0) {
      this.flushLater(wait);
      return this.#reject(new Error(`queued ${wait} ms`));
    }
    const batch = this.#batch();
    if (!batch.length) {
      // Whatever is not in the queue any more, another page has adopted and told.
      for (const [id, { resolve }] of this.#callers) resolve({ success: true, event_id: id });
      return this.#callers.clear();
    }
    this.#flying = new Set(batch.map(([key]) => key));
    try {
      const { results, event_id, overdue } = await this.makeRequest(batch.map(([, event]) => event));
      // Nobody waits for it: the shop sends on what its cron has left behind.
      if (overdue) this.#post(this.#settings.drain).catch(() => {});
      batch.forEach((entry, at) => {
        const verdict = results?.[at] ?? { success: true, event_id };
        if (verdict.success) this.#settle(entry)?.resolve({ success: true, event_id: verdict.event_id || entry[1].id });
        else this.#refused(entry, JSON.stringify(verdict.violations));
      });
      this.#store.remove('wait');
      this.#size = BATCH;
    } catch (error) {
      if (error.status !== 400 && error.status !== 413) return this.#postpone(error);
      // Halved until the bad event stands alone.
      if (batch.length > 1) this.#size = batch.length >> 1;
      else this.#refused(batch[0], error.message);
    } finally { this.#flying.clear(); }
    return true;
  }

  #refused(entry, reason) {
    const error = new Error(`event ${entry[1].id} was refused: ${reason}`);
    const caller = this.#settle(entry);
    if (caller) caller.reject(error);
    else console.warn(error.message);
  }

  /** Takes an event out of the queue; who waits for it, if anybody does. */
  #settle([key, { id }]) {
    const caller = this.#callers.get(id);
    this.#store.remove(key);
    this.#callers.delete(id);
    return caller;
  }

  /** Waits 1, 2, 4 ... 30 s, or what the mesh asked for; other tabs and later pages wait as well. */
  #postpone(error) {
    const tries = this.#store.get('wait')?.tries ?? 0;
    const asked = error.retryAfter > 0;
    const ms = asked ? Math.min(error.retryAfter, LONGEST_WAIT_MS) : Math.min(1000 * 2 ** tries, 30_000);
    if (this.#store.names('q.').length) { // else it was purged meanwhile, and nothing may be stored
      this.#store.set('wait', { until: Date.now() + ms, tries: tries + 1, asked });
      this.flushLater(ms);
    }
    this.#reject(error);
  }

  #reject(error) {
    for (const { reject } of this.#callers.values()) reject(error);
    this.#callers.clear();
  }
}
