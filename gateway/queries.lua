-- Forms encode a space as `+`, which the transcoder decodes. But many clients don't encode the zone of a time: there a `+` is
-- a plus sign.

function envoy_on_request(handle)
  local headers = handle:headers()
  local path = headers:get(":path")
  if not path:find("+", 1, true) then
    return
  end
  path = path:gsub("([tT]%d%d:%d%d[%d:%.]*)%+(%d%d)", "%1%%2B%2")
  path = path:gsub("([tT]%d%d%%3[aA]%d%d[%d%.%%aA]*)%+(%d%d)", "%1%%2B%2")
  headers:replace(":path", path)
end
