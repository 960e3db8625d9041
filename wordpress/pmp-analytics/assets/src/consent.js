export const GRANTED = 'granted';
export const DENIED = 'denied';
export const UNKNOWN = 'unknown';

/** What the visitor allows, whoever asks for it: the browser, a consent tool with the WP Consent API, or our own banner. */
export class Consent {
  #settings;
  #window;
  #store;
  /** What a consent tool said on this page. */
  #said;

  /** @param {() => void} changed called whenever the answer may be another one */
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

  /** One of `granted`, `denied`, `unknown`. A browser that says no (GPC, DNT) is believed, whatever else is said. */
  get state() {
    const { globalPrivacyControl, doNotTrack } = this.#window.navigator;
    if (globalPrivacyControl || doNotTrack === '1') return DENIED;
    if (this.settled && this.#allows(this.#settings.category)) return GRANTED;
    if (this.#managed) return this.#said === DENIED ? DENIED : UNKNOWN;
    return this.#said ?? this.#store.get('consent') ?? (this.#settings.consent === 'assumed' ? GRANTED : UNKNOWN);
  }

  /** Whether a consent tool has told what it knows: then its silence is a no. */
  get settled() {
    const { wp_consent_type: type, wp_fallback_consent_type: fallback, waitfor_consent_hook: wait } = this.#window;
    return type ?? (!wait && fallback);
  }

  /** Whether a landing may lie in `sessionStorage` before the visitor has answered. */
  get mayHold() {
    return this.#settings.hold === 'session' || (this.settled && this.#allows('statistics-anonymous'));
  }

  /** Keeps the answer to our own banner. */
  choose(answer) {
    this.#said = undefined;
    this.#store.set('consent', answer);
  }

  /**
   * Tells the page of the state. What asks for it, and tells the shop of an answer, few pages need: it lies in a file of its own.
   *
   * @param {string} [last] the state before, on this page; the visit is still that one's
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

  /** Whether a consent tool asks. Without one, the WP Consent API says yes to everything, and that is no consent. */
  get #managed() {
    return this.settled || this.#window.waitfor_consent_hook || this.#allows(this.#settings.category) === false;
  }

  #allows(category) {
    return this.#window.wp_has_consent?.(category);
  }
}
