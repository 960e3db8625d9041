import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { start } from '../../wordpress/pmp-analytics/assets/shop.js';
import { Area, Browser, Element, SETTINGS, SHOP, clock, pass, unwind, verdicts } from './browser.mjs';

const AD = '/courses/pmp?utm_source=newsletter&utm_medium=email&utm_campaign=spring&gclid=abc';
const MINUTE = 60_000;

let browser;
beforeEach(() => {
  clock();
  browser = new Browser();
});
afterEach(unwind);

const received = (type) => browser.mesh.only(type);

test('a page view says what the mesh asks for, once', async () => {
  browser.open('/pricing', { referrer: 'https://www.google.com/', title: 'Pricing' });
  await pass(5000);
  const [event, ...more] = browser.mesh.received;
  assert.deepEqual(more, []);
  const { id, session_id: session, metadata: { visitor_id: visitor, ...metadata }, ...fields } = event;
  for (const name of [id, session, visitor]) assert.match(name, /^[\w-]{32,36}$/);
  assert.deepEqual(metadata, {});
  assert.deepEqual(fields, {
    event_type: 'page_view',
    timestamp: '2026-11-22T10:00:00.000Z',
    page_url: 'https://shop.example/pricing',
    page_title: 'Pricing',
    referrer: 'https://www.google.com/',
    utm_parameters: {},
    user_agent: 'Test/1.0',
    source: 'tracker',
  });
});

test('what the theme marks a page with is part of its view', async () => {
  browser.open('/', { body: [new Element('main', {
    'data-pmp-page': 'pricing', 'data-pmp-course-id': 'pmp-prep', 'data-pmp-event': 'x', 'data-other': 'x',
  })] });
  await pass(500);
  const { visitor_id: _, ...metadata } = received('page_view')[0].metadata;
  assert.deepEqual(metadata, { page: 'pricing', course_id: 'pmp-prep' });
});

test('addresses come without what is nobody\'s business', async () => {
  browser.open('/order/7?key=wc_order_1&email=ada@example.org&_wpnonce=1&size=xl#reviews', { referrer: 'https://mail.example/?token=1&q=2#frag' });
  await pass(500);
  assert.equal(received('page_view')[0].page_url, 'https://shop.example/order/7?size=xl');
  assert.equal(received('page_view')[0].referrer, 'https://mail.example/?q=2');
});

for (const name of [
  'gclid', 'gbraid', 'wbraid', 'gad_source', 'dclid', 'fbclid', 'ttclid', 'twclid', 'yclid', 'msclkid', 'li_fat_id', 'epik', 'rdt_cid', 'ScCid',
]) {
  test(`an advertisement's click begins a session of its own: ${name}`, async () => {
    browser.open('/');
    await pass(500);
    browser.open(`/courses/pmp?${name}=abc`, { referrer: 'https://ads.example/' });
    await pass(500);
    const [before, clicked] = received('page_view');
    assert.notEqual(clicked.session_id, before.session_id);
    assert.equal(clicked.page_url, `https://shop.example/courses/pmp?${name}=abc`);
  });
}

test('texts are cut to what the mesh takes, never in the middle of a character', async () => {
  browser.open(`/?q=${'x'.repeat(5000)}`, { title: `${'x'.repeat(499)}😀` });
  await pass(500);
  const [event] = received('page_view');
  assert.equal(event.page_title, 'x'.repeat(499));
  assert.equal(event.page_url.length, 4096);
});

test('a single-page theme reports each page once, with the page before as its referrer', async () => {
  const page = browser.open('/', { referrer: 'https://www.google.com/' });
  await pass(500);
  page.history.replaceState({}, '', '/');
  page.history.pushState({}, '', '/pricing');
  page.document.title = 'Pricing';
  await pass(500);
  page.history.pushState({}, '', '/pricing#faq');
  page.history.pushState({}, '', '/pricing');
  await pass(500);
  page.location = new URL('/#/checkout', SHOP);
  page.dispatchEvent(new Event('popstate'));
  await pass(500);
  assert.deepEqual(received('page_view').map((event) => [event.page_url, event.page_title, event.referrer]), [
    ['https://shop.example/', 'Shop', 'https://www.google.com/'],
    ['https://shop.example/pricing', 'Pricing', 'https://shop.example/'],
    ['https://shop.example/#/checkout', 'Pricing', 'https://shop.example/pricing'],
  ]);
  assert.deepEqual(received('page_leave').map((event) => event.page_url), ['https://shop.example/', 'https://shop.example/pricing']);
});

test('a page that comes back from the browser\'s memory is viewed again', async () => {
  const page = browser.open('/');
  await pass(500);
  page.leave();
  page.restore();
  await pass(500);
  assert.equal(new Set(received('page_view').map(({ id }) => id)).size, 2);
});

test('a page rendered ahead counts when it is seen', async () => {
  const page = browser.open('/', { running: false });
  page.document.prerendering = true;
  start(page);
  await pass(500);
  assert.equal(browser.mesh.received.length, 0);
  page.document.dispatchEvent(new Event('prerenderingchange'));
  await pass(500);
  assert.deepEqual(browser.mesh.types(), ['page_view']);
});

test('a script that is loaded twice reports once', async () => {
  const page = browser.open('/');
  start(page);
  await pass(500);
  assert.deepEqual(browser.mesh.types(), ['page_view']);
});

test('a page without settings is left alone', async () => {
  const page = browser.open('/', { running: false });
  page.document.root.children.length = 0;
  start(page);
  assert.equal(page.pmp, undefined);
});

test('clicks on marked elements are reported with their marks', async () => {
  const label = new Element('span');
  const button = new Element('a', { href: 'https://shop.example/cart?token=1', 'data-pmp-event': 'add_to_cart', 'data-pmp-course-id': 'pmp' }, [label]);
  const hero = new Element('button', { 'data-pmp-click': 'hero' });
  const plain = new Element('button');
  const page = browser.open('/', { body: [button, hero, plain] });
  for (const element of [label, hero, plain]) page.fire('click', element);
  await pass(500);
  const [cart] = received('add_to_cart');
  assert.deepEqual([cart.metadata.course_id, cart.metadata.href], ['pmp', 'https://shop.example/cart']);
  assert.equal(received('click')[0].metadata.click, 'hero');
  assert.deepEqual(browser.mesh.types(), ['page_view', 'add_to_cart', 'click']);
});

test('a form is reported without its contents', async () => {
  const form = new Element('form', { id: 'contact', 'data-pmp-form': 'contact-us' }, [new Element('input', { name: 'message', value: 'secret' })]);
  const page = browser.open('/', { body: [form] });
  page.fire('submit', form);
  await pass(500);
  assert.equal(received('form_submit')[0].metadata.form, 'contact-us');
  assert.ok(!JSON.stringify(browser.mesh.requests).includes('secret'));
});

test('a lead form reports the address of its lead', async () => {
  const form = new Element('form', { id: 'lead' }, [new Element('input', { id: 'lead-email', value: ' ada@example.org ' })]);
  const page = browser.open('/', { body: [form] });
  page.fire('submit', form);
  await pass(500);
  const [lead] = received('lead_capture');
  assert.deepEqual([lead.email, lead.metadata.form], ['ada@example.org', 'lead']);
});

test('a form that the shop reports itself is ignored', async () => {
  const form = new Element('form', { 'data-pmp-ignore': '' });
  const page = browser.open('/', { body: [form] });
  page.fire('submit', form);
  await pass(500);
  assert.deepEqual(browser.mesh.types(), ['page_view']);
});

test('leaving reports how long the page was visible and how much of it', async () => {
  const page = browser.open('/');
  await pass(10_000);
  page.scroll(500);
  page.scroll(100);
  page.show('hidden');
  await pass(MINUTE);
  page.show('visible');
  await pass(2000);
  page.scroll(1500);
  page.leave();
  await pass(500);
  const seen = new Map([...received('page_leave')].map((event) => [event.id, event.metadata]));
  assert.deepEqual([...seen.values()].map(({ time_on_page: time, scroll_depth: depth }) => [time, depth]), [[10, 0.5], [2, 1]]);
});

test('a page that is opened in the background is not seen yet', async () => {
  const page = browser.open('/', { running: false });
  page.document.hidden = true;
  start(page);
  await pass(MINUTE);
  page.show('visible');
  await pass(3000);
  page.show('hidden');
  await pass(500);
  assert.equal(received('page_leave')[0].metadata.time_on_page, 3);
});

test('leaving the shop hands the last events to the browser', async () => {
  const page = browser.open('/');
  await pass(1000);
  page.leave();
  await pass(500);
  assert.deepEqual(browser.beacons.map((event) => event.event_type), ['page_leave']);
  assert.deepEqual(browser.mesh.types(), ['page_view', 'page_leave']);
});

test('on the way to another page of the shop, that page sends the remaining events, once', async () => {
  const navigation = new EventTarget();
  const page = browser.open('/', { window: { navigation } });
  await pass(1000);
  navigation.dispatchEvent(Object.assign(new Event('navigate'), { destination: { url: `${SHOP}/pricing`, sameDocument: false } }));
  page.leave();
  await pass(500);
  assert.deepEqual(browser.mesh.types(), ['page_view']);
  browser.open('/pricing', { tab: page.sessionStorage, referrer: `${SHOP}/` });
  await pass(500);
  assert.deepEqual(browser.mesh.types(), ['page_view', 'page_leave', 'page_view']);
  assert.deepEqual(browser.beacons, []);
});

test('what happens on the way to another page waits for it, and is sent after all if the page stays', async () => {
  const navigation = new EventTarget();
  const page = browser.open('/', { window: { navigation } });
  await pass(1000);
  page.pmp.push({ event_type: 'download' });
  navigation.dispatchEvent(Object.assign(new Event('navigate'), { destination: { url: `${SHOP}/guide.pdf`, sameDocument: false } }));
  await pass(4000);
  assert.deepEqual(browser.mesh.types(), ['page_view']);
  await pass(2000);
  assert.deepEqual(browser.mesh.types(), ['page_view', 'download']);
});

test('what could not be sent is sent on the next page', async () => {
  browser.mesh.reply = () => { throw new TypeError('offline'); };
  const page = browser.open('/guide');
  await pass(1000);
  page.leave();
  await pass(0);
  assert.deepEqual(browser.queue().map((event) => event.event_type), ['page_view', 'page_leave']);
  browser.mesh.reply = null;
  await pass(MINUTE);
  browser.open('/');
  await pass(1000);
  assert.deepEqual(browser.mesh.types().sort(), ['page_leave', 'page_view', 'page_view']);
});

test('a session ends after 30 idle minutes', async () => {
  const page = browser.open('/', { body: [new Element('a', { 'data-pmp-click': 'x' })] });
  const click = () => page.fire('click', page.document.querySelector('a'));
  await pass(29 * MINUTE);
  click();
  await pass(29 * MINUTE);
  click();
  await pass(31 * MINUTE);
  click();
  await pass(500);
  const sessions = browser.mesh.received.map((event) => event.session_id);
  assert.deepEqual(sessions.map((id) => id === sessions[0]), [true, true, true, false]);
  assert.equal(new Set(browser.mesh.received.map((event) => event.metadata.visitor_id)).size, 1);
});

test('tabs share visitor and session, and browsers share nothing', async () => {
  browser.open('/');
  await pass(500);
  browser.open('/pricing');
  const other = new Browser();
  other.open('/');
  await pass(500);
  const [first, second] = browser.mesh.received;
  const [stranger] = other.mesh.received;
  assert.equal(first.session_id, second.session_id);
  assert.notEqual(first.session_id, stranger.session_id);
  assert.notEqual(first.metadata.visitor_id, stranger.metadata.visitor_id);
});

test('the campaign of the landing goes with the whole session', async () => {
  const page = browser.open(AD, { referrer: 'https://mail.example/' });
  await pass(500);
  browser.open('/pricing', { tab: page.sessionStorage, referrer: SHOP + AD });
  await pass(500);
  for (const event of received('page_view')) assert.deepEqual(event.utm_parameters, { source: 'newsletter', medium: 'email', campaign: 'spring' });
  assert.equal(new Set(received('page_view').map((event) => event.session_id)).size, 1);
});

test('a new campaign begins a new session, the same one does not', async () => {
  browser.open(AD);
  await pass(500);
  browser.open(AD);
  await pass(500);
  browser.open('/?utm_source=google&utm_campaign=brand');
  await pass(500);
  const [first, again, other] = browser.mesh.received;
  assert.equal(first.session_id, again.session_id);
  assert.notEqual(first.session_id, other.session_id);
  assert.deepEqual(other.utm_parameters, { source: 'google', campaign: 'brand' });
});

test('the shop\'s server finds the session in a cookie', async () => {
  browser.open('/');
  await pass(500);
  assert.equal(browser.cookies.get('pmp_session'), browser.mesh.received[0].session_id);
});

test('what a theme pushed before and after the script loaded is reported', async () => {
  const page = browser.open('/', { window: { pmp: [{ event_type: 'view_item', metadata: { course_id: 'pmp' } }] } });
  page.pmp.push({ event_type: 'start trial!', email: 'ada@example.org' });
  await pass(500);
  assert.deepEqual(browser.mesh.types(), ['page_view', 'view_item', 'start_trial_']);
  assert.equal(received('view_item')[0].metadata.course_id, 'pmp');
  assert.equal(received('start_trial_')[0].email, 'ada@example.org');
});

test('excluded event types are not reported', async () => {
  const page = browser.open('/', { settings: { ...SETTINGS, without: ['page_leave'] } });
  await pass(500);
  page.show('hidden');
  await pass(500);
  assert.deepEqual(browser.mesh.types(), ['page_view']);
});

test('a tab without session storage still reports', async () => {
  const page = browser.open('/', { running: false, tab: Object.assign(new Area(), { full: true }) });
  start(page);
  await pass(500);
  assert.deepEqual(browser.mesh.types(), ['page_view']);
});

const landing = () => JSON.parse(decodeURIComponent(browser.cookies.get('pmp_landing') ?? 'null'));

test('the source of the session is in a cookie, where the shop\'s server finds it for an order', async () => {
  browser.open('/pricing?utm_source=newsletter&utm_campaign=fr%C3%BChling&ref=PARTNER-7', { referrer: 'https://blog.example/pmp' });
  await pass(500);
  assert.deepEqual(landing(), { source: 'newsletter', campaign: 'frühling', referrer: 'https://blog.example/pmp', ref: 'PARTNER-7' });
  assert.deepEqual(received('page_view')[0].utm_parameters, { source: 'newsletter', campaign: 'frühling' });
});

test('a partner\'s code outlives the session by a month, and the next partner takes its place', async () => {
  browser.open('/?ref=first').leave();
  await pass(40 * MINUTE);
  browser.open('/', { referrer: 'https://www.google.com/' }).leave();
  assert.deepEqual(landing(), { referrer: 'https://www.google.com/', ref: 'first' });
  browser.open('/?ref=second').leave();
  assert.equal(landing().ref, 'second');
  mock.timers.setTime(Date.now() + 31 * 24 * 60 * MINUTE);
  browser.open('/').leave();
  assert.equal(landing().ref, undefined);
});

test('marks on the shop\'s own links are nobody\'s campaign', async () => {
  browser.open('/?ref=partner');
  await pass(500);
  browser.open('/pricing?ref=menu&utm_source=menu', { referrer: `${SHOP}/?ref=partner` });
  await pass(500);
  assert.equal(landing().ref, 'partner');
  assert.equal(new Set(browser.mesh.received.map((event) => event.session_id)).size, 1);
});

test('the shop is asked to send on what is overdue, when it says so', async () => {
  const settings = { ...SETTINGS, drain: '/wp-json/pmp/v1/drain' };
  const drains = () => browser.mesh.requests.filter(({ url }) => url === settings.drain);
  const page = browser.open('/', { settings });
  await pass(500);
  assert.deepEqual(drains(), []);
  browser.mesh.reply = (events) => Response.json({ success: true, overdue: true, results: verdicts(events) }, { status: 202 });
  page.pmp.push({ event_type: 'view_item' });
  await pass(500);
  const [drain, ...more] = drains();
  assert.deepEqual([drain.method, drain.keepalive, drain.body, more], ['POST', true, undefined, []]);
});
