-- name: touched
-- What the last check of readiness wrote.
SELECT value FROM hub WHERE name = 'probe'

-- name: get_instances
-- Projections by id.
SELECT instance_id, state, large, quarantined, input, output, custom_status, failure, ref
FROM instances WHERE instance_id IN (? ...) AND state IS NOT NULL

-- name: query_columns
-- A page of projections; the conditions and the order follow.
SELECT instance_id, state, large, quarantined, input, output, custom_status, failure, ref FROM instances

-- name: query_columns_without_payloads
-- A page of projections without payloads.
SELECT instance_id, state, 0, quarantined, NULL, NULL, NULL, NULL, ref FROM instances

-- name: large_payloads
-- Payloads that are kept apart from their rows.
SELECT ref, member, text FROM payloads WHERE ref IN (? ...)

-- name: history_of
-- The history of an instance that has a projection; none of it while a start waits that replaces the instance.
SELECT history.events
FROM instances LEFT JOIN history
    ON history.ref = instances.ref AND json_extract(instances.state, '$.version') IS NOT NULL
WHERE instances.instance_id = ?1 AND instances.state IS NOT NULL ORDER BY history.first

-- name: histories
-- The histories of locked instances.
SELECT ref, events FROM history WHERE ref IN (? ...) ORDER BY ref, first

-- name: count_statuses
-- Instances by status.
SELECT status, count(*) FROM instances WHERE status IS NOT NULL GROUP BY status

-- name: count_messages
-- Messages that are visible, those that are delayed, and the age of the oldest that waits for a worker.
SELECT
    (SELECT count(*) FROM messages WHERE due <= ?1),
    (SELECT count(*) FROM messages WHERE due > ?1),
    (
        SELECT min(max(arrived_at, ifnull(visible_at, 0)))
        FROM messages JOIN instances ON instances.ref = messages.ref
        WHERE due <= ?1 AND quarantined IS NULL AND (ifnull(lease, 0) <= 0 OR wake_at <= ?1)
    ),
    (SELECT count(*) FROM instances WHERE quarantined IS NOT NULL)

-- name: count_activities
-- Activities without and with a live lease, and the age of the oldest that waits.
SELECT
    count(*) FILTER (WHERE lease IS NULL OR wake_at <= ?1),
    count(*) FILTER (WHERE lease IS NOT NULL AND wake_at > ?1),
    min(created_at) FILTER (WHERE wake_at <= ?1)
FROM activities

-- name: returned_activities
-- Activities that were fetched at least twice and wait.
SELECT instances.instance_id, task, deliveries, activities.wake_at
FROM activities LEFT JOIN instances ON instances.ref = activities.ref
WHERE deliveries >= 2 AND (activities.lease IS NULL OR activities.wake_at <= ?1)
ORDER BY deliveries DESC LIMIT ?2

-- name: returned_messages
-- Instances whose oldest message was fetched at least twice and waits.
SELECT instances.instance_id, instances.name, max(messages.deliveries), instances.wake_at
FROM messages JOIN instances ON instances.ref = messages.ref
WHERE messages.deliveries >= 2 AND quarantined IS NULL AND (ifnull(lease, 0) <= 0 OR wake_at <= ?1)
GROUP BY messages.ref ORDER BY max(messages.deliveries) DESC LIMIT ?2

-- name: read_document
-- A document of the host.
SELECT value, version FROM host_documents WHERE path = ?1

-- name: list_documents
-- Paths of documents from ?1 on; ?2: before this one, or NULL.
SELECT path FROM host_documents WHERE path >= ?1 AND (?2 IS NULL OR path < ?2) ORDER BY path
