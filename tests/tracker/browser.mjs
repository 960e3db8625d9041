// The environment of the tracker: a browser with tabs that share storage, a page, a clock, and a mesh that answers.
import { mock } from 'node:test';
import { AnalyticsAPIClient, start } from '../../wordpress/pmp-analytics/assets/shop.js';

export { AnalyticsAPIClient };

export const SHOP = 'https://shop.example';
export const ROUTE = '/wp-json/pmp/v1/notes';
export const SETTINGS = { route: ROUTE, consent: 'assumed' };

/** `localStorage` and `sessionStorage`, whose values are properties, too; `full` refuses to store. */
export class Area {
  full = false;

  get length() { return this.#keys().length; }
  key(at) { return this.#keys()[at] ?? null; }
  getItem(key) { return Object.hasOwn(this, key) ? this[key] : null; }
  removeItem(key) { delete this[key]; }
  copy() { return Object.assign(new Area(), this); }

  setItem(key, value) {
    if (this.full) throw new DOMException('full', 'QuotaExceededError');
    this[key] = String(value);
  }

  #keys() { return Object.keys(this).filter((key) => key !== 'full'); }
}

/** How a tab sees `localStorage`: its own changes at once, those of the other `views` some milliseconds later. */
export class View extends Area {
  #views;
  #lag;

  constructor(views, lag) {
    super();
    for (let at = 0; at < (views[0]?.length ?? 0); at += 1) super.setItem(views[0].key(at), views[0].getItem(views[0].key(at)));
    this.#views = views;
    this.#lag = lag;
    views.push(this);
  }

  setItem(key, value) { this.#everywhere((view) => super.setItem.call(view, key, value)); }
  removeItem(key) { this.#everywhere((view) => super.removeItem.call(view, key)); }

  #everywhere(change) {
    change(this);
    for (const view of this.#views) if (view !== this) setTimeout(() => change(view), this.#lag);
  }
}

const NEVER = new Promise(() => {});

/** An element with attributes; knows as much of selectors as the tracker asks for. */
export class Element {
  constructor(localName, attributes = {}, children = []) {
    Object.assign(this, { localName, attributes, children, hidden: false, value: attributes.value, href: attributes.href });
    for (const child of children) child.parent = this;
    const data = Object.entries(attributes).filter(([name]) => name.startsWith('data-'));
    this.dataset = Object.fromEntries(data.map(([name, value]) => [name.slice(5).replace(/-(.)/g, (_, letter) => letter.toUpperCase()), value]));
  }

  getAttribute(name) { return this.attributes[name] ?? null; }

  matches(selectors) {
    return selectors.split(', ').some((selector) => {
      const [, tag, id, attribute] = /^(\w*)(?:#([\w-]+))?(?:\[([\w-]+)\])?$/.exec(selector);
      return (!tag || tag === this.localName) && (!id || id === this.attributes.id) && (!attribute || attribute in this.attributes);
    });
  }

  closest(selectors) { return this.matches(selectors) ? this : this.parent?.closest(selectors) ?? null; }
  querySelectorAll(selectors) {
    return this.children.flatMap((child) => [...(child.matches(selectors) ? [child] : []), ...child.querySelectorAll(selectors)]);
  }

  querySelector(selectors) { return this.querySelectorAll(selectors)[0] ?? null; }
}

/** The events that the mesh received, and its answers: set `reply` to something that returns a Response or throws. */
export class Mesh {
  /** Every event of every request, including repetitions. */
  received = [];
  /** What visitors answered when they were asked for their consent. */
  choices = [];
  requests = [];
  reply = null;

  async answer(url, options) {
    this.requests.push({ url, ...options });
    if (url.endsWith('/drain')) return new Response(null, { status: 204 });
    if (url.endsWith('/choices')) {
      this.choices.push(JSON.parse(options.body));
      return Response.json({ success: true }, { status: 202 });
    }
    if (url.endsWith('/pass')) return Response.json({ token: `token-${this.requests.length}`, expires_in: 600 });
    const { events } = JSON.parse(options.body);
    const reply = await this.reply?.(events, options);
    if (reply) return reply;
    this.received.push(...events);
    return Response.json({ success: true, accepted: events.length, rejected: 0, results: verdicts(events) });
  }

  types() { return this.received.map((event) => event.event_type); }
  only(type) { return this.received.filter((event) => event.event_type === type); }
}

export const verdicts = (events, refused = () => false) => events.map((event) => (
  refused(event)
    ? { success: false, event_id: event.id, violations: [{ field: 'timestamp', description: 'too old' }] }
    : { success: true, event_id: event.id, violations: [] }
));

/** One browser: its tabs share storage and cookies. */
export class Browser {
  mesh = new Mesh();
  localStorage = new Area();
  cookies = new Map();
  navigator = {};
  beacons = [];
  tabs = [];

  /** Opens a page of the shop, or of a tab that is already open. */
  open(path = '/', { settings = SETTINGS, referrer = '', body = [], tab = new Area(), window: more = {}, title = 'Shop', running = true } = {}) {
    const page = new Page(this, new URL(path, SHOP), { referrer, body, tab, title, settings, more });
    this.tabs.push(page);
    if (running) start(page);
    return page;
  }

  stored() { return Array.from({ length: this.localStorage.length }, (_, at) => this.localStorage.key(at)); }
  queue() { return this.stored().filter((key) => key.startsWith('pmp.q.')).map((key) => JSON.parse(this.localStorage.getItem(key))); }
}

/** A window with its document. */
class Page extends EventTarget {
  innerHeight = 500;
  scrollY = 0;
  gone = false;

  constructor(browser, url, { referrer, body, tab, title, settings, more }) {
    super();
    const page = this;
    this.location = url;
    this.localStorage = browser.localStorage;
    this.sessionStorage = tab;
    const island = new Element('script', { id: 'pmp-settings' });
    island.textContent = JSON.stringify(settings);
    const root = new Element('html', {}, [island, ...body]);
    this.document = Object.assign(new EventTarget(), {
      referrer, title, root, hidden: false, documentElement: { scrollHeight: 2000 },
      getElementById: (id) => root.querySelector(`#${id}`),
      querySelector: (selectors) => root.querySelector(selectors),
      querySelectorAll: (selectors) => root.querySelectorAll(selectors),
    });
    Object.defineProperty(this.document, 'cookie', {
      get: () => [...browser.cookies].map((pair) => pair.join('=')).join('; '),
      set(text) {
        const [, name, value, age] = /^(\w+)=([^;]*);path=\/;max-age=(\d+)/.exec(text);
        if (age === '0') browser.cookies.delete(name);
        else browser.cookies.set(name, value);
      },
    });
    const go = (_state, _title, to) => { if (to) this.location = new URL(to, this.location); };
    this.history = { pushState: go, replaceState: go };
    this.navigator = {
      userAgent: 'Test/1.0',
      sendBeacon(address, text) {
        browser.beacons.push(...JSON.parse(text).events);
        return Boolean(browser.mesh.answer(address, { body: text, beacon: true }).catch(() => {}));
      },
      ...browser.navigator,
    };
    this.fetch = (address, options) => (page.gone ? NEVER : browser.mesh.answer(address, options));
    Object.assign(this, more);
  }

  /** An event that bubbles from an element to the document. */
  fire(name, target) {
    const event = new Event(name);
    Object.defineProperty(event, 'target', { value: target });
    this.document.dispatchEvent(event);
  }

  scroll(y) {
    this.scrollY = y;
    this.dispatchEvent(new Event('scroll'));
  }

  show(state) {
    this.document.hidden = state === 'hidden';
    this.document.dispatchEvent(new Event('visibilitychange'));
  }

  /** The page goes away, in the order of the browsers. From then on nothing of it runs. */
  leave() {
    this.dispatchEvent(new Event('pagehide'));
    this.show('hidden');
    this.gone = true;
  }

  /** The page comes back as it was. */
  restore() {
    this.gone = false;
    this.document.hidden = false;
    this.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }));
  }
}

/** Sets the clock; it moves by `pass` only. */
export function clock(now = '2026-11-22T10:00:00Z') {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: new Date(now) });
  // Node's own one looks at another clock.
  mock.method(AbortSignal, 'timeout', (ms) => {
    const stop = new AbortController();
    setTimeout(() => stop.abort(new DOMException('too late', 'TimeoutError')), ms);
    return stop.signal;
  });
}

export function unwind() {
  mock.timers.reset();
  mock.restoreAll();
}

const settled = () => new Promise((resolve) => { setImmediate(resolve); });

/** Lets time pass, and whatever happens in it happen. */
export async function pass(ms) {
  await settled();
  for (let left = ms; left > 0; left -= 50) {
    mock.timers.tick(Math.min(50, left));
    await settled();
  }
}

/** What a promise comes to, however long it takes. */
export async function after(promise) {
  let open = true;
  const close = () => { open = false; };
  promise.then(close, close);
  while (open) await pass(50);
  return promise;
}
