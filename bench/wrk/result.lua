-- What every script prints at its end, for bench/load.py.
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"answers": %d, "refused": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d, "seconds": %f, "p50_us": %f, "p99_us": %f}\n',
    summary.requests, e.status, e.connect, e.read, e.write, e.timeout, summary.duration / 1e6,
    latency:percentile(50), latency:percentile(99)))
end
