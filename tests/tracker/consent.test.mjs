import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import '../../wordpress/pmp-analytics/assets/ask.js';
import { Browser, Element, ROUTE, SHOP, clock, pass, unwind } from './browser.mjs';

const CHOICES = '/wp-json/pmp/v1/choices';
const ASK = { route: ROUTE };
const ASKING = {
  ...ASK,
  ask: { script: new URL('../../wordpress/pmp-analytics/assets/ask.js', import.meta.url).href, route: CHOICES },
};
const AD = '/?utm_source=newsletter&utm_campaign=spring';
const GOOGLE = 'https://www.google.com/';

let browser;
beforeEach(() => {
  clock();
  browser = new Browser();
});
afterEach(unwind);

/** WP Consent API with a consent tool, as it behaves on a page. */
function consentTool(type = 'optin', answers = {}) {
  return {
    wp_consent_type: type,
    wp_has_consent: (category) => (answers[category] ? answers[category] === 'allow' : type === 'optout'),
    say(page, category, value) {
      answers[category] = value;
      page.document.dispatchEvent(Object.assign(new Event('wp_listen_for_consent_change'), { detail: Object.assign([], { [category]: value }) }));
    },
  };
}

const nothing = () => {
  assert.deepEqual(browser.mesh.requests, []);
  assert.deepEqual(browser.beacons, []);
  assert.deepEqual(browser.stored(), []);
  assert.equal(browser.cookies.size, 0);
};

const nothingButTheAnswer = () => {
  assert.deepEqual(browser.mesh.requests, []);
  assert.deepEqual(browser.stored(), ['pmp.consent']);
  assert.equal(browser.cookies.size, 0);
};

test('before consent nothing is stored and nothing leaves', async () => {
  const page = browser.open(AD, { settings: ASK });
  await pass(5000);
  page.show('hidden');
  page.show('visible');
  page.leave();
  await pass(5000);
  nothing();
  assert.equal(page.sessionStorage.length, 0);
});

test('consent releases what this page saw, with its landing', async () => {
  const page = browser.open(AD, { settings: ASK, referrer: GOOGLE });
  await pass(3000);
  page.pmp.consent = 'granted';
  await pass(500);
  const [event] = browser.mesh.only('page_view');
  assert.equal(event.timestamp, '2026-11-22T10:00:00.000Z');
  assert.deepEqual([event.utm_parameters, event.referrer], [{ source: 'newsletter', campaign: 'spring' }, GOOGLE]);
});

test('an answer to the banner is remembered by other pages and tabs', async () => {
  const [page, tab] = [browser.open('/', { settings: ASK }), browser.open('/pricing', { settings: ASK })];
  page.pmp.consent = 'granted';
  tab.dispatchEvent(Object.assign(new Event('storage'), { key: 'pmp.consent' }));
  browser.open('/guide', { settings: ASK });
  await pass(500);
  assert.deepEqual(browser.mesh.received.map((event) => event.page_url).sort(), ['/', '/guide', '/pricing'].map((path) => SHOP + path));
});

test('a denial purges the queue, visitor, session and landing', async () => {
  browser.mesh.reply = () => { throw new TypeError('offline'); };
  const page = browser.open(AD, { settings: { ...ASK, consent: 'assumed' } });
  await pass(500);
  assert.equal(browser.queue().length, 1);
  page.pmp.consent = 'denied';
  page.pmp.push({ event_type: 'view_item' });
  browser.mesh.reply = null;
  page.leave();
  await pass(60_000);
  assert.deepEqual(browser.stored(), ['pmp.consent']);
  assert.equal(browser.cookies.size, 0);
  assert.deepEqual(browser.mesh.received, []);
  browser.open('/', { settings: { ...ASK, consent: 'assumed' } });
  await pass(500);
  assert.deepEqual(browser.mesh.received, []);
});

test('who changes a denial into consent is seen from then on', async () => {
  const page = browser.open('/', { settings: ASK });
  page.pmp.consent = 'denied';
  await pass(1000);
  page.pmp.consent = 'granted';
  await pass(500);
  assert.deepEqual(browser.mesh.received.map(({ event_type: type, timestamp }) => [type, timestamp]), [['page_view', '2026-11-22T10:00:01.000Z']]);
});

for (const [name, signal] of [
  ['Global Privacy Control', { globalPrivacyControl: true }],
  ['Do Not Track', { doNotTrack: '1' }],
]) {
  test(`${name} is a denial, whatever else is said`, async () => {
    browser.navigator = signal;
    const page = browser.open(AD, { settings: { ...ASK, consent: 'assumed' }, window: consentTool('optin', { statistics: 'allow' }) });
    await pass(500);
    page.leave();
    await pass(500);
    assert.equal(page.pmp.consent, 'denied');
    nothing();
  });
}

test('a signal that is switched on later ends it, and what was stored goes', async () => {
  const page = browser.open('/', { settings: { ...ASK, consent: 'assumed' } });
  await pass(500);
  page.navigator.globalPrivacyControl = true;
  page.pmp.push({ event_type: 'view_item' });
  await pass(500);
  assert.deepEqual(browser.mesh.types(), ['page_view']);
  assert.deepEqual(browser.stored(), []);
});

test('a consent tool is asked, and heard when the visitor answers', async () => {
  const tool = consentTool();
  const page = browser.open(AD, { settings: ASK, window: tool });
  await pass(1000);
  nothing();
  tool.say(page, 'marketing', 'allow');
  await pass(500);
  nothing();
  tool.say(page, 'statistics', 'allow');
  await pass(500);
  assert.deepEqual(browser.mesh.types(), ['page_view']);
  tool.say(page, 'statistics', 'deny');
  await pass(500);
  assert.deepEqual(browser.stored(), []);
  assert.equal(page.pmp.consent, 'denied');
});

test('a consent tool that allows by default is believed', async () => {
  browser.open('/', { settings: ASK, window: consentTool('optout') });
  await pass(500);
  assert.deepEqual(browser.mesh.types(), ['page_view']);
});

test('a consent tool that says no wins over a shop that assumes consent', async () => {
  browser.open('/', { settings: { ...ASK, consent: 'assumed' }, window: consentTool('optin') });
  await pass(500);
  nothing();
});

test('the WP Consent API without a consent tool says yes, which is no consent', async () => {
  const page = browser.open('/', { settings: ASK, window: { wp_has_consent: () => true } });
  await pass(500);
  nothing();
  page.wp_consent_type = 'optout';
  page.document.dispatchEvent(new Event('wp_consent_type_defined'));
  await pass(500);
  assert.deepEqual(browser.mesh.types(), ['page_view']);
});

test('what was queued under an earlier consent stays until a consent tool has spoken', async () => {
  browser.mesh.reply = () => { throw new TypeError('offline'); };
  const answers = { statistics: 'allow' };
  browser.open('/', { settings: ASK, window: consentTool('optin', answers) }).leave();
  const { session_id: session } = browser.queue()[0];
  browser.mesh.reply = null;
  await pass(120_000);
  browser.mesh.requests.length = 0;
  const page = browser.open('/pricing', { settings: ASK, window: { ...consentTool('optin', answers), wp_consent_type: undefined, waitfor_consent_hook: true } });
  page.show('hidden');
  page.dispatchEvent(new Event('online'));
  await pass(10_000);
  assert.deepEqual(browser.mesh.requests, []);
  page.wp_consent_type = 'optin';
  page.document.dispatchEvent(new Event('wp_consent_type_defined'));
  await pass(1000);
  assert.deepEqual(browser.mesh.types().sort(), ['page_leave', 'page_leave', 'page_view', 'page_view']);
  assert.equal(new Set(browser.mesh.received.map((event) => event.session_id)).size, 1);
  assert.equal(browser.mesh.received[0].session_id, session);
});

test('a consent withdrawn elsewhere is seen before the next event', async () => {
  const answers = { statistics: 'allow' };
  const page = browser.open('/', { settings: ASK, window: consentTool('optin', answers) });
  await pass(500);
  answers.statistics = 'deny';
  page.pmp.push({ event_type: 'view_item' });
  await pass(500);
  assert.deepEqual(browser.mesh.types(), ['page_view']);
  assert.deepEqual(browser.stored(), []);
});

test('without storage, the address of the page before still says the campaign', async () => {
  const landing = browser.open(AD, { settings: ASK, referrer: GOOGLE });
  await pass(500);
  landing.leave();
  const page = browser.open('/pricing', { settings: ASK, referrer: SHOP + AD, tab: landing.sessionStorage });
  page.pmp.consent = 'granted';
  await pass(500);
  const [event] = browser.mesh.received;
  assert.deepEqual(event.utm_parameters, { source: 'newsletter', campaign: 'spring' });
});

for (const [name, settings, window] of [
  ['the shop', { ...ASK, hold: 'session' }, {}],
  ['a consent tool', ASK, consentTool('optin', { 'statistics-anonymous': 'allow' })],
]) {
  test(`where ${name} lets it, the landing is held in the tab until consent`, async () => {
    const landing = browser.open(AD, { settings, window, referrer: GOOGLE });
    const tab = landing.sessionStorage;
    await pass(500);
    nothing();
    browser.open('/pricing', { settings, window, referrer: SHOP + AD, tab }).leave();
    browser.open('/pay', { settings, window, referrer: 'https://www.paypal.com/', tab }).leave();
    const page = browser.open('/thanks', { settings, window, referrer: `${SHOP}/pay`, tab });
    if (window.say) {
      window.say(page, 'statistics', 'allow');
    } else page.pmp.consent = 'granted';
    await pass(500);
    const [event] = browser.mesh.only('page_view');
    assert.deepEqual([event.page_url, event.utm_parameters, event.referrer], [`${SHOP}/thanks`, { source: 'newsletter', campaign: 'spring' }, GOOGLE]);
    assert.equal(tab.getItem('pmp.landing'), null);
  });
}

/** A page of a theme with a banner of its own, and a button that asks again. */
function themed(options = {}) {
  const [yes, no, ask] = ['granted', 'denied', 'ask'].map((answer) => new Element('button', { 'data-pmp-consent': answer }));
  const banner = new Element('aside', { 'data-pmp-banner': '' }, [yes, no]);
  banner.hidden = true;
  return { yes, no, ask, banner, page: browser.open('/', { settings: ASKING, body: [banner, ask], ...options }) };
}

test('a banner asks until it is answered, and can be asked for again', async () => {
  const { page, banner, yes, no, ask } = themed();
  const states = [];
  page.document.addEventListener('pmp:consent', ({ detail }) => states.push(detail));
  await pass(50);
  assert.equal(banner.hidden, false);
  page.fire('click', no);
  assert.equal(banner.hidden, true);
  page.fire('click', ask);
  assert.equal(banner.hidden, false);
  page.fire('click', yes);
  assert.equal(banner.hidden, true);
  assert.deepEqual(states, ['denied', 'granted']);
});

test('a banner keeps quiet where a consent tool asks, and where the browser has answered', async () => {
  const managed = themed({ window: consentTool() });
  browser.navigator = { globalPrivacyControl: true };
  const signalled = themed();
  await pass(50);
  assert.deepEqual([managed.banner.hidden, signalled.banner.hidden], [true, true]);
});

const choices = () => browser.mesh.choices.map(({ choice, session_id: session }) => [choice, session]);

test('an answer is reported to the shop, for the session that begins or ends with it', async () => {
  const { page, yes, no, ask } = themed();
  await pass(1000);
  page.fire('click', yes);
  await pass(1000);
  const [{ session_id: session }] = browser.mesh.received;
  page.fire('click', ask);
  page.fire('click', no);
  await pass(1000);
  assert.deepEqual(choices(), [['granted', session], ['denied', session]]);
  assert.deepEqual([browser.stored(), page.sessionStorage.length, browser.cookies.size], [['pmp.consent'], 0, 0]);
});

test('an immediate denial reports nothing', async () => {
  const { page, no } = themed();
  await pass(1000);
  page.fire('click', no);
  await pass(1000);
  assert.deepEqual(choices(), []);
  nothingButTheAnswer();
});

test('an answer is reported once, and not again by the pages that know it', async () => {
  const { page, yes } = themed();
  await pass(50);
  page.fire('click', yes);
  await pass(1000);
  themed({ tab: page.sessionStorage });
  await pass(1000);
  assert.equal(choices().length, 1);
});

test('an answer to a consent tool is reported, once however late the tool speaks on later pages', async () => {
  const tool = consentTool();
  const page = browser.open('/', { settings: ASKING, window: tool });
  await pass(500);
  tool.say(page, 'statistics', 'allow');
  await pass(500);
  const later = browser.open('/pricing', {
    settings: ASKING, tab: page.sessionStorage, window: { ...tool, wp_consent_type: undefined, waitfor_consent_hook: true },
  });
  later.wp_consent_type = 'optin';
  later.document.dispatchEvent(new Event('wp_consent_type_defined'));
  await pass(500);
  tool.say(later, 'statistics', 'deny');
  await pass(500);
  const [{ session_id: session }] = browser.mesh.received;
  assert.deepEqual(choices(), [['granted', session], ['denied', session]]);
});
