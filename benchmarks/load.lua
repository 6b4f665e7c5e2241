-- wrk: post one body again and again; print what was measured as JSON, in seconds.
function init(args)
  wrk.method = "POST"
  wrk.path = args[1]
  wrk.headers["content-type"] = "application/json"
  wrk.body = io.open(args[2]):read("*a")
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "errors": %d, "p50": %f, "p99": %f}\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
