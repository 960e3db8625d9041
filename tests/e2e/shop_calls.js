// The calls of a shop and of those who read its figures, at a steady rate, whether or not those before are answered: of ten calls
// six report an event, two something else, and two read. Prints a line of JSON for each answer.
import http from "k6/http";
import exec from "k6/execution";

const [persons, most] = [Number(__ENV.PERSONS), Number(__ENV.MOST)];
const callers = { SITE: JSON.parse(__ENV.SITE_HEADERS), READ: JSON.parse(__ENV.READ_HEADERS) };

export const options = {
  scenarios: {
    shop: {
      executor: "constant-arrival-rate",
      rate: Number(__ENV.RATE),
      timeUnit: "1s",
      duration: "1h",
      preAllocatedVUs: most,
      maxVUs: most,
    },
  },
  summaryTrendStats: ["p(50)", "p(99)", "max"],
};

/** A call that reports something of a name. */
function report(kind, name, path, body) {
  return { kind, name, path, scope: "SITE", body: { ...body, timestamp: new Date().toISOString() } };
}

/** A call that reads. */
function read(path, scope) {
  return { kind: "read", name: "", path, scope };
}

function call(number) {
  const [ten, turn] = [Math.floor(number / 10), number % 10];
  const id = String(1 + (ten % persons));
  const session = { user_id: id, session_id: `s${id}` };
  if (turn === 3) {
    const order = { id: `o${ten}-paid`, order_id: `o${ten}`, amount: Number(__ENV.AMOUNT), currency: "USD", payment_status: "completed" };
    return report("order", order.order_id, "purchases/track", { ...order, ...session });
  }
  if (turn === 8 && ten % 2) {
    return report("person", id, "users/register", { wordpress_id: String(1000 + ten), email: `user${1000 + ten}@example.org` });
  }
  if (turn === 8) {
    const touchpoint = { id: `t${ten}`, user_id: id, stage: "interest", action: "download", touchpoint: "lead_magnet" };
    return report("touchpoint", touchpoint.id, "journey/touchpoint", touchpoint);
  }
  if (turn === 4 || turn === 9) {
    return [
      read(`users/${id}/journey`, "SITE"),
      read("analytics/dashboard", "READ"),
      read("purchases/first", "SITE"),
      read(`users/${id}/consent`, "SITE"),
      read(`users/${id}`, "SITE"),
      read("destinations", "READ"),
    ][(2 * ten + Number(turn === 9)) % 6];
  }
  const event = { id: `e${number}`, event_type: "page_view", page_url: "https://shop.example/courses/pmp" };
  return report("event", event.id, "events/track", { ...event, ...session });
}

export default function () {
  const { kind, name, path, scope, body } = call(exec.scenario.iterationInTest);
  const headers = { "content-type": "application/json", ...callers[scope] };
  const url = `${__ENV.URL}/api/v1/${path}`;
  const { status, error, body: text } = body ? http.post(url, JSON.stringify(body), { headers }) : http.get(url, { headers });
  // The test ends while calls are under way.
  if (!status && error.includes("context canceled")) return;
  console.log(JSON.stringify({ kind, name, failure: status === 200 ? "" : `${path}: ${error} ${text}` }));
}

export function handleSummary({ metrics }) {
  const duration = metrics.http_req_duration.values;
  const dropped = metrics.dropped_iterations ? metrics.dropped_iterations.values.count : 0;
  return { stdout: JSON.stringify({ dropped, p50: duration["p(50)"], p99: duration["p(99)"], max: duration.max }) };
}
