-- wrk: post one body again and again; print what was measured as JSON, in seconds.
-- Arguments: path, file of the body, then each header's name and value.
function init(args)
  wrk.method = "POST"
  wrk.path = args[1]
  wrk.body = io.open(args[2], "rb"):read("*a")
  for i = 3, #args, 2 do
    wrk.headers[args[i]] = args[i + 1]
  end
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "errors": %d, "p50": %f, "p99": %f}\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
