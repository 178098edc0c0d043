-- name: start_alone
-- One start of an instance that is new, without tags, like the function `start` at a fraction of its price. No row: an
-- instance of this id is there already, and nothing has happened.
WITH now AS MATERIALIZED (
    SELECT durable_host.now_micros() AS micros
), fresh AS (
    INSERT INTO durable_host.instances (
        hub, instance_id, wake_at, lease, start_id, status, execution_id, name, parent_id, created_at, updated_at,
        pending, state, input
    )
    SELECT $1, $5, CASE WHEN $4 AND $8::bigint IS NULL THEN now.micros + $3 ELSE greatest($8, now.micros) END,
        CASE WHEN $4 AND $8::bigint IS NULL THEN $2::bigint END, $6, $10, $11, $12, $13, $14, $14, true, $15, $16
    FROM now
    ON CONFLICT (hub, instance_id) DO NOTHING
    RETURNING ref, lease
), placed AS (
    INSERT INTO durable_host.messages (hub, ref, due, arrived_at, visible_at, id, execution_id, event)
    SELECT $1, fresh.ref, greatest($8, now.micros), now.micros, $8, $6, $7, $9 FROM fresh, now
)
SELECT ref, lease FROM fresh

-- name: take_refs
-- Numbers of rows for instances that are handed over before they are stored.
SELECT nextval('durable_host.instances_ref_seq') FROM generate_series(1, $1::integer)

-- name: start_at
-- The same for one that was handed over before: its row and its lease have their numbers.
WITH now AS MATERIALIZED (
    SELECT durable_host.now_micros() AS micros
), fresh AS (
    INSERT INTO durable_host.instances (
        ref, hub, instance_id, wake_at, lease, start_id, status, execution_id, name, parent_id, created_at, updated_at,
        pending, state, input
    )
    OVERRIDING SYSTEM VALUE
    SELECT $4, $1, $5, now.micros + $3, $2, $6, $10, $11, $12, $13, $14, $14, true, $15, $16 FROM now
    ON CONFLICT (hub, instance_id) DO NOTHING
    RETURNING ref
), placed AS (
    INSERT INTO durable_host.messages (hub, ref, due, arrived_at, visible_at, id, execution_id, event)
    SELECT $1, fresh.ref, greatest($8, now.micros), now.micros, $8, $6, $7, $9 FROM fresh, now
)
SELECT ref FROM fresh

-- name: start_step
-- The same together with the first step of the instance: neither the message nor the Pending projection is ever seen.
-- An activity that is handed over ($22) is carried in the row. Says whether it was stored.
WITH now AS MATERIALIZED (
    SELECT durable_host.now_micros() AS micros
), fresh AS (
    INSERT INTO durable_host.instances (
        ref, hub, instance_id, wake_at, lease, start_id, name, parent_id, created_at, input, execution_id, generation,
        length, updated_at, state, custom_status, status, carried_lease, carried_until, carried_at, carried_id,
        carried_task
    )
    OVERRIDING SYSTEM VALUE
    SELECT $4, $1, $6, now.micros + $3, $5, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
        $2, now.micros + $3, now.micros, CASE WHEN $22 THEN $20 END, CASE WHEN $22 THEN $21::bytea END
    FROM now
    ON CONFLICT (hub, instance_id) DO NOTHING
    RETURNING ref
), appended AS (
    INSERT INTO durable_host.history (ref, first, events) SELECT fresh.ref, 0, $19 FROM fresh
), added AS (
    INSERT INTO durable_host.activities (ref, wake_at, created_at, hub, deliveries, dispatch_id, task)
    SELECT fresh.ref, now.micros, now.micros, $1, 0, $20, $21
    FROM fresh, now WHERE $20::text IS NOT NULL AND NOT $22
    ON CONFLICT (hub, dispatch_id) DO NOTHING
)
SELECT ref FROM fresh

-- name: step_alone
-- The usual step of one instance, or its first one, like the function `step` at a fraction of its price: no arrays,
-- nothing to interpret. $15: an activity that is folded in, if it has a row of its own; $21: one that is carried. $16,
-- $17: an activity that gets a row; $22, $23: one that is handed over, and carried. Says whether the row was as
-- remembered; else nothing happens. An activity that is there already, which hardly ever happens, is an error, and
-- nothing happens: ON CONFLICT would cost a tenth of the statement.
WITH now AS MATERIALIZED (
    SELECT durable_host.now_micros() AS micros
), stepped AS (
    UPDATE durable_host.instances i SET
        generation = $18, length = $8, updated_at = $9, state = $10, custom_status = $11, status = $19, pending = false,
        carried_lease = $2, carried_until = now.micros + $3, carried_at = now.micros, carried_id = $22,
        carried_task = $23
    FROM now
    WHERE i.ref = $4 AND i.lease = $5 AND coalesce(i.wake_at, 0) > now.micros AND i.generation IS NOT DISTINCT FROM $6
        AND i.length IS NOT DISTINCT FROM $7 AND i.execution_id = $12 AND i.status = $13
        AND i.carried_id IS NOT DISTINCT FROM $21
        AND NOT EXISTS (SELECT 1 FROM durable_host.activities a WHERE a.hub = $1 AND a.dispatch_id = $22)
    RETURNING i.ref
), appended AS (
    INSERT INTO durable_host.history (ref, first, events) SELECT stepped.ref, coalesce($7, 0), $14 FROM stepped
), consumed AS (
    DELETE FROM durable_host.messages m USING stepped WHERE m.ref = stepped.ref AND m.id = $20
), folded AS (
    DELETE FROM durable_host.activities a USING stepped WHERE a.hub = $1 AND a.dispatch_id = $15
), added AS (
    INSERT INTO durable_host.activities (ref, wake_at, created_at, hub, deliveries, dispatch_id, task)
    SELECT stepped.ref, now.micros, now.micros, $1, 0, $16, $17
    FROM stepped, now WHERE $16::text IS NOT NULL
)
SELECT 1 FROM stepped

-- name: step_carried
-- The most usual step of all: a carried activity's result comes in, the next one is handed over, and nothing else.
WITH now AS MATERIALIZED (
    SELECT durable_host.now_micros() AS micros
), stepped AS (
    UPDATE durable_host.instances i SET
        length = $8, updated_at = $9, state = $10, custom_status = $11, status = $15, pending = false,
        carried_lease = $2, carried_until = now.micros + $3, carried_at = now.micros, carried_id = $17,
        carried_task = $18
    FROM now
    WHERE i.ref = $4 AND i.lease = $5 AND coalesce(i.wake_at, 0) > now.micros AND i.generation = $6 AND i.length = $7
        AND i.execution_id = $12 AND i.status = $13 AND i.carried_id = $16
        AND NOT EXISTS (SELECT 1 FROM durable_host.activities a WHERE a.hub = $1 AND a.dispatch_id = $17)
    RETURNING i.ref
)
INSERT INTO durable_host.history (ref, first, events) SELECT stepped.ref, $7, $14 FROM stepped RETURNING first

-- name: notify
-- Tell other store objects; nothing that must outlive the server.
SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)

-- name: histories
-- The histories of locked instances, those alone that stand as they were locked: a host that was paused since then, or
-- whose commit took effect unheard, must not read what has been made of them.
SELECT i.ref, h.events
FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::integer[]) AS u (ref, lease, generation, length)
JOIN durable_host.instances i
    ON i.ref = u.ref AND abs(i.lease) = u.lease AND i.generation = u.generation AND i.length = u.length
LEFT JOIN durable_host.history h ON h.ref = i.ref
ORDER BY i.ref, h.first

-- name: is_current
-- Whether a lease of an instance is current.
SELECT 1 FROM durable_host.instances WHERE ref = $1 AND abs(lease) = $2

-- name: run_with_event
-- The run of events that holds the event at an index, for a rewind.
SELECT first, events FROM durable_host.history WHERE ref = $1 AND first <= $2 ORDER BY first DESC LIMIT 1

-- name: get_instances
-- Projections by id.
SELECT instance_id, state, quarantined, input, output, custom_status, failure
FROM durable_host.instances WHERE hub = $1 AND instance_id = ANY ($2) AND state IS NOT NULL

-- name: get_instances_without_payloads
-- Projections by id, without payloads.
SELECT instance_id, state, quarantined FROM durable_host.instances
WHERE hub = $1 AND instance_id = ANY ($2) AND state IS NOT NULL

-- name: history_of
-- The history of an instance that has a projection; none of it while a start waits that replaces the instance.
SELECT h.events
FROM durable_host.instances i LEFT JOIN durable_host.history h ON h.ref = i.ref AND NOT i.pending
WHERE i.hub = $1 AND i.instance_id = $2 AND i.state IS NOT NULL ORDER BY h.first

-- name: query_columns
-- A page of projections; the conditions and the order follow.
SELECT instance_id, state, quarantined, input, output, custom_status, failure FROM durable_host.instances

-- name: query_columns_without_payloads
-- A page of projections without payloads.
SELECT instance_id, state, quarantined FROM durable_host.instances

-- name: count_statuses
-- Instances by status.
SELECT status, count(*) FROM durable_host.instances WHERE hub = $1 AND status IS NOT NULL GROUP BY status

-- name: count_messages
-- Messages that are visible, those that are delayed, the age of the oldest that waits for a worker, and instances in
-- quarantine.
SELECT
    (SELECT count(*) FROM durable_host.messages WHERE hub = $1 AND due <= now.micros),
    (SELECT count(*) FROM durable_host.messages WHERE hub = $1 AND due > now.micros),
    now.micros - (
        SELECT min(greatest(m.arrived_at, m.visible_at))
        FROM durable_host.messages m JOIN durable_host.instances i ON i.ref = m.ref
        WHERE m.hub = $1 AND m.due <= now.micros AND i.quarantined IS NULL
            AND (coalesce(i.lease, 0) <= 0 OR i.wake_at <= now.micros)
    ),
    (SELECT count(*) FROM durable_host.instances WHERE hub = $1 AND quarantined IS NOT NULL)
FROM (SELECT durable_host.now_micros() AS micros OFFSET 0) AS now

-- name: count_activities
-- Activities without and with a live lease, and the age of the oldest that waits.
SELECT
    count(*) FILTER (WHERE a.lease IS NULL OR a.wake_at <= now.micros),
    count(*) FILTER (WHERE a.lease IS NOT NULL AND a.wake_at > now.micros),
    max(now.micros - a.created_at) FILTER (WHERE a.wake_at <= now.micros)
FROM (SELECT durable_host.now_micros() AS micros OFFSET 0) AS now
CROSS JOIN (
    SELECT lease, wake_at, created_at FROM durable_host.activities WHERE hub = $1
    UNION ALL
    SELECT carried_lease, carried_until, carried_at FROM durable_host.instances
    WHERE hub = $1 AND wake_at IS NOT NULL AND carried_id IS NOT NULL
) AS a

-- name: returned_activities
-- Activities that were fetched at least twice and wait.
SELECT i.instance_id, a.task, a.deliveries, CASE WHEN a.wake_at > now.micros THEN a.wake_at END
FROM (SELECT durable_host.now_micros() AS micros OFFSET 0) AS now
JOIN durable_host.activities a ON a.hub = $1 LEFT JOIN durable_host.instances i ON i.ref = a.ref
WHERE a.deliveries >= 2 AND (a.lease IS NULL OR a.wake_at <= now.micros)
ORDER BY a.deliveries DESC LIMIT $2

-- name: returned_messages
-- Instances whose oldest message was fetched at least twice and waits.
SELECT i.instance_id, i.name, max(m.deliveries), max(CASE WHEN i.wake_at > now.micros THEN i.wake_at END)
FROM (SELECT durable_host.now_micros() AS micros OFFSET 0) AS now
JOIN durable_host.messages m ON m.hub = $1 JOIN durable_host.instances i ON i.ref = m.ref
WHERE m.deliveries >= 2 AND i.quarantined IS NULL AND (coalesce(i.lease, 0) <= 0 OR i.wake_at <= now.micros)
GROUP BY i.ref ORDER BY max(m.deliveries) DESC LIMIT $2

-- name: next_owner
-- A number for a store object.
SELECT nextval('durable_host.owners')

-- name: take_host_lease
-- A named lease, if nobody holds it.
INSERT INTO durable_host.host_leases AS l (hub, name, token, owner, ends_at)
VALUES ($1, $2, $3, $4, durable_host.now_micros() + $5)
ON CONFLICT (hub, name) DO UPDATE SET token = excluded.token, owner = excluded.owner, ends_at = excluded.ends_at
WHERE l.ends_at <= durable_host.now_micros()
RETURNING token

-- name: extend_host_lease
-- Renew a named lease.
UPDATE durable_host.host_leases SET ends_at = durable_host.now_micros() + $4
WHERE hub = $1 AND name = $2 AND token = $3 RETURNING token

-- name: drop_host_lease
-- Give a named lease back.
DELETE FROM durable_host.host_leases WHERE hub = $1 AND name = $2 AND token = $3

-- name: read_document
-- A document of the host.
SELECT value, version FROM durable_host.host_documents WHERE hub = $1 AND path = $2

-- name: add_document
-- A document, only if there is none.
INSERT INTO durable_host.host_documents (hub, path, version, value) VALUES ($1, $2, $3, $4)
ON CONFLICT (hub, path) DO NOTHING RETURNING version

-- name: change_document
-- A document, only if its version is the expected one.
UPDATE durable_host.host_documents SET version = $3, value = $4 WHERE hub = $1 AND path = $2 AND version = $5
RETURNING version

-- name: drop_document
-- Remove a document.
DELETE FROM durable_host.host_documents WHERE hub = $1 AND path = $2 RETURNING path

-- name: list_documents
-- Paths of documents from $2 on; $3: before this one, or NULL.
SELECT path FROM durable_host.host_documents WHERE hub = $1 AND path >= $2 AND ($3::text IS NULL OR path < $3)
ORDER BY path

-- name: probe
-- A write without effect, for readiness.
UPDATE durable_host.hubs SET created_at = created_at WHERE hub = $1 RETURNING hub
