-- Forms write a space as `+`, and so the transcoder reads it. But many write a time with its zone as it is: there a `+`
-- is one.

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
