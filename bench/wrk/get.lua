-- GET each path of the file PATHS, in its order, over and over.
dofile(debug.getinfo(1, "S").source:sub(2):match(".*/") .. "result.lua")

local requests, n = {}, 0
local key = os.getenv("KEY")
local headers = key ~= "" and { ["Authorization"] = "Bearer " .. key } or {}

init = function()
  for path in io.lines(os.getenv("PATHS")) do
    requests[#requests + 1] = wrk.format("GET", path, headers)
  end
end

request = function()
  n = n % #requests + 1
  return requests[n]
end
