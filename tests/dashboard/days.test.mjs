import assert from 'node:assert/strict';
import { test } from 'node:test';
import { moments } from '../../dashboard/src/lib/days.ts';

const CASES = {
  'Europe/Berlin': [
    ['2026-07-01', '2026-07-01', '2026-07-01T00:00:00+02:00', '2026-07-02T00:00:00+02:00'],
    ['2026-03-29', '2026-03-29', '2026-03-29T00:00:00+01:00', '2026-03-30T00:00:00+02:00'],
    ['2026-10-25', '2026-10-25', '2026-10-25T00:00:00+02:00', '2026-10-26T00:00:00+01:00'],
  ],
  'Asia/Kathmandu': [['2026-01-31', '2026-02-28', '2026-01-31T00:00:00+05:45', '2026-03-01T00:00:00+05:45']],
  'America/Los_Angeles': [['2026-11-01', '2026-11-01', '2026-11-01T00:00:00-07:00', '2026-11-02T00:00:00-08:00']],
  'Pacific/Auckland': [['2026-04-05', '2026-04-05', '2026-04-05T00:00:00+13:00', '2026-04-06T00:00:00+12:00']],
  UTC: [['2026-12-31', '2026-12-31', '2026-12-31T00:00:00+00:00', '2027-01-01T00:00:00+00:00']],
};

for (const [zone, cases] of Object.entries(CASES)) {
  test(`days of ${zone} begin at midnight there, also when its clocks change`, () => {
    for (const [from, to, begins, ends] of cases) assert.deepEqual(moments({ from, to }, zone), { from: begins, to: ends });
  });
}

test('what is no day is left to the mesh to refuse', () => {
  assert.deepEqual(moments({ from: 'soon', to: '2026-01-01' }, 'UTC'), { from: 'soon', to: '2026-01-01' });
});
