-- The transcoder quotes what it can't read of a path or a query, which may be personal. Callers get the path of the field in the
-- contract and the expected type instead. Bodies are parsed, and refused, by the services.

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

-- The rule that a field breaks. A complaint ends with the type, whatever its value contains.
local function rule(complaint)
  local kind = complaint:match("^invalid value .* for type ([%w_%./]+)$")
  return kind and EXPECTED[kind:match("[%w_]+$")] and "expected " .. EXPECTED[kind:match("[%w_]+$")] or "the value is invalid"
end

-- The message for callers, from the transcoder's message, which is escaped as in JSON.
local function message_for_callers(message)
  local name = message:match('^Could not find field \\"(.-)\\"')
  if name then
    return name:find("^[%a_][%w_%.]*$") and "there is no parameter " .. name or "there is no such parameter"
  end
  local path, complaint = message:match("^([%w_%.]+): (.*)$")
  return path and path .. ": " .. rule(complaint) or "a parameter can't be read"
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get("x-pmp-refusal") == nil then
    return
  end
  headers:remove("x-pmp-refusal")
  local body = handle:body(true)
  local message = body:getBytes(0, body:length()):match('"message":"(.*)"}') or ""
  local size = body:setBytes('{"code":3,"message":"' .. message_for_callers(message) .. '","details":[]}')
  -- Waiting for the body has ended the life of `headers`.
  handle:headers():replace("content-length", size)
end
