export const GRANTED = 'granted';
export const DENIED = 'denied';
export const UNKNOWN = 'unknown';

/** The visitor's consent, from the browser, a consent tool with the WP Consent API, or the tracker's own banner. */
export class Consent {
  #settings;
  #window;
  #store;
  /** Answer of a consent tool on this page. */
  #said;

  /** @param {() => void} changed called whenever the answer may have changed */
  constructor(settings, window, store, changed) {
    this.#settings = settings;
    this.#window = window;
    this.#store = store;
    const { document } = window;
    document.addEventListener('wp_listen_for_consent_change', ({ detail }) => {
      const said = detail?.[settings.category];
      if (said) this.#said = said === 'allow' ? GRANTED : DENIED;
      changed();
    });
    document.addEventListener('wp_consent_type_defined', changed);
    // Another tab's answer.
    window.addEventListener('storage', ({ key }) => { if (key?.endsWith('consent')) changed(); });
  }

  /** One of `granted`, `denied`, `unknown`. A browser's no (GPC, DNT) takes precedence. */
  get state() {
    const { globalPrivacyControl, doNotTrack } = this.#window.navigator;
    if (globalPrivacyControl || doNotTrack === '1') return DENIED;
    if (this.settled && this.#allows(this.#settings.category)) return GRANTED;
    if (this.#managed) return this.#said === DENIED ? DENIED : UNKNOWN;
    return this.#said ?? this.#store.get('consent') ?? (this.#settings.consent === 'assumed' ? GRANTED : UNKNOWN);
  }

  /** Whether a consent tool has finished loading: from then on no answer means no. */
  get settled() {
    const { wp_consent_type: type, wp_fallback_consent_type: fallback, waitfor_consent_hook: wait } = this.#window;
    return type ?? (!wait && fallback);
  }

  /** Whether a landing may be kept in `sessionStorage` before the visitor has answered. */
  get mayHold() {
    return this.#settings.hold === 'session' || (this.settled && this.#allows('statistics-anonymous'));
  }

  /** Stores the answer to the tracker's own banner. */
  choose(answer) {
    this.#said = undefined;
    this.#store.set('consent', answer);
  }

  /**
   * Announces the state to the page. The banner, and the report of an answer to the shop, are in a separate file, which few pages
   * need.
   *
   * @param {string} [last] the previous state on this page, to which the session still belongs
   */
  announce(state, last) {
    const { document } = this.#window;
    const { cookie } = document;
    const { ask } = this.#settings;
    const asking = state === UNKNOWN && !this.#managed;
    if (ask && (asking || last || document.querySelector('[data-pmp-consent]'))) {
      import(ask.script).then(({ follow }) => follow(this.#window, ask, asking, state, last, cookie));
    }
    document.dispatchEvent(new CustomEvent('pmp:consent', { detail: state }));
  }

  /** Whether a consent tool asks. Without one, the WP Consent API says yes to everything, which is not consent. */
  get #managed() {
    return this.settled || this.#window.waitfor_consent_hook || this.#allows(this.#settings.category) === false;
  }

  #allows(category) {
    return this.#window.wp_has_consent?.(category);
  }
}
