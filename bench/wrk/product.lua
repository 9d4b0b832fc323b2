-- One product of the catalog: the METHODS ("GET", "PUT", "GET PUT") in turn.
dofile(debug.getinfo(1, "S").source:sub(2):match(".*/") .. "result.lua")

local requests, n = {}, 0

init = function()
  local path = "/products/" .. os.getenv("PRODUCT")
  local body = string.format(
    '{"id":%s,"name":"Whispers of the Night","price":10,"quantity":1000000}', os.getenv("PRODUCT"))
  for method in os.getenv("METHODS"):gmatch("%S+") do
    requests[#requests + 1] = wrk.format(method, path, nil, method == "PUT" and body or nil)
  end
end

request = function()
  n = n % #requests + 1
  return requests[n]
end
