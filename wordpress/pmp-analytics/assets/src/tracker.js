import { address, clip, marks } from './address.js';
import { AnalyticsAPIClient } from './client.js';
import { Consent, DENIED, GRANTED, UNKNOWN } from './consent.js';
import { Store } from './store.js';
import { Session } from './session.js';

const HELD = 50;
const SOON_MS = 200; // so that simultaneous events share a request
const TITLE_MS = 50; // themes set the title just after changing the address
const LEAVING_MS = 5000; // a page that takes longer to be replaced will stay

/** Tracks a page as far as the visitor allows. */
export class Tracker {
  #settings;
  #window;
  #consent;
  #session;
  #state;
  /** Events of this page that wait for consent, in memory only. */
  #held = [];
  /** Fields shared by all events of the page. */
  #page = {};
  /** Time since when the page has been visible; undefined while it is not. */
  #since;
  #depth = 0;
  #gone = false;
  /** Time of the last navigation to another page of the shop. */
  #inside = 0;

  constructor(settings, window) {
    this.#settings = { consent: 'required', category: 'statistics', ...settings };
    this.#window = window;
    const store = new Store(() => window.localStorage);
    this.#session = new Session(window, store, new Store(() => window.sessionStorage));
    this.#consent = new Consent(this.#settings, window, store, () => this.#follow());
    /** @type {AnalyticsAPIClient} */
    this.client = new AnalyticsAPIClient(settings, window);
  }

  /** What the visitor allows: `granted`, `denied` or `unknown`. */
  get consent() {
    return this.#consent.state;
  }

  /** Stores the visitor's answer: `granted` or `denied`. */
  set consent(answer) {
    this.#consent.choose(answer);
    this.#follow();
  }

  /**
   * Tracks an event of the theme or a plugin, such as `{event_type: 'view_item', metadata: {course_id: 'pmp'}}`. Before
   * consent it waits, after a denial it is dropped.
   */
  push({ event_type, ...fields }) {
    if (this.#settings.without?.includes(event_type)) return;
    this.#follow();
    const event = {
      ...this.#page,
      event_type: clip(event_type, 100).replace(/[^\w.:-]+/g, '_'),
      timestamp: new Date().toISOString(),
      source: 'tracker',
      user_agent: clip(this.#window.navigator.userAgent, 1024),
      ...fields,
    };
    if (this.#state === GRANTED) this.#track(event);
    else if (this.#state === UNKNOWN && this.#held.length < HELD) this.#held.push(event);
  }

  /** Starts tracking. */
  start() {
    const window = this.#window;
    const { document, history, navigation } = window;
    const on = (target, name, handler) => target.addEventListener(name, handler, true); // before a theme can stop it
    on(document, 'click', ({ target }) => this.#clicked(target.closest?.('[data-pmp-event], [data-pmp-click]')));
    on(document, 'submit', ({ target }) => this.#submitted(target));
    on(window, 'scroll', () => this.#scrolled());
    on(document, 'visibilitychange', () => {
      if (!document.hidden) this.#since ??= Date.now();
      else if (!this.#gone) {
        this.#leave();
        this.client.flush();
      }
    });
    on(window, 'pagehide', () => {
      this.#leave();
      this.#gone = true;
      if (this.#state === GRANTED) this.client.unload(Date.now() - this.#inside < LEAVING_MS);
    });
    on(window, 'pageshow', ({ persisted }) => {
      if (!persisted) return;
      this.#gone = false;
      this.#page = {};
      this.#view();
    });
    navigation?.addEventListener('navigate', ({ destination }) => {
      if (destination.sameDocument || !destination.url.startsWith(`${window.location.origin}/`)) return;
      this.#inside = Date.now();
      this.client.flushLater(LEAVING_MS); // the page could not receive the answer
    });
    const moved = () => setTimeout(() => this.#view(), TITLE_MS);
    for (const name of ['pushState', 'replaceState']) {
      const original = history[name];
      history[name] = function changed(...state) {
        original.apply(this, state);
        moved();
      };
    }
    on(window, 'popstate', moved);
    this.#view();
  }

  /** Tracks a page view, unless it is still the same page. */
  #view() {
    const { document, location } = this.#window;
    const page_url = address(location.href);
    const last = this.#page.page_url;
    if (page_url === last) return;
    this.#leave();
    this.#page = { page_url, page_title: clip(document.title, 500), referrer: last ?? address(document.referrer) };
    this.#session.arrive(!last, this.#consent.state === UNKNOWN && this.#consent.mayHold);
    this.#since = document.hidden ? undefined : Date.now();
    this.#depth = 0;
    this.#scrolled();
    this.push({ event_type: 'page_view', metadata: marks(document.querySelector('[data-pmp-page]')) });
  }

  /** Tracks how long the page was visible, and how much of it. */
  #leave() {
    if (!this.#since || !this.#page.page_url) return;
    const seconds = Math.round((Date.now() - this.#since) / 100) / 10;
    this.#since = undefined;
    this.push({ event_type: 'page_leave', metadata: { time_on_page: seconds, scroll_depth: this.#depth } });
  }

  #scrolled() {
    const { document, innerHeight, scrollY } = this.#window;
    const seen = Math.round(100 * (scrollY + innerHeight) / document.documentElement.scrollHeight) / 100;
    this.#depth = Math.max(this.#depth, Math.min(seen, 1) || 0);
  }

  #clicked(element) {
    if (!element || element.localName === 'form') return;
    const metadata = { ...(element.href && { href: address(element.href) }), ...marks(element) };
    this.push({ event_type: element.dataset.pmpEvent || 'click', metadata });
  }

  /** Tracks the submission of a form, but none of its contents except a lead's address. */
  #submitted(form) {
    if ('pmpIgnore' in form.dataset) return;
    const metadata = { form: clip(form.getAttribute('id') || form.getAttribute('name'), 255), ...marks(form) };
    const email = form.querySelector('#lead-email')?.value?.trim();
    this.push({
      event_type: form.dataset.pmpEvent || (email ? 'lead_capture' : 'form_submit'), metadata, ...(email && { email: clip(email, 254) }),
    });
  }

  #track(event) {
    const { id, visitor, utm, referrer, fresh } = this.#session.current();
    this.client.enqueue({
      ...event,
      // Consent may have come pages after the landing, whose referrer is the session's source.
      ...(fresh && referrer && { referrer }),
      session_id: id,
      utm_parameters: utm,
      metadata: { ...event.metadata, visitor_id: visitor },
    });
    this.client.flushLater(SOON_MS);
  }

  /** Applies the consent if it has changed. */
  #follow() {
    const state = this.#consent.state;
    const last = this.#state;
    if (state === last) return;
    this.#state = state;
    this.#consent.announce(state, last);
    if (state === GRANTED) {
      this.#held.splice(0).forEach((event) => this.#track(event));
      this.#view();
    } else if (last === GRANTED || state === DENIED || this.#consent.settled) {
      this.client.purge();
      this.#session.forget(state === DENIED);
    } // otherwise a consent tool may still report an earlier consent
    if (state === DENIED) {
      this.#held = [];
      this.#page = {};
    }
  }
}
