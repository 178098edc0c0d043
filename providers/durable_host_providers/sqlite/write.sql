-- name: marks
-- Where numbering stands, once per transaction that makes rows: messages, arrival time, activities, instances.
SELECT
    (SELECT max(seq) FROM messages),
    (SELECT arrived_at FROM messages ORDER BY seq DESC LIMIT 1),
    (SELECT max(seq) FROM activities),
    (SELECT max(ref) FROM instances)

-- name: probe
-- Whether work waits, without taking the write lock: the earliest immediate and timed wake-up of both kinds; and whether
-- another connection has written (a read of its own costs ten times as much, for the locks).
SELECT
    (SELECT min(wake_at) FROM instances WHERE wake_at IS NOT NULL AND wake_at < ?1),
    (SELECT min(wake_at) FROM instances WHERE wake_at >= ?1),
    (SELECT min(wake_at) FROM activities WHERE wake_at < ?1),
    (SELECT min(wake_at) FROM activities WHERE wake_at >= ?1),
    (SELECT data_version FROM pragma_data_version)

-- name: immediate_instances
-- Instances that have waited since a message came, in the order of arrival.
SELECT ref, instance_id, generation, length, status, execution_id
FROM instances WHERE wake_at IS NOT NULL AND wake_at < ?1 ORDER BY wake_at LIMIT ?2

-- name: due_instances
-- Instances with a delayed message that is due, or with a lease that has ended.
SELECT ref, instance_id, generation, length, status, execution_id
FROM instances WHERE wake_at >= ?1 AND wake_at <= ?2 ORDER BY wake_at LIMIT ?3

-- name: lease_instances
-- Lock instances.
UPDATE instances SET lease = ?1, wake_at = ?2 WHERE ref IN (? ...)

-- name: release_instances
-- Unlock instances; each wakes for the earliest message of its inbox.
UPDATE instances SET lease = NULL, wake_at = (SELECT min(due) FROM messages WHERE messages.ref = instances.ref)
WHERE ref IN (? ...) AND quarantined IS NULL

-- name: end_instances
-- Leases that have ended while nothing waits; they stay current, turned negative, until somebody takes the instance.
UPDATE instances SET
    lease = -abs(lease), wake_at = (SELECT min(due) FROM messages WHERE messages.ref = instances.ref)
WHERE ref IN (? ...)

-- name: postpone_instances
-- Unlock instances; what was given comes back after a delay that ends at ?1, or with the next message before that.
UPDATE instances SET lease = NULL, wake_at = min(
    ?1, ifnull((SELECT min(due) FROM messages WHERE messages.ref = instances.ref AND due > ?2), ?1)
)
WHERE ref IN (? ...) AND quarantined IS NULL

-- name: extend_instances
-- Renew the leases of instances, which were compared before.
UPDATE instances SET lease = abs(lease), wake_at = ?1 WHERE ref IN (? ...)

-- name: keep_instances
-- Stay locked without a new projection: a lease that has ended at ?2 is renewed.
UPDATE instances SET lease = abs(lease), wake_at = ?1 WHERE (lease < 0 OR wake_at <= ?2) AND ref IN (? ...)

-- name: leased_instances
-- Which of these leases of instances are current: the lists of their rows and of their numbers.
SELECT group_concat(instances.ref), group_concat(asked.column2)
FROM (VALUES (?, ?) ...) AS asked CROSS JOIN instances ON instances.ref = asked.column1
WHERE abs(instances.lease) = asked.column2

-- name: live_instances
-- Which of these leases of instances are current and have not ended at ?1.
SELECT
    group_concat(instances.ref) FILTER (WHERE instances.wake_at > ?1),
    group_concat(instances.lease) FILTER (WHERE instances.wake_at > ?1)
FROM (VALUES (?, ?) ...) AS asked CROSS JOIN instances ON instances.ref = asked.column1
WHERE instances.lease = asked.column2

-- name: leased_activities
-- Which of these leases of activities are current: the lists of their rows and of their numbers.
SELECT group_concat(activities.seq), group_concat(activities.lease)
FROM (VALUES (?, ?) ...) AS asked CROSS JOIN activities ON activities.seq = asked.column1
WHERE activities.lease = asked.column2

-- name: fence
-- Which checkpoints may be written (the lists of their rows and leases), and for how many of them the lease has not ended
-- at ?1 and the projection stands as this process last saw it; and how many have anything in their inbox.
SELECT
    group_concat(instances.ref), group_concat(asked.column2),
    total(instances.wake_at > ?1 AND instances.lease > 0 AND instances.status IS asked.column5 AND instances.execution_id IS asked.column6),
    total(EXISTS (SELECT 1 FROM messages WHERE messages.ref = instances.ref))
FROM (VALUES (?, ?, ?, ?, ?, ?) ...) AS asked CROSS JOIN instances ON instances.ref = asked.column1
WHERE abs(instances.lease) = asked.column2
    AND instances.generation IS asked.column3 AND instances.length IS asked.column4

-- name: steady
-- Those of the fenced checkpoints for which that holds.
SELECT group_concat(instances.ref) FILTER (WHERE instances.wake_at > ?1 AND instances.lease > 0)
FROM (VALUES (?, ?, ?) ...) AS asked CROSS JOIN instances ON instances.ref = asked.column1
WHERE instances.status IS asked.column2 AND instances.execution_id IS asked.column3

-- name: advance
-- The next checkpoint of instances that stay locked, in the same status: touches no index.
UPDATE instances SET
    generation = asked.column2, length = asked.column3, updated_at = asked.column4,
    state = asked.column5, custom_status = asked.column6, large = (instances.large & 1) | asked.column7
FROM (VALUES (?, ?, ?, ?, ?, ?, ?) ...) AS asked
WHERE instances.ref = asked.column1

-- name: project
-- Any other checkpoint with a projection. column15: bring the input; column17: stay locked; a lease that has ended at ?1
-- is renewed until ?2 then.
UPDATE instances SET
    generation = asked.column2, length = asked.column3, updated_at = asked.column4, created_at = asked.column5,
    status = asked.column6, execution_id = asked.column7, name = asked.column8, parent_id = asked.column9,
    state = asked.column10, output = asked.column11, custom_status = asked.column12, failure = asked.column13,
    input = CASE WHEN asked.column15 THEN asked.column14 ELSE instances.input END,
    large = CASE WHEN asked.column15 THEN asked.column16 ELSE (instances.large & 1) | asked.column16 END,
    lease = CASE WHEN asked.column17 THEN abs(instances.lease) END,
    wake_at = CASE
        WHEN asked.column17 THEN
            CASE WHEN instances.wake_at > ?1 AND instances.lease > 0 THEN instances.wake_at ELSE ?2 END
        ELSE (SELECT min(due) FROM messages WHERE messages.ref = instances.ref)
    END
FROM (VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ...) AS asked
WHERE instances.ref = asked.column1

-- name: pending_start
-- Whether an instance shows a start that has not run, or nothing yet.
SELECT start_id, state IS NULL, json_extract(state, '$.version') IS NULL FROM instances WHERE ref = ?1

-- name: drop_places
-- Places for messages to instances that never ran, once their inbox is empty.
DELETE FROM instances WHERE ref IN (? ...) AND state IS NULL AND ifnull(lease, 0) <= 0 AND quarantined IS NULL
    AND NOT EXISTS (SELECT 1 FROM messages WHERE messages.ref = instances.ref)

-- name: add_payloads
-- Payloads that are too long for a row; one that has not changed is not written again.
INSERT INTO payloads (ref, member, text) VALUES (?, ?, ?) ...
ON CONFLICT (ref, member) DO UPDATE SET text = excluded.text WHERE text IS NOT excluded.text

-- name: add_history
-- The events of checkpoints.
INSERT INTO history (ref, first, events) VALUES (?, ?, ?) ...

-- name: drop_history
-- History that is replaced or purged.
DELETE FROM history WHERE ref IN (? ...)

-- name: run_with_event
-- The run of events that holds the event at an index, for a rewind.
SELECT id, first, events FROM history WHERE ref = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1

-- name: amend_run
-- A run with amended events.
UPDATE history SET events = ?2 WHERE id = ?1

-- name: add_tags
-- Tags of an instance.
INSERT OR REPLACE INTO tags (ref, name, value) VALUES (?, ?, ?) ...

-- name: drop_tags
-- Tags of an execution that is replaced or purged.
DELETE FROM tags WHERE ref IN (? ...)

-- name: add_messages
-- Messages to inboxes; one whose id waits already stays as it is.
INSERT INTO messages (seq, ref, due, arrived_at, visible_at, id, execution_id, event) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ...
ON CONFLICT (ref, id) DO NOTHING

-- name: stored_messages
-- Those of the new messages that were not there before.
SELECT seq FROM messages WHERE seq IN (? ...)

-- name: drop_messages
-- Messages that were consumed.
DELETE FROM messages WHERE seq IN (? ...)

-- name: drop_message
-- A consumed message by its id, for a holder that does not know its number any more.
DELETE FROM messages WHERE ref = ?1 AND id = ?2

-- name: delay_message
-- A message that comes back later, after a time that grows with its deliveries.
UPDATE messages SET due = ?1 + min(1 << min(deliveries, 10), 600) * 1000000 WHERE ref = ?2 AND id = ?3

-- name: count_deliveries
-- Messages that were fetched.
UPDATE messages SET deliveries = deliveries + 1 WHERE seq IN (? ...)

-- name: read_inbox
-- What is visible in some inboxes.
SELECT ref, seq, id, event, execution_id, visible_at, deliveries, arrived_at, due
FROM messages WHERE due <= ?1 AND ref IN (? ...)

-- name: earliest_messages
-- When the inboxes of held instances next have something to tell.
SELECT ref, min(due) FROM messages WHERE ref IN (? ...) GROUP BY ref

-- name: next_messages
-- When the inboxes of held instances next have something to tell, apart from what is visible now.
SELECT ref, min(due) FROM messages WHERE due > ?1 AND ref IN (? ...) GROUP BY ref

-- name: find_targets
-- The instances that messages are addressed to.
SELECT instance_id, ref, lease, wake_at, quarantined IS NOT NULL FROM instances WHERE instance_id IN (? ...)

-- name: add_places
-- Places for messages to instances that do not exist (yet).
INSERT INTO instances (ref, instance_id) VALUES (?, ?) ...

-- name: wake
-- Instances whose earliest message is a new one.
UPDATE instances SET wake_at = asked.column2 FROM (VALUES (?, ?) ...) AS asked WHERE instances.ref = asked.column1

-- name: add_activities
-- Activity tasks; those that are handed over come with their lease.
INSERT INTO activities (seq, ref, wake_at, lease, deliveries, created_at, dispatch_id, task)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) ...
ON CONFLICT (dispatch_id) DO NOTHING

-- name: stored_activities
-- Those of the new activities that were not there before.
SELECT seq FROM activities WHERE seq IN (? ...)

-- name: immediate_activities
-- Activities that wait, in the order in which they were asked for.
SELECT seq, task, deliveries FROM activities WHERE wake_at < ?1 ORDER BY wake_at LIMIT ?2

-- name: due_activities
-- Activities that were given back with a delay, or whose lease has ended.
SELECT seq, task, deliveries FROM activities WHERE wake_at >= ?1 AND wake_at <= ?2 ORDER BY wake_at LIMIT ?3

-- name: owner_of_task
-- The instance that a task belongs to, unless it is in quarantine.
SELECT instances.ref, instances.instance_id, activities.dispatch_id
FROM activities JOIN instances ON instances.ref = activities.ref
WHERE activities.seq = ?1 AND instances.quarantined IS NULL

-- name: lease_activities
-- Lock activities and count the fetch.
UPDATE activities SET lease = ?1, wake_at = ?2, deliveries = deliveries + 1 WHERE seq IN (? ...)

-- name: extend_activities
-- Renew the leases of activities, which were compared before.
UPDATE activities SET wake_at = ?1 WHERE seq IN (? ...)

-- name: release_activities
-- Give activities back at once.
UPDATE activities SET lease = NULL, wake_at = seq WHERE seq IN (? ...)

-- name: delay_activities
-- Give activities back with a delay.
UPDATE activities SET lease = NULL, wake_at = ?1 WHERE seq IN (? ...)

-- name: finish_activities
-- Activities that are done, their leases compared before.
DELETE FROM activities WHERE seq IN (? ...)

-- name: fold_activities
-- Activities whose results a checkpoint holds, whoever has them locked.
DELETE FROM activities WHERE dispatch_id IN (? ...)

-- name: find_instances
-- What stands under the ids of starts.
SELECT instance_id, ref, status, start_id, quarantined IS NOT NULL FROM instances WHERE instance_id IN (? ...)

-- name: add_instances
-- New instances, Pending.
INSERT INTO instances (
    ref, instance_id, wake_at, start_id, status, execution_id, name, parent_id, created_at, updated_at, large, state, input
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ...

-- name: replace_instance
-- A start takes the place of an ended instance, or of messages that came first; history stays until its first commit.
UPDATE instances SET
    start_id = ?2, status = ?3, execution_id = ?4, name = ?5, parent_id = ?6, created_at = ?7, updated_at = ?8,
    large = ?9, state = ?10, input = ?11, output = NULL, custom_status = NULL, failure = NULL
WHERE ref = ?1

-- name: quarantine
-- Take an instance out of circulation.
UPDATE instances SET quarantined = ?2, status = CASE WHEN state IS NULL THEN NULL ELSE 'Failed' END, lease = NULL, wake_at = NULL
WHERE ref = ?1

-- name: quarantined
-- Those of some instances that are in quarantine.
SELECT instance_id FROM instances WHERE instance_id IN (? ...) AND quarantined IS NOT NULL

-- name: release_quarantined
-- Put quarantined instances back into circulation.
UPDATE instances SET
    quarantined = NULL, status = json_extract(state, '$.status'),
    wake_at = (SELECT min(due) FROM messages WHERE messages.ref = instances.ref)
WHERE instance_id IN (? ...) AND quarantined IS NOT NULL

-- name: purgeable
-- Instances to purge; ?1: also those that have not ended.
SELECT ref, instance_id, state IS NOT NULL FROM instances
WHERE (?1 OR status IN ('Completed', 'Failed', 'Terminated', 'Canceled')) AND instance_id IN (? ...)

-- name: drop_instances
-- Purged instances.
DELETE FROM instances WHERE ref IN (? ...)

-- name: drop_inboxes
-- Messages to purged instances.
DELETE FROM messages WHERE ref IN (? ...)

-- name: drop_payloads
-- Long payloads of purged instances.
DELETE FROM payloads WHERE ref IN (? ...)

-- name: drop_tasks
-- Activities of purged instances.
DELETE FROM activities WHERE ref IN (? ...)

-- name: longest_lease
-- How long a lease of any present owner is.
SELECT max(lease_length) FROM owners

-- name: clamp_instances
-- Leases that end later than any lease can: the clock was stepped back since they were given.
UPDATE instances SET wake_at = ?1 WHERE wake_at > ?1 AND lease > 0

-- name: clamp_activities
-- The same for activities.
UPDATE activities SET wake_at = ?1 WHERE wake_at > ?1 AND lease IS NOT NULL

-- name: add_owner
-- A store that is open to process work.
INSERT INTO owners (file, app, lease_length) VALUES (?1, ?2, ?3) RETURNING owner

-- name: owners
-- All stores that are open to process work, and those that died so.
SELECT owner, file, app FROM owners

-- name: drop_owner
-- A store that is closed or gone.
DELETE FROM owners WHERE owner = ?1

-- name: disown_instances
-- What an owner that is gone had locked is eligible again; ?1 and ?2 are the bounds of its leases.
UPDATE instances SET lease = NULL, wake_at = (SELECT min(due) FROM messages WHERE messages.ref = instances.ref)
WHERE wake_at >= ?3 AND lease BETWEEN ?1 AND ?2

-- name: disown_activities
-- The same for activities.
UPDATE activities SET lease = NULL, wake_at = seq WHERE wake_at >= ?3 AND lease BETWEEN ?1 AND ?2

-- name: disown_host_leases
-- The same for named leases.
DELETE FROM host_leases WHERE owner = ?1

-- name: take_host_lease
-- A named lease, if nobody holds it.
INSERT INTO host_leases (name, token, owner, ends_at) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (name) DO UPDATE SET token = excluded.token, owner = excluded.owner, ends_at = excluded.ends_at
WHERE ends_at <= ?5
RETURNING token

-- name: extend_host_lease
-- Renew a named lease.
UPDATE host_leases SET ends_at = ?3 WHERE name = ?1 AND token = ?2 RETURNING token

-- name: drop_host_lease
-- Give a named lease back.
DELETE FROM host_leases WHERE name = ?1 AND token = ?2

-- name: add_document
-- A document, only if there is none.
INSERT INTO host_documents (path, version, value) VALUES (?1, ?2, ?3) ON CONFLICT (path) DO NOTHING RETURNING version

-- name: change_document
-- A document, only if its version is the expected one.
UPDATE host_documents SET version = ?2, value = ?3 WHERE path = ?1 AND version = ?4 RETURNING version

-- name: drop_document
-- Remove a document.
DELETE FROM host_documents WHERE path = ?1 RETURNING path

-- name: touch
-- A write without effect, for readiness.
UPDATE hub SET value = ?1 WHERE name = 'probe'
