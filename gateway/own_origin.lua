-- A session of the dashboard opens streams for the dashboard's own page. A browser states the origin of every WebSocket, also where it
-- states no `sec-fetch-site`; it states none for server-sent events that a page reads from its own origin.

local OWN = {["same-origin"] = true, none = true, [""] = true}

function envoy_on_request(handle)
  local headers = handle:headers()
  local own = (headers:get("x-forwarded-proto") or "") .. "://" .. (headers:get(":authority") or "")
  if (headers:get("origin") or own) ~= own or not OWN[headers:get("sec-fetch-site") or ""] then
    handle:respond({[":status"] = "403"}, "")
  end
end
