-- The transcoder repeats what it can't read, and that may be a person's. A caller is told the field, by its path in the
-- contract, and what belongs there; of bytes that are no JSON, the rule that they break.

local NUMBER, WHOLE = "a number", "a whole number"
local EXPECTED = {
  TYPE_STRING = "a string", StringValue = "a string",
  TYPE_BYTES = "bytes in base64", BytesValue = "bytes in base64",
  TYPE_BOOL = "true or false", BoolValue = "true or false",
  TYPE_DOUBLE = NUMBER, TYPE_FLOAT = NUMBER, DoubleValue = NUMBER, FloatValue = NUMBER,
  TYPE_INT32 = WHOLE, TYPE_INT64 = WHOLE, TYPE_UINT32 = WHOLE, TYPE_UINT64 = WHOLE,
  Int32Value = WHOLE, Int64Value = WHOLE, UInt32Value = WHOLE, UInt64Value = WHOLE,
  TYPE_ENUM = "one of the names that the contract lists",
  Timestamp = "a time of RFC 3339 with its zone, such as 2026-11-22T10:00:00Z",
  Duration = "a duration in seconds, such as 1.5s",
}

-- The rule that a field breaks. Types are the last word of a complaint, whatever the value before it holds.
local function rule(path, complaint)
  if complaint:find("cannot start list", 1, true) then
    return path, "a list does not belong here"
  end
  if complaint:find("^Repeated map key") then
    return path, "a key is there twice"
  end
  local scalar = complaint:match("^invalid value Starting an object on a scalar field for type ([%w_]+)$")
  if scalar then
    return path == "" and scalar or path .. "." .. scalar, "an object does not belong here"
  end
  local kind = complaint:match("^invalid value .* for type ([%w_%./]+)$")
  if kind then
    return path, "expected " .. (EXPECTED[kind:match("[%w_]+$")] or "an object")
  end
  return path, "what is there does not belong here"
end

-- What is told of the transcoder's message, which is escaped as in JSON.
local function told(message)
  local name = message:match('^Could not find field \\"(.-)\\"')
  if name then
    return name:find("^[%a_][%w_%.]*$") and "there is no parameter " .. name or "there is no such parameter"
  end
  local path, complaint = message:match("^([%w_%.%[%]]*)[^:%s]*: (.*)$")
  if path then
    local field, broken = rule(path:gsub("%[$", ""), complaint)
    return field == "" and "the body: " .. broken or field .. ": " .. broken
  end
  return message:match("^%u[%a ,:%[%]{}/%-8%.]*%.") or "the body is not JSON"
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get("x-pmp-refusal") == nil then
    return
  end
  headers:remove("x-pmp-refusal")
  local body = handle:body(true)
  local message = body:getBytes(0, body:length()):match('"message":"(.*)"}') or ""
  local size = body:setBytes('{"code":3,"message":"' .. told(message) .. '","details":[]}')
  headers:replace("content-length", size)
end
