-- Pages can't set headers of a WebSocket, and an address is kept in logs: a client may send its API key and its token in the list
-- of sub-protocols, as `pmp.key.KEY` and `pmp.bearer.TOKEN`. They become the headers, unless these are set, and no service sees them.

local NAME = "sec-websocket-protocol"

function envoy_on_request(handle)
  local headers = handle:headers()
  local others = {}
  for index = 0, headers:getNumValues(NAME) - 1 do
    for protocol in headers:getAtIndex(NAME, index):gmatch("[^,%s]+") do
      local key, token = protocol:match("^pmp%.key%.(.+)$"), protocol:match("^pmp%.bearer%.(.+)$")
      if key and not headers:get("x-api-key") then
        headers:add("x-api-key", key)
      elseif token and not headers:get("authorization") then
        headers:add("authorization", "Bearer " .. token)
      end
      if not (key or token) then
        others[#others + 1] = protocol
      end
    end
  end
  headers:remove(NAME)
  if #others > 0 then
    headers:add(NAME, table.concat(others, ", "))
  end
end
