-- Generates the requests of wrk with distinct ids: BENCH_EVENT is the JSON of an event with `%s` for its id, user, session
-- and course, BENCH_BATCH the number of events per request, BENCH_RUN the prefix of the ids.
local event = os.getenv("BENCH_EVENT")
local batch = tonumber(os.getenv("BENCH_BATCH"))
local run = os.getenv("BENCH_RUN")
local single = batch == 1
local path = single and "/api/v1/events/track" or "/api/v1/events/batch"
local headers = {
  ["content-type"] = "application/json",
  ["x-api-key"] = os.getenv("BENCH_API_KEY"),
  ["authorization"] = "Bearer " .. os.getenv("BENCH_TOKEN"),
}
local made = 0

local function next_event()
  made = made + 1
  return event:format(run .. made, made % 5000, made % 20000, made % 300)
end

function request()
  if single then return wrk.format("POST", path, headers, next_event()) end
  local events = {}
  for index = 1, batch do events[index] = next_event() end
  return wrk.format("POST", path, headers, '{"events":[' .. table.concat(events, ",") .. "]}")
end

-- Durations and latencies are in microseconds.
function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(('\n{"requests": %d, "duration_us": %d, "failed": %d, "p50_us": %d, "p99_us": %d}\n'):format(
    summary.requests, summary.duration, failed, latency:percentile(50), latency:percentile(99)))
end
