// The consent banner, and the report of answers to the shop. The tracker loads it if a visitor has to be asked, if the page lets
// visitors change their choice, and when an answer changes; other pages don't need it.

const BANNER = '[data-pmp-banner]';
const CHOICE = '[data-pmp-consent]';
const REPORTED = 'pmp.reported';
// Over the page, so that nothing moves; in system colours. Styled by script, since a policy may forbid style attributes.
const BOX = 'position:fixed;inset:auto 0 0 0;z-index:2147483647;max-height:50vh;overflow:auto;padding:1rem;box-sizing:border-box;'
  + 'color-scheme:light dark;background:Canvas;color:CanvasText;border-top:1px solid;font:16px/1.5 system-ui,sans-serif';
// Both answers are equally easy to see and to give.
const BUTTONS = 'display:inline-grid;grid-auto-flow:column;grid-auto-columns:1fr;gap:.75rem;margin-top:.5rem';
const BUTTON = 'min-width:8rem;min-height:2.75rem;margin:0;padding:.5rem 1rem;font:inherit;cursor:pointer;'
  + 'background:ButtonFace;color:ButtonText;border:2px solid ButtonText;border-radius:.25rem';

const listening = new WeakSet();
/** The button that reopened the banner. */
let opener;

/**
 * Reacts to a state of consent.
 *
 * @param {Window} window window of the page
 * @param {{route: string, title: string, text: string, yes: string, no: string, policy?: {url: string, text: string}}} words
 *   address for answers, and texts of the banner
 * @param {boolean} asking whether the visitor has not answered yet and no consent tool asks
 * @param {string} state what the visitor allows now: `granted`, `denied` or `unknown`
 * @param {string} [last] the previous state on this page; undefined at its start
 * @param {string} cookie the cookies before the change
 */
export function follow(window, words, asking, state, last, cookie) {
  listen(window, words);
  show(window, words, asking);
  if (last && state !== 'unknown') report(window, words.route, state, cookie);
}

function listen(window, words) {
  const { document } = window;
  if (listening.has(document)) return;
  listening.add(document);
  document.addEventListener('click', (event) => {
    const button = event.target.closest?.(CHOICE);
    const choice = button?.dataset.pmpConsent;
    if (choice === 'ask') {
      event.preventDefault();
      opener = button;
      show(window, words, true)?.querySelector(CHOICE)?.focus?.();
    } else if (choice) {
      window.pmp.consent = choice;
      show(window, words, false);
      opener?.focus?.();
      opener = undefined;
    }
  }, true);
}

/** Shows or hides the theme's banner; creates one if there is none. */
function show({ document }, words, asking) {
  let banner = document.querySelector(BANNER);
  if (!banner && asking) {
    banner = made(document, words);
    // First in the page's order, so that it has keyboard focus first.
    document.body.prepend(banner);
  }
  if (banner) banner.hidden = !asking;
  return banner;
}

function made(document, { title, text, yes, no, policy }) {
  const banner = element(document, 'section', { 'data-pmp-banner': '', role: 'dialog', 'aria-labelledby': 'pmp-ask-title', 'aria-describedby': 'pmp-ask-text' }, BOX);
  const paragraph = element(document, 'p', { id: 'pmp-ask-text' }, 'margin:0;max-width:60rem', text);
  if (policy) paragraph.append(' ', element(document, 'a', { href: policy.url }, 'color:LinkText', policy.text));
  const buttons = element(document, 'div', {}, BUTTONS);
  buttons.append(
    element(document, 'button', { type: 'button', 'data-pmp-consent': 'granted' }, BUTTON, yes),
    element(document, 'button', { type: 'button', 'data-pmp-consent': 'denied' }, BUTTON, no),
  );
  banner.append(element(document, 'strong', { id: 'pmp-ask-title' }, '', title), paragraph, buttons);
  return banner;
}

function element(document, name, attributes, style, text = '') {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.style.cssText = style;
  made.textContent = text;
  return made;
}

/** Reports the answer for the session that begins or ends with it. Without a session there is no identifier to report it for. */
function report({ document, fetch, sessionStorage }, route, state, cookie) {
  const [, id] = /(?:^|; )pmp_session=([\w.:-]+)/.exec(cookie) ?? /(?:^|; )pmp_session=([\w.:-]+)/.exec(document.cookie) ?? [];
  const answer = `${id} ${state}`;
  // A consent tool that answers late repeats its answer on every page.
  if (!id || stored(() => sessionStorage.getItem(REPORTED)) === answer) return;
  stored(() => (state === 'granted' ? sessionStorage.setItem(REPORTED, answer) : sessionStorage.removeItem(REPORTED)));
  const body = JSON.stringify({ session_id: id, choice: state, timestamp: new Date().toISOString() });
  fetch(route, { method: 'POST', keepalive: true, headers: { 'content-type': 'text/plain' }, body }).catch(() => {});
}

function stored(use) {
  try { return use(); } catch { return undefined; } // storage may be disabled
}
