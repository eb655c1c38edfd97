-- The requests of one load on OpenBao, for wrk, and what is counted of the answers. Told by environment variables:
--   BENCH_TOKEN_FILE   the client token
--   BENCH_BODY_FILE    the body of every request; without it, every request puts a new key
--   BENCH_PREFIX       what the new keys' names start with
--   BENCH_EXPECT       what a right answer holds, BENCH_ITEMS times
--   BENCH_CONNECTIONS  as given to wrk
--   BENCH_RESULT       where the figures go, as JSON

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

local threads = {}

function setup(thread)
    thread:set("id", #threads)
    threads[#threads + 1] = thread
end

-- In each thread.

sent, answered, wrong, complaint = 0, 0, 0, ""

local items = tonumber(os.getenv("BENCH_ITEMS"))
local expect = os.getenv("BENCH_EXPECT")
local prefix = os.getenv("BENCH_PREFIX")
local fixed

function init()
    wrk.headers["X-Vault-Token"] = read(os.getenv("BENCH_TOKEN_FILE")):gsub("%s+$", "")
    wrk.headers["Content-Type"] = "application/json"
    local body_file = os.getenv("BENCH_BODY_FILE")
    if body_file then
        fixed = wrk.format("POST", nil, nil, read(body_file))
    end
end

function request()
    sent = sent + 1
    if fixed then
        return fixed
    end
    local path = string.format("%s/%s-%d-%d", wrk.path, prefix, id, sent)
    local body = string.format('{"data":{"value":"bench value of 32 bytes %08d"}}', sent)
    return wrk.format("POST", path, nil, body)
end

local function times_in(body)
    local count, at = 0, 1
    while true do
        local first, last = body:find(expect, at, true)
        if not first then
            return count
        end
        count, at = count + 1, last + 1
    end
end

-- wrk itself counts only statuses above 399 as errors, and looks at no body.
function response(status, _, body)
    answered = answered + 1
    if status < 200 or status > 299 or times_in(body) ~= items then
        wrong = wrong + 1
        complaint = string.format("%d %s", status, body:sub(1, 300))
    end
end

-- At the end, in a state of its own.

-- wrk adds latencies that nobody had: for one longer than twice the mean time between a connection's requests, also
-- what would-be requests behind it had waited. That models an open loop; this is a closed one, as that of the vault's
-- own bench. It went from low latencies to high ones and added only to lower ones, so going from high ones to low ones
-- and taking away gives back exactly what was measured; that the counts add up to the requests proves it.
local function measured(latency, summary)
    local counts, highest = {}, 0
    for index = 1, #latency do
        local value, count = latency(index)
        counts[value] = count
        highest = math.max(highest, value)
    end
    local rounds = math.floor(summary.requests / tonumber(os.getenv("BENCH_CONNECTIONS")))
    local interval = rounds > 0 and math.floor(summary.duration / rounds) or math.huge
    local total = 0
    for value = highest, 0, -1 do
        local count = counts[value] or 0
        assert(count >= 0, "wrk's added latencies can't be told from the measured ones: is this wrk 4?")
        total = total + count
        if count > 0 and value >= 2 * interval then
            local added = value - interval
            while added > interval do
                counts[added] = (counts[added] or 0) - count
                added = added - interval
            end
        end
    end
    assert(total == summary.requests, "wrk's latencies are not as many as its requests: is this wrk 4?")
    return counts, highest
end

local function quantile(counts, highest, total, part)
    local rank, seen = math.ceil(part * total), 0
    for value = 0, highest do
        seen = seen + (counts[value] or 0)
        if seen >= rank then
            return value
        end
    end
end

function done(summary, latency)
    local all = { sent = 0, answered = 0, wrong = 0 }
    local example = ""
    for _, thread in ipairs(threads) do
        for name in pairs(all) do
            all[name] = all[name] + thread:get(name)
        end
        if thread:get("complaint") ~= "" then
            example = thread:get("complaint")
        end
    end
    local errors = summary.errors
    local broken = errors.connect + errors.read + errors.write + errors.timeout
    if all.wrong > 0 or errors.status > 0 then
        error(string.format("%d of %d answers were wrong, such as: %s", all.wrong, all.answered, example))
    end
    if broken > 0 then
        error(string.format("%d connections failed or timed out", broken))
    end
    if all.answered ~= summary.requests then
        error(string.format("wrk counts %d requests, but %d were answered", summary.requests, all.answered))
    end
    -- One request a connection may be under way at the end, and wrk makes one only to look at it. More means that the
    -- server hung up on some, which wrk does not count.
    if all.sent - all.answered > tonumber(os.getenv("BENCH_CONNECTIONS")) + 1 then
        error(string.format("%d requests were sent, but only %d answered", all.sent, all.answered))
    end
    local p50, p99 = 0, 0
    if summary.requests > 0 then
        local counts, highest = measured(latency, summary)
        p50 = quantile(counts, highest, summary.requests, 0.50)
        p99 = quantile(counts, highest, summary.requests, 0.99)
    end
    local file = assert(io.open(os.getenv("BENCH_RESULT"), "w"))
    file:write(string.format('{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d}\n',
        summary.requests, summary.duration, p50, p99))
    file:close()
end
