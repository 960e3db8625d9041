// Sends events at a constant rate, whether or not the answers keep up: the latency a visitor would see.
import http from "k6/http";
import exec from "k6/execution";

const event = __ENV.BENCH_EVENT.split("%s");
const headers = {
  "content-type": "application/json",
  "x-api-key": __ENV.BENCH_API_KEY,
  authorization: `Bearer ${__ENV.BENCH_TOKEN}`,
};

export const options = {
  scenarios: {
    steady: {
      executor: "constant-arrival-rate",
      rate: Number(__ENV.BENCH_RATE),
      timeUnit: "1s",
      duration: `${__ENV.BENCH_SECONDS}s`,
      preAllocatedVUs: 200,
    },
  },
  discardResponseBodies: true,
  summaryTrendStats: ["p(50)", "p(99)", "max"],
  systemTags: ["status"],
};

export default function () {
  const number = exec.scenario.iterationInTest;
  const fills = [`${__ENV.BENCH_RUN}${number}`, number % 5000, number % 20000, number % 300];
  const body = event.map((piece, index) => piece + (fills[index] ?? "")).join("");
  http.post(`${__ENV.BENCH_URL}/api/v1/events/track`, body, { headers });
}

export function handleSummary({ metrics }) {
  const duration = metrics.http_req_duration.values;
  const result = {
    requests: metrics.http_reqs.values.count,
    failed: Math.round(metrics.http_req_failed.values.rate * metrics.http_reqs.values.count),
    not_sent: metrics.dropped_iterations ? metrics.dropped_iterations.values.count : 0,
    p50_ms: duration["p(50)"],
    p99_ms: duration["p(99)"],
    max_ms: duration.max,
  };
  return { stdout: `\n${JSON.stringify(result)}\n` };
}
