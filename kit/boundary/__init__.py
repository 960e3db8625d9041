"""What every rpc passes on its way in and out: credential, access, size, rules, scrubbing; span, metric, log line, status."""
