import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { AnalyticsAPIClient, Browser, ROUTE, View, after, clock, pass, unwind, verdicts } from './browser.mjs';

const EVENT = { event_type: 'page_view', page_url: 'https://shop.example/pricing' };
const GATEWAY = { endpoint: 'https://mesh.example/api', apiKey: 'browser-key', tokenUrl: '/wp-json/pmp/v1/pass' };

let browser;
beforeEach(() => {
  clock();
  browser = new Browser();
});
afterEach(unwind);

const client = (settings = { route: ROUTE }, page = browser.open('/', { running: false })) => new AnalyticsAPIClient(settings, page);
const status = (code, headers = {}) => () => new Response(JSON.stringify({ code: 14, message: 'the mesh is down', details: [] }), { status: code, headers });

test('an event is sent with an id and a time', async () => {
  const answer = await after(client().trackEvent(EVENT));
  const [event] = browser.mesh.received;
  assert.deepEqual(answer, { success: true, event_id: event.id });
  assert.match(event.id, /^[\w-]{32,36}$/);
  assert.equal(event.timestamp, '2026-11-22T10:00:00.000Z');
  assert.deepEqual(browser.stored(), []);
});

test('an id and a time that are given stay as they are', async () => {
  const answer = await after(client().trackEvent({ ...EVENT, id: 'mine-1', timestamp: '2026-11-01T00:00:00Z' }));
  assert.equal(answer.event_id, 'mine-1');
  assert.equal(browser.mesh.received[0].timestamp, '2026-11-01T00:00:00Z');
});

test('ids are made without randomUUID as well', async () => {
  const { randomUUID } = crypto;
  crypto.randomUUID = undefined;
  try {
    const { event_id: id } = await after(client().trackEvent(EVENT));
    assert.match(id, /^(\w+-){3}\w+$/);
  } finally { crypto.randomUUID = randomUUID; }
});

test('an event that could not be sent is rejected and stays in the queue', async () => {
  const broken = client();
  broken.makeRequest = async () => { throw new Error('Network error'); };
  await assert.rejects(after(broken.trackEvent({ event_type: 'test_event' })), /Network error/);
  assert.equal(broken.getQueuedEvents().length, 1);
  assert.equal(broken.getQueuedEvents()[0].event_type, 'test_event');
});

test('an event that the mesh refuses is rejected and leaves the queue', async () => {
  browser.mesh.reply = (events) => Response.json({ success: false, accepted: 0, rejected: 1, results: verdicts(events, () => true) });
  const honest = client();
  await assert.rejects(after(honest.trackEvent(EVENT)), /refused: .*too old/);
  assert.deepEqual(honest.getQueuedEvents(), []);
});

test('the first-party route takes plain text without credentials of the mesh', async () => {
  await after(client().trackEvent(EVENT));
  const [{ url, method, keepalive, headers, credentials }] = browser.mesh.requests;
  assert.deepEqual({ url, method, keepalive, headers, credentials }, {
    url: ROUTE, method: 'POST', keepalive: true, headers: { 'content-type': 'text/plain' }, credentials: undefined,
  });
});

test('the gateway gets the browser key and a token that is fetched once for the session', async () => {
  const direct = client(GATEWAY);
  await after(direct.trackEvent(EVENT));
  await after(direct.trackEvent(EVENT));
  const [pass_, first, second] = browser.mesh.requests;
  assert.equal(browser.mesh.requests.length, 3);
  assert.deepEqual([pass_.url, pass_.method], [GATEWAY.tokenUrl, 'POST']);
  assert.equal(first.url, 'https://mesh.example/api/v1/events/batch');
  assert.deepEqual(first.headers, { 'content-type': 'application/json', 'x-api-key': 'browser-key', authorization: 'Bearer token-1' });
  assert.equal(second.headers.authorization, 'Bearer token-1');
  assert.ok(!browser.stored().join().includes('token'), 'a token must not outlive the session');
});

test('a token that has run out, or that the gateway refuses, is fetched anew', async () => {
  const direct = client(GATEWAY);
  await after(direct.trackEvent(EVENT));
  await pass(600_000);
  browser.mesh.reply = status(401);
  await assert.rejects(after(direct.trackEvent(EVENT)), /the mesh is down/);
  browser.mesh.reply = null;
  await pass(1000);
  const tokens = browser.mesh.requests.map(({ headers }) => headers?.authorization).filter(Boolean);
  assert.equal(new Set(tokens).size, 3);
  assert.equal(browser.mesh.received.length, 2);
});

test('it is tried again after 1, 2, 4 ... 30 seconds until the mesh is back', async () => {
  const times = [];
  browser.mesh.reply = () => {
    times.push(Date.now());
    throw new TypeError('Failed to fetch');
  };
  const patient = client();
  await assert.rejects(after(patient.trackEvent(EVENT)), TypeError);
  await pass(125_000);
  const gaps = times.slice(1).map((time, at) => Math.round((time - times[at]) / 1000));
  assert.deepEqual(gaps, [1, 2, 4, 8, 16, 30, 30, 30]);
  browser.mesh.reply = null;
  await pass(30_000);
  assert.equal(browser.mesh.received.length, 1);
  assert.deepEqual(browser.stored(), []);
});

test('a 429 is obeyed for as long as it says, by other tabs and later pages as well', async () => {
  browser.mesh.reply = status(429, { 'retry-after': '60' });
  await assert.rejects(after(client().trackEvent(EVENT)), /the mesh is down/);
  browser.mesh.reply = null;
  const [page] = browser.tabs;
  page.dispatchEvent(new Event('online'));
  const other = client();
  await assert.rejects(after(other.trackEvent(EVENT)), /queued/);
  await pass(59_000);
  assert.equal(browser.mesh.requests.length, 1);
  await pass(2000);
  assert.equal(browser.mesh.received.length, 2);
});

test('a retry-after may be a date', async () => {
  browser.mesh.reply = status(503, { 'retry-after': 'Sun, 22 Nov 2026 10:02:00 GMT' });
  const patient = client();
  await assert.rejects(after(patient.trackEvent(EVENT)));
  browser.mesh.reply = null;
  await pass(119_000);
  assert.equal(browser.mesh.received.length, 0);
  await pass(2000);
  assert.equal(browser.mesh.received.length, 1);
});

test('a network that is back is used at once', async () => {
  browser.mesh.reply = () => { throw new TypeError('offline'); };
  const patient = client();
  await assert.rejects(after(patient.trackEvent(EVENT)));
  await pass(10_000);
  browser.mesh.reply = null;
  browser.tabs[0].dispatchEvent(new Event('online'));
  await pass(0);
  assert.equal(browser.mesh.received.length, 1);
});

test('a request that hangs is given up', async () => {
  browser.mesh.reply = (_, { signal }) => new Promise((_resolve, reject) => { signal.addEventListener('abort', () => reject(signal.reason)); });
  const sent = client().trackEvent(EVENT);
  const outcome = assert.rejects(sent, { name: 'TimeoutError' });
  await pass(10_050);
  await outcome;
  assert.equal(browser.queue().length, 1);
});

test('verdicts of a batch drop the refused events and take the others out of the queue', async () => {
  browser.mesh.reply = (events) => {
    const results = verdicts(events, (event) => event.event_type === 'bad');
    browser.mesh.received.push(...events.filter((_, at) => results[at].success));
    return Response.json({ success: false, accepted: 2, rejected: 1, results }, { status: 400 });
  };
  const mixed = client();
  for (const event_type of ['good', 'bad', 'good']) mixed.enqueue({ event_type });
  await after(mixed.flush());
  assert.deepEqual(browser.mesh.types(), ['good', 'good']);
  assert.deepEqual(browser.stored(), []);
  assert.equal(browser.mesh.requests.length, 1);
});

test('a batch that is refused as a whole is halved until the bad event stands alone', async () => {
  browser.mesh.reply = (events) => (events.some((event) => event.event_type === 'bad') ? status(400)() : null);
  const mixed = client();
  for (let at = 0; at < 9; at += 1) mixed.enqueue({ event_type: at === 5 ? 'bad' : 'good', metadata: { at } });
  await after(mixed.flush());
  assert.deepEqual(browser.mesh.received.map((event) => event.metadata.at).sort(), [0, 1, 2, 3, 4, 6, 7, 8]);
  assert.deepEqual(browser.stored(), []);
});

for (const [name, reply] of [
  ['a page of a captive portal', () => new Response('<html>Please log in</html>')],
  ['an answer with a missing verdict', () => Response.json({ success: true, results: [] })],
  ['an answer that says no', () => Response.json({ success: false })],
]) {
  test(`${name} is no verdict`, async () => {
    browser.mesh.reply = reply;
    await assert.rejects(after(client().trackEvent(EVENT)));
    assert.equal(browser.queue().length, 1);
  });
}

test('a batch stays below what browsers let outlive a page', async () => {
  const big = client();
  for (let at = 0; at < 10; at += 1) big.enqueue({ event_type: 'big', metadata: { text: 'ü'.repeat(10_000) } });
  await after(big.flush());
  assert.equal(browser.mesh.received.length, 10);
  for (const { body } of browser.mesh.requests) assert.ok(Buffer.byteLength(body) < 65_536);
});

test('an event that is larger than the mesh takes is refused at once', () => {
  assert.throws(() => client().enqueue({ event_type: 'huge', metadata: { text: 'x'.repeat(40_000) } }), RangeError);
});

test('the queue is bounded, and the oldest events make room', async () => {
  const warned = mock.method(console, 'warn', () => {});
  const full = client();
  for (let at = 0; at < 510; at += 1) full.enqueue({ event_type: 'view', metadata: { at } });
  const queued = full.getQueuedEvents();
  assert.equal(queued.length, 500);
  assert.deepEqual([queued[0].metadata.at, queued.at(-1).metadata.at], [10, 509]);
  assert.equal(warned.mock.callCount(), 10);
  assert.match(warned.mock.calls[0].arguments[0], /queue full/);
});

test('a browser that stores nothing keeps the queue as long as the page lives', async () => {
  browser.localStorage.full = true;
  browser.mesh.reply = status(503);
  const poor = client();
  await assert.rejects(after(poor.trackEvent(EVENT)));
  assert.equal(poor.getQueuedEvents().length, 1);
  browser.mesh.reply = null;
  await pass(1000);
  assert.equal(browser.mesh.received.length, 1);

  browser.localStorage.full = false;
  const page = browser.open('/', { running: false });
  Object.defineProperty(page, 'localStorage', { get() { throw new DOMException('denied', 'SecurityError'); } });
  assert.equal((await after(client({ route: ROUTE }, page).trackEvent(EVENT))).success, true);
});

test('what could be kept in memory only does not hide what is stored later', async () => {
  const page = browser.open('/', { settings: { route: ROUTE, consent: 'assumed' } });
  browser.localStorage.full = true;
  page.pmp.push({ event_type: 'full' });
  await pass(60_000);
  browser.localStorage.full = false;
  page.pmp.push({ event_type: 'empty' });
  await pass(29 * 60_000);
  page.pmp.push({ event_type: 'later' });
  await pass(29 * 60_000);
  page.pmp.push({ event_type: 'last' });
  await pass(1000);
  assert.equal(new Set(browser.mesh.received.map((event) => event.session_id)).size, 1);
});

test('what is broken in the storage is passed over', async () => {
  browser.localStorage.setItem('pmp.q.0.broken', '{"event_type":');
  await after(client().trackEvent(EVENT));
  assert.equal(browser.mesh.received.length, 1);
});

/** A tab that sees what the others store after a while only, as browsers have it. */
const lateClient = (views, lag = 100) => client({ route: ROUTE }, Object.assign(browser.open('/', { running: false }), { localStorage: new View(views, lag) }));

test('several tabs lose nothing and send nothing twice, however late they see each other\'s storage', async () => {
  browser.mesh.reply = () => new Promise((resolve) => { setTimeout(resolve, 120); });
  const views = [];
  const tabs = [lateClient(views), lateClient(views), lateClient(views)];
  const sent = [];
  for (let round = 0; round < 5; round += 1) {
    for (const tab of tabs) sent.push(tab.trackEvent({ event_type: `round-${round}` }));
    await pass(70);
  }
  await pass(1000);
  const answers = await Promise.all(sent);
  assert.equal(answers.length, 15);
  assert.equal(browser.mesh.received.length, 15);
  assert.equal(new Set(browser.mesh.received.map(({ id }) => id)).size, 15);
  for (const view of views) assert.equal(view.length, 0);
});

test('the events of a closed tab are adopted after a minute, by one of the pages that begin then', async () => {
  const views = [];
  lateClient(views).enqueue(EVENT);
  await pass(59_000);
  await after(lateClient(views).trackEvent({ event_type: 'early' }));
  assert.deepEqual(browser.mesh.types(), ['early']);
  await pass(2000);
  for (let page = 0; page < 3; page += 1) {
    lateClient(views).trackEvent({ event_type: 'late' });
    await pass(50);
  }
  await pass(1000);
  assert.deepEqual(browser.mesh.types().sort(), ['early', 'late', 'late', 'late', 'page_view']);
  for (const view of views) assert.equal(view.length, 0);
});

test('the queue goes from page to page of a tab, and not to a copy of the tab', async () => {
  browser.mesh.reply = status(503);
  const first = browser.open('/', { running: false });
  const tab = first.sessionStorage;
  const before = client({ route: ROUTE }, first);
  before.enqueue({ event_type: 'first' });
  before.unload(true);
  await pass(100);
  const second = client({ route: ROUTE }, browser.open('/', { running: false, tab }));
  second.enqueue({ event_type: 'second' });
  const copy = client({ route: ROUTE }, browser.open('/', { running: false, tab: tab.copy() }));
  copy.enqueue({ event_type: 'copy' });
  browser.mesh.reply = null;
  await after(second.flush());
  assert.deepEqual(browser.mesh.types(), ['first', 'second']);
  assert.deepEqual(browser.beacons, []);
  await after(copy.flush());
  assert.deepEqual(browser.mesh.types(), ['first', 'second', 'copy']);
});

test('the queue goes from page to page of a tab, and not to a copy of the tab', async () => {
  browser.mesh.reply = status(503);
  const first = browser.open('/', { running: false });
  const before = client({ route: ROUTE }, first);
  before.enqueue({ event_type: 'first' });
  const copy = client({ route: ROUTE }, browser.open('/', { running: false, tab: first.sessionStorage.copy() }));
  copy.enqueue({ event_type: 'copy' });
  before.unload(true);
  await pass(100);
  const second = client({ route: ROUTE }, browser.open('/', { running: false, tab: first.sessionStorage }));
  second.enqueue({ event_type: 'second' });
  browser.mesh.reply = null;
  await after(second.flush());
  assert.deepEqual(browser.mesh.types(), ['first', 'second']);
  assert.deepEqual(browser.beacons, []);
  await after(copy.flush());
  assert.deepEqual(browser.mesh.types(), ['first', 'second', 'copy']);
});

test('a page that goes away hands over what it queued, and the next one repeats it until it has an answer', async () => {
  const page = browser.open('/', { running: false });
  const leaving = client({ route: ROUTE }, page);
  const id = leaving.enqueue(EVENT);
  leaving.unload();
  await pass(100);
  assert.deepEqual(browser.beacons.map((event) => event.id), [id]);
  assert.equal(browser.queue().length, 1);
  await after(client({ route: ROUTE }, browser.open('/', { running: false, tab: page.sessionStorage })).trackEvent({ event_type: 'next' }));
  assert.deepEqual(browser.mesh.received.map((event) => event.id).slice(0, 2), [id, id]);
  assert.deepEqual(browser.stored(), []);
});

test('a page that goes away leaves what is on its way, what is of other tabs, and a mesh that asked to wait', async () => {
  const answers = [];
  browser.mesh.reply = () => new Promise((resolve) => { answers.push(resolve); });
  const [flying, other] = [client(), client()];
  flying.enqueue(EVENT);
  flying.flush();
  await pass(0);
  flying.unload();
  other.unload();
  assert.deepEqual(browser.beacons, []);
  answers[0](status(429, { 'retry-after': '60' })());
  await pass(0);
  flying.unload();
  assert.deepEqual(browser.beacons, []);
});

test('the gateway is called by a request that outlives the page', async () => {
  const direct = client(GATEWAY);
  await after(direct.trackEvent(EVENT));
  direct.enqueue(EVENT);
  direct.unload();
  const { url, keepalive, headers } = browser.mesh.requests.at(-1);
  assert.deepEqual([url, keepalive, headers.authorization], ['https://mesh.example/api/v1/events/batch', true, 'Bearer token-1']);
});

test('nothing is stored by an answer that comes after a purge', async () => {
  let answer;
  browser.mesh.reply = () => new Promise((resolve) => { answer = resolve; });
  const gone = client();
  const sent = assert.rejects(gone.trackEvent(EVENT), /purged/);
  await pass(0);
  gone.purge();
  answer(status(503)());
  await pass(60_000);
  await sent;
  assert.deepEqual(browser.stored(), []);
  assert.equal(browser.mesh.requests.length, 1);
});

