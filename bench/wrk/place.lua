-- POST /orders/{customer}: LINES different products out of FIRST..LAST, drawn evenly; no customer comes twice.
dofile(debug.getinfo(1, "S").source:sub(2):match(".*/") .. "result.lua")

local first, last, lines = tonumber(os.getenv("FIRST")), tonumber(os.getenv("LAST")), tonumber(os.getenv("LINES"))
local customer = tonumber(os.getenv("CUSTOMER"))
local headers = { ["Content-Type"] = "application/json" }
local key = os.getenv("KEY")
if key ~= "" then headers["Authorization"] = "Bearer " .. key end
math.randomseed(customer)

request = function()
  customer = customer + 1
  local drawn, items = {}, {}
  while #items < lines do
    local product = math.random(first, last)
    if not drawn[product] then
      drawn[product] = true
      items[#items + 1] = string.format('{"product_id":%d,"quantity":1}', product)
    end
  end
  local body = '{"items":[' .. table.concat(items, ",") .. ']}'
  return wrk.format("POST", string.format("/orders/%d", customer), headers, body)
end
