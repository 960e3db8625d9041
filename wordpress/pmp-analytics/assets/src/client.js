import { Store, newId } from './store.js';

const EVENT_BYTES = 32_768; // the mesh's limit
const BODY_BYTES = 60_000; // browsers' limit of requests that outlive their page is 64 KiB
const BATCH = 50;
const QUEUE = 500;
const REQUEST_MS = 10_000;
const ORPHAN_MS = 60_000;
const SEEN_MS = 200; // until a tab has certainly seen the writes of another
const LONGEST_WAIT_MS = 3_600_000;

/** Prefix of a key, which sorts by time. */
const stamp = (ms, count = 0) => `q.${(ms * 1000 + count % 1000).toString(36)}`;
const bytes = (event) => new Blob([JSON.stringify(event)]).size;

/**
 * Delivers events to the mesh. They are in a queue that outlives the page. Each belongs to one tab, and only that tab sends it:
 * other tabs' deletions become visible too late to share a queue. A tab passes its events on from page to page, and a new page
 * adopts those of closed tabs.
 *
 * An event leaves the queue only when the mesh has confirmed it. Its id stays the same, so that sending it again is harmless.
 */
export class AnalyticsAPIClient {
  #settings;
  #window;
  #store;
  #tab;
  /** Name of the tab, once it has queued an event. */
  #me;
  #running;
  #timer;
  #size = BATCH;
  #count = 0;
  /** Promises of `trackEvent`, by event id. */
  #callers = new Map();
  /** Keys of events in flight. */
  #flying = new Set();

  /**
   * @param {object} settings the shop's own REST route, or the gateway
   * @param {string} [settings.route] address of the route
   * @param {string} [settings.drain] address that makes the shop deliver its outbox
   * @param {string} [settings.endpoint] address of the gateway, up to and including `/api`
   * @param {string} [settings.apiKey] the browser's API key
   * @param {string} [settings.token] a token of scope `track`
   * @param {string} [settings.tokenUrl] where to POST for one instead; returns `{token, expires_in}`
   */
  constructor(settings, window = globalThis) {
    this.#settings = settings;
    this.#window = window;
    this.#store = new Store(() => window.localStorage);
    this.#tab = new Store(() => window.sessionStorage);
    window.addEventListener?.('online', () => {
      // A restored network ends the client's own backoff, not a pause that the mesh asked for.
      if (!this.#store.get('wait')?.asked) this.#store.remove('wait');
      this.flush();
    });
  }

  /**
   * Sends an event now.
   *
   * @param {object} event in the mesh's format; missing `id` and `timestamp` are added
   * @returns {Promise<{success: true, event_id: string}>} rejects when the mesh refused the event, or when it could not
   *   be sent: then it stays queued and is retried
   */
  async trackEvent(event) {
    const id = this.enqueue(event);
    return new Promise((resolve, reject) => {
      this.#callers.set(id, { resolve, reject });
      this.flush();
    });
  }

  /** The unconfirmed events, the oldest first. */
  getQueuedEvents() {
    return this.#queue('').map(([, event]) => event);
  }

  /**
   * Queues an event for the next `flush`. If the queue is full, the oldest is dropped.
   *
   * @returns {string} the event's id
   * @throws {RangeError} if the event is too large for the mesh
   */
  enqueue(event) {
    const kept = { ...event, id: event.id || newId(), timestamp: event.timestamp || new Date().toISOString() };
    if (bytes(kept) > EVENT_BYTES) throw new RangeError(`over ${EVENT_BYTES} bytes`);
    const keys = this.#store.names('q.');
    if (keys.length >= QUEUE) this.#refused([keys[0], { ...this.#store.get(keys[0]) }], 'queue full');
    this.#keep(kept);
    return kept.id;
  }

  /** Sends the queue, if this page has queued an event: on another page the visitor may not have agreed. Never rejects. */
  async flush() {
    clearTimeout(this.#timer);
    if (this.#me && this.#store.names('q.').length) {
      this.#running = (this.#running ?? this.#adopt()).then(async () => { while (await this.#deliver()); });
    }
    return this.#running;
  }

  /** Flushes after this many milliseconds. */
  flushLater(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.flush(), ms);
  }

  /**
   * Passes the queue on to the tab's next page. Unless that is a page of the shop, the queue is also sent now: no answer can be
   * received, so the events stay queued and are sent again later.
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

  /** Deletes the queue and everything stored for it. */
  purge() {
    clearTimeout(this.#timer);
    [...this.#store.names('q.'), 'wait', 'claim'].forEach((key) => this.#store.remove(key));
    ['token', 'tab'].forEach((key) => this.#tab.remove(key));
    this.#me = undefined;
    this.#reject(new Error('purged'));
  }

  /**
   * Sends one request.
   *
   * @returns {Promise<object>} the mesh's answer: `results` has a result for each event. Rejects with `status`, and
   *   `retryAfter` in milliseconds.
   */
  async makeRequest(events) {
    if (!this.#settings.route && !this.#token()) await this.#fetchToken();
    const response = await this.#send(JSON.stringify({ events }));
    const answer = await response.json().catch(() => null);
    // A captive portal answers 200, too: only results count.
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

  /** Stores an event under a key of time and tab. */
  #keep(event) {
    this.#me ??= this.#tab.get('tab') ?? newId();
    this.#tab.remove('tab'); // a duplicated tab gets its own name
    this.#store.set(`${stamp(Date.now(), this.#count++)}.${this.#me}`, event);
  }

  /** Keys and events of this tab, or of all tabs with an empty name. */
  #queue(tab = this.#me) {
    return this.#store.names('q.').filter((key) => key.endsWith(tab))
      .map((key) => [key, this.#store.get(key)]).filter(([, event]) => event);
  }

  /** Takes over events that are so old that their tab must be closed. Of pages that start together, the last one does. */
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

  /** Milliseconds until the mesh may be called again. */
  #patience() {
    const wait = this.#store.get('wait')?.until - Date.now();
    return wait <= LONGEST_WAIT_MS ? wait : 0; // longer than the maximum: the clock was set back
  }

  /** Sends one batch; true if there may be more. */
  async #deliver() {
    const wait = this.#patience();
    if (wait > 0) {
      this.flushLater(wait);
      return this.#reject(new Error(`queued ${wait} ms`));
    }
    const batch = this.#batch();
    if (!batch.length) {
      // Events that left the queue were adopted and sent by another page.
      for (const [id, { resolve }] of this.#callers) resolve({ success: true, event_id: id });
      return this.#callers.clear();
    }
    this.#flying = new Set(batch.map(([key]) => key));
    try {
      const { results, event_id, overdue } = await this.makeRequest(batch.map(([, event]) => event));
      // In the background: the shop delivers overdue messages.
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
      // Halved until the invalid event is alone.
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

  /** Removes an event from the queue and returns its caller, if there is one. */
  #settle([key, { id }]) {
    const caller = this.#callers.get(id);
    this.#store.remove(key);
    this.#callers.delete(id);
    return caller;
  }

  /** Waits 1, 2, 4 ... 30 s, or as long as the mesh asked; other tabs and later pages wait as well. */
  #postpone(error) {
    const tries = this.#store.get('wait')?.tries ?? 0;
    const asked = error.retryAfter > 0;
    const ms = asked ? Math.min(error.retryAfter, LONGEST_WAIT_MS) : Math.min(1000 * 2 ** tries, 30_000);
    if (this.#store.names('q.').length) { // otherwise it was purged meanwhile, and nothing may be stored
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
