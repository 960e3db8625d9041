// Sends page views as one of the brief's scenarios: `api_load` at a constant rate, whether or not the answers keep up, or
// `website_traffic`, a growing and shrinking number of visitors who each view a page a second.
import http from "k6/http";
import exec from "k6/execution";
import { check, sleep } from "k6";

const event = __ENV.BENCH_EVENT.split("%s");
const headers = {
  "content-type": "application/json",
  "x-api-key": __ENV.BENCH_API_KEY,
  authorization: `Bearer ${__ENV.BENCH_TOKEN}`,
};
const arrivals = {
  executor: "constant-arrival-rate",
  rate: Number(__ENV.BENCH_RATE),
  timeUnit: "1s",
  duration: `${__ENV.BENCH_SECONDS}s`,
  preAllocatedVUs: 50,
  maxVUs: 200,
};
const visitors = {
  executor: "ramping-vus",
  startVUs: 0,
  stages: [[2, 100], [5, 100], [2, 200], [5, 200], [2, 0]].map(([minutes, target]) => ({
    duration: `${Math.max(1, Math.round((Number(__ENV.BENCH_SECONDS) * minutes) / 16))}s`,
    target,
  })),
  gracefulRampDown: "30s",
};

export const options = {
  scenarios: { load: Number(__ENV.BENCH_RATE) ? arrivals : visitors },
  discardResponseBodies: true,
  summaryTrendStats: ["p(50)", "p(95)", "p(99)", "max"],
  systemTags: ["status"],
};

export default function () {
  const number = exec.scenario.iterationInTest;
  const fills = [`${__ENV.BENCH_RUN}${number}`, number % 5000, number % 20000, number % 300];
  const body = event.map((piece, index) => piece + (fills[index] ?? "")).join("");
  const answer = http.post(`${__ENV.BENCH_URL}/api/v1/events/track`, body, { headers });
  check(answer, { accepted: ({ status }) => status === 200 });
  if (!Number(__ENV.BENCH_RATE)) sleep(1);
}

export function handleSummary({ metrics }) {
  const duration = metrics.http_req_duration.values;
  const result = {
    requests: metrics.http_reqs.values.count,
    failed: metrics.checks.values.fails,
    not_sent: metrics.dropped_iterations ? metrics.dropped_iterations.values.count : 0,
    p50_ms: duration["p(50)"],
    p95_ms: duration["p(95)"],
    p99_ms: duration["p(99)"],
    max_ms: duration.max,
  };
  return { stdout: `\n${JSON.stringify(result)}\n` };
}
