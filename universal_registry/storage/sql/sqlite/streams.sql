-- name: add_carried
-- What a stream has carried in one direction, on top of what it had.
INSERT INTO stream_metrics (stream_id, direction, message_count, byte_count, latency_ms, last_update)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (stream_id, direction) DO UPDATE SET
    message_count = stream_metrics.message_count + excluded.message_count,
    byte_count = stream_metrics.byte_count + excluded.byte_count,
    latency_ms = coalesce(excluded.latency_ms, stream_metrics.latency_ms),
    last_update = excluded.last_update;

-- name: count_messages
-- All of them, over all streams.
UPDATE counters SET value = value + ? WHERE name = 'messages';

-- name: carried
-- The totals.
SELECT stream_id, direction, message_count, byte_count, latency_ms, last_update
FROM stream_metrics ORDER BY stream_id, direction;
