-- The writes. Each function is one statement and so one transaction of its own, or a part of the caller's.
--
-- Order of locks: rows of instances in the order of ids, before anything else is written. What holds the row of an
-- instance may change its inbox, its history and its activities. Each statement inside a function sees what was committed
-- before it began: what is read after the lock is what stands.

-- Plans are kept, and those of tables that were small when they were made must do for large ones. So rows are looked up
-- one by one through LATERAL where a join could be turned around to walk along a whole hub, and nothing but the end of an
-- index is ordered by it. Where a row is found by its number, no condition may imply the predicate of a partial index (`wake_at > …` implies
-- `wake_at IS NOT NULL`, hence the coalesce): for a small table a walk along such an index looks as cheap as the primary
-- key.

-- What a function tells, one fact a row; `kind` says which columns count. Times are relative to the server's clock.
--   1 lost        a checkpoint that meets the fence (ref), a lease of an activity that is not current (message_id)
--   2 changed     a checkpoint (ref) must bring the input: the row shows another execution than the worker knows
--   3 known       an activity (message_id) that waits already
--   4 arrived     a message for an instance that is locked: ref, lease; due in `at`
--   5 woken       an instance became eligible, or will be: in `at`
--   6 item        a message of a locked instance: all columns
--   7 later       an inbox (ref) has something more: in `at`
--   8 created     a start (message_id) that was taken: ref, or NULL when an earlier call took it
--   9 restored    a projection (ref) that an unfinished start covered stands again
--  10 task        a locked activity: message_id, event, deliveries
--  11 current     a lease that was renewed: ref, or message_id of an activity
--  12 waiting     an activity waits, or will: in `at`
CREATE TYPE durable_host.answer AS (
    kind integer,
    ref bigint,
    lease bigint,
    at bigint,
    instance_id text,
    generation integer,
    length integer,
    status text,
    execution_id text,
    seq bigint,
    message_id text,
    message_execution text,
    event bytea,
    visible_at bigint,
    deliveries integer
);

CREATE FUNCTION durable_host.now_micros() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp())::double precision * 1000000)::bigint
$$;

-- A fact with few columns.
CREATE FUNCTION durable_host.fact(
    a_kind integer, a_ref bigint, a_lease bigint, a_at bigint, a_message text
) RETURNS durable_host.answer LANGUAGE sql IMMUTABLE AS $$
    SELECT ROW(a_kind, a_ref, a_lease, a_at, NULL, NULL, NULL, NULL, NULL, NULL, a_message, NULL, NULL, NULL, NULL)::durable_host.answer
$$;

-- Lock the rows of instances, and make places for those that do not exist.
CREATE FUNCTION durable_host.lock_rows(a_hub integer, a_ids text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_wanted bigint;
    v_found bigint;
    v_made bigint;
BEGIN
    PERFORM 1
    FROM (SELECT DISTINCT u.id COLLATE "C" AS id FROM unnest(a_ids) AS u (id) ORDER BY 1) AS u
    CROSS JOIN LATERAL (
        SELECT 1 FROM durable_host.instances i WHERE i.hub = a_hub AND i.instance_id = u.id FOR UPDATE
    ) AS l;
    GET DIAGNOSTICS v_found = ROW_COUNT;
    SELECT count(DISTINCT id) INTO v_wanted FROM unnest(a_ids) AS id;
    IF v_found < v_wanted THEN
        INSERT INTO durable_host.instances (hub, instance_id)
        SELECT DISTINCT a_hub, id FROM unnest(a_ids) AS id
        WHERE NOT EXISTS (SELECT 1 FROM durable_host.instances WHERE hub = a_hub AND instance_id = id)
        ORDER BY id
        ON CONFLICT (hub, instance_id) DO NOTHING;
        GET DIAGNOSTICS v_made = ROW_COUNT;
        IF v_found + v_made < v_wanted THEN
            -- Somebody made the same row meanwhile. Waiting for it here could be waiting in a circle.
            RAISE EXCEPTION 'an instance was created at the same time' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
END
$$;

-- Give activities that instances carry rows of their own, as they stand; says when the first of their leases ends. Whatever
-- is more than the next step of the instance comes here first: an instance whose lease may change carries nothing.
CREATE FUNCTION durable_host.unload(a_refs bigint[]) RETURNS bigint LANGUAGE sql AS $$
    WITH carrying AS (
        SELECT i.ref, i.hub, i.carried_lease, i.carried_until, i.carried_at, i.carried_id, i.carried_task
        FROM durable_host.instances i WHERE i.ref = ANY (a_refs) AND i.carried_id IS NOT NULL
        ORDER BY i.instance_id FOR UPDATE
    ), emptied AS (
        UPDATE durable_host.instances i SET carried_id = NULL, carried_task = NULL
        FROM carrying c WHERE i.ref = c.ref
    ), added AS (
        INSERT INTO durable_host.activities (ref, wake_at, lease, created_at, hub, deliveries, dispatch_id, task)
        SELECT c.ref, c.carried_until, c.carried_lease, c.carried_at, c.hub, 0, c.carried_id, c.carried_task
        FROM carrying c
        ON CONFLICT (hub, dispatch_id) DO NOTHING
        RETURNING activities.wake_at
    )
    SELECT min(added.wake_at) FROM added
$$;

-- Put messages into inboxes and wake who sleeps. The rows are locked.
CREATE FUNCTION durable_host.deliver(
    a_hub integer, a_now bigint,
    a_targets text[], a_ids text[], a_executions text[], a_visible bigint[], a_events bytea[]
) RETURNS SETOF durable_host.answer LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    WITH stored AS (
        INSERT INTO durable_host.messages (hub, ref, due, arrived_at, visible_at, id, execution_id, event)
        SELECT a_hub, i.ref, greatest(m.visible_at, a_now), a_now, m.visible_at, m.id, m.execution_id, m.event
        FROM unnest(a_targets, a_ids, a_executions, a_visible, a_events)
            WITH ORDINALITY AS m (target, id, execution_id, visible_at, event, at)
        CROSS JOIN LATERAL (
            SELECT t.ref FROM durable_host.instances t WHERE t.hub = a_hub AND t.instance_id = m.target OFFSET 0
        ) AS i
        ORDER BY m.at
        ON CONFLICT (ref, id) DO NOTHING
        RETURNING messages.ref, messages.due
    ), earliest AS (
        SELECT stored.ref, min(stored.due) AS due FROM stored GROUP BY stored.ref
    ), woken AS (
        UPDATE durable_host.instances i SET wake_at = e.due
        FROM earliest e
        WHERE i.ref = e.ref AND i.quarantined IS NULL AND NOT (coalesce(i.lease, 0) > 0 AND i.wake_at > a_now)
            AND (i.wake_at IS NULL OR e.due < i.wake_at)
        RETURNING e.due
    )
    SELECT (durable_host.fact(5, NULL, NULL, min(woken.due) - a_now, NULL)).* FROM woken HAVING count(*) > 0
    UNION ALL
    SELECT (durable_host.fact(4, i.ref, i.lease, e.due - a_now, NULL)).*
    FROM earliest e JOIN durable_host.instances i ON i.ref = e.ref
    WHERE i.lease > 0 AND coalesce(i.wake_at, 0) > a_now;
END
$$;

-- Lock eligible instances, the longest waiting first, with what is visible in their inboxes.
CREATE FUNCTION durable_host.lock_instances(
    a_hub integer, a_now bigint, a_room integer, a_lease bigint, a_length bigint
) RETURNS SETOF durable_host.answer LANGUAGE plpgsql AS $$
DECLARE
    v_chosen bigint[];
    v_carrying bigint[];
    v_ready bigint[];
    v_idle bigint[];
BEGIN
    SELECT array_agg(c.ref), array_agg(c.ref) FILTER (WHERE c.carried_id IS NOT NULL) INTO v_chosen, v_carrying FROM (
        SELECT i.ref, i.carried_id FROM durable_host.instances i
        WHERE i.hub = a_hub AND i.wake_at <= a_now
        ORDER BY i.wake_at LIMIT a_room FOR UPDATE SKIP LOCKED
    ) c;
    IF v_chosen IS NULL THEN
        RETURN;
    END IF;
    IF v_carrying IS NOT NULL THEN
        RETURN QUERY
        SELECT (durable_host.fact(12, NULL, NULL, u.until - a_now, NULL)).*
        FROM durable_host.unload(v_carrying) AS u (until) WHERE u.until IS NOT NULL;
    END IF;
    SELECT array_agg(c.ref ORDER BY c.at) FILTER (WHERE c.ready), array_agg(c.ref) FILTER (WHERE NOT c.ready)
    INTO v_ready, v_idle
    FROM (
        SELECT u.ref, u.at, EXISTS (
            SELECT 1 FROM durable_host.messages m WHERE m.ref = u.ref AND m.due <= a_now
        ) AS ready
        FROM unnest(v_chosen) WITH ORDINALITY AS u (ref, at)
    ) c;
    IF v_idle IS NOT NULL THEN
        -- Leases that have ended while nothing waits; they stay current until somebody takes the instance.
        UPDATE durable_host.instances i
        SET lease = -abs(i.lease), wake_at = (SELECT min(m.due) FROM durable_host.messages m WHERE m.ref = i.ref)
        WHERE i.ref = ANY (v_idle);
        PERFORM durable_host.drop_places(v_idle);
    END IF;
    IF v_ready IS NULL THEN
        RETURN;
    END IF;
    UPDATE durable_host.instances i SET lease = a_lease, wake_at = a_now + a_length WHERE i.ref = ANY (v_ready);
    -- What is handed over, in the transaction that made it, was not fetched.
    UPDATE durable_host.messages m SET deliveries = m.deliveries + 1
    WHERE m.ref = ANY (v_ready) AND m.due <= a_now AND m.xmin <> pg_current_xact_id()::xid;
    RETURN QUERY
    SELECT 6, i.ref, a_lease, 0::bigint, i.instance_id, i.generation, i.length, i.status, i.execution_id,
        m.seq, m.id, m.execution_id, m.event, m.visible_at, m.deliveries
    FROM unnest(v_ready) WITH ORDINALITY AS u (ref, at)
    JOIN durable_host.instances i ON i.ref = u.ref
    JOIN durable_host.messages m ON m.ref = u.ref AND m.due <= a_now
    ORDER BY u.at, m.due, m.seq;
    RETURN QUERY
    SELECT (durable_host.fact(7, m.ref, NULL, min(m.due) - a_now, NULL)).*
    FROM durable_host.messages m WHERE m.ref = ANY (v_ready) AND m.due > a_now GROUP BY m.ref;
END
$$;

-- Places for messages to instances that never ran, once their inbox is empty.
CREATE FUNCTION durable_host.drop_places(a_refs bigint[]) RETURNS void LANGUAGE sql AS $$
    DELETE FROM durable_host.instances i
    WHERE i.ref = ANY (a_refs) AND i.state IS NULL AND coalesce(i.lease, 0) <= 0 AND i.quarantined IS NULL
        AND NOT EXISTS (SELECT 1 FROM durable_host.messages m WHERE m.ref = i.ref)
$$;

-- What has arrived for held instances, and eligible instances as far as there is room after that.
CREATE FUNCTION durable_host.fetch_instances(
    a_hub integer, a_room integer, a_lease bigint, a_length bigint,
    a_refs bigint[], a_leases bigint[], a_given bigint[]
) RETURNS SETOF durable_host.answer LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := durable_host.now_micros();
    v_live bigint[];
    v_next bigint;
    v_given bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true); -- leases need not outlive the server
    IF cardinality(a_refs) > 0 THEN
        -- A lease that has ended may be anybody's next; if it is renewed, there will be another look.
        SELECT array_agg(i.ref) INTO v_live
        FROM unnest(a_refs, a_leases) AS u (ref, lease)
        JOIN durable_host.instances i ON i.ref = u.ref AND i.lease = u.lease AND coalesce(i.wake_at, 0) > v_now;
    END IF;
    IF v_live IS NOT NULL THEN
        RETURN QUERY
        WITH arrived AS (
            UPDATE durable_host.messages m SET deliveries = m.deliveries + 1
            WHERE m.ref = ANY (v_live) AND m.due <= v_now AND m.seq <> ALL (a_given)
            RETURNING m.ref, m.seq, m.id, m.execution_id, m.event, m.visible_at, m.deliveries, m.due
        )
        SELECT 6, i.ref, i.lease, 0::bigint, i.instance_id, i.generation, i.length, i.status, i.execution_id,
            a.seq, a.id, a.execution_id, a.event, a.visible_at, a.deliveries
        FROM arrived a JOIN durable_host.instances i ON i.ref = a.ref
        ORDER BY i.ref, a.due, a.seq;
        RETURN QUERY
        SELECT (durable_host.fact(7, m.ref, NULL, min(m.due) - v_now, NULL)).*
        FROM durable_host.messages m WHERE m.ref = ANY (v_live) AND m.due > v_now GROUP BY m.ref;
    END IF;
    IF a_room > 0 THEN
        RETURN QUERY SELECT * FROM durable_host.lock_instances(a_hub, v_now, a_room, a_lease, a_length);
    END IF;
    SELECT i.wake_at INTO v_next FROM durable_host.instances i
    WHERE i.hub = a_hub AND i.wake_at > v_now ORDER BY i.wake_at LIMIT 1;
    IF v_next IS NOT NULL THEN
        RETURN QUERY SELECT (durable_host.fact(5, NULL, NULL, v_next - v_now, NULL)).*;
    END IF;
END
$$;

-- Lock activities, the oldest first.
CREATE FUNCTION durable_host.fetch_activities(
    a_hub integer, a_room integer, a_lease bigint, a_length bigint
) RETURNS SETOF durable_host.answer LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := durable_host.now_micros();
    v_carrying bigint[];
    v_next bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true); -- leases need not outlive the server
    -- What an instance carries whose lease has ended. Who locks instances sees to it as well; so the first few will do.
    SELECT array_agg(i.ref) INTO v_carrying FROM (
        SELECT i.ref, i.carried_id FROM durable_host.instances i
        WHERE i.hub = a_hub AND i.wake_at <= v_now
        ORDER BY i.wake_at LIMIT 32
    ) AS i WHERE i.carried_id IS NOT NULL;
    IF v_carrying IS NOT NULL THEN
        -- Whose row somebody has locked may be long about it.
        SELECT array_agg(f.ref) INTO v_carrying FROM (
            SELECT i.ref FROM durable_host.instances i WHERE i.ref = ANY (v_carrying) FOR UPDATE SKIP LOCKED
        ) f;
        RETURN QUERY
        SELECT (durable_host.fact(12, NULL, NULL, u.until - v_now, NULL)).*
        FROM durable_host.unload(v_carrying) AS u (until) WHERE u.until IS NOT NULL;
    END IF;
    RETURN QUERY
    WITH chosen AS MATERIALIZED (
        SELECT a.dispatch_id FROM durable_host.activities a
        WHERE a.hub = a_hub AND a.wake_at <= v_now
        ORDER BY a.wake_at, a.seq LIMIT a_room FOR UPDATE SKIP LOCKED
    ), locked AS (
        UPDATE durable_host.activities a
        SET lease = a_lease, wake_at = v_now + a_length, deliveries = a.deliveries + 1
        FROM chosen c WHERE a.hub = a_hub AND a.dispatch_id = c.dispatch_id
        RETURNING a.ref, a.seq, a.dispatch_id, a.task, a.deliveries
    )
    SELECT 10, l.ref, a_lease, NULL::bigint, NULL, NULL::integer, NULL::integer, NULL, NULL, l.seq, l.dispatch_id, NULL,
        l.task, NULL::bigint, l.deliveries
    FROM locked l ORDER BY l.seq;
    SELECT a.wake_at INTO v_next FROM durable_host.activities a
    WHERE a.hub = a_hub AND a.wake_at > v_now ORDER BY a.wake_at LIMIT 1;
    SELECT least(v_next, min(i.wake_at)) INTO v_next FROM (
        SELECT i.wake_at, i.carried_id FROM durable_host.instances i
        WHERE i.hub = a_hub AND i.wake_at > v_now
        ORDER BY i.wake_at LIMIT 8
    ) AS i WHERE i.carried_id IS NOT NULL;
    IF v_next IS NOT NULL THEN
        RETURN QUERY SELECT (durable_host.fact(5, NULL, NULL, v_next - v_now, NULL)).*;
    END IF;
END
$$;

-- Apply checkpoints, all of them or none: if one is not to be applied, the answer says which, and nothing is written.
--   c_*   checkpoints: fence, then projection. mode 0: none, 1: write it, 2: only if it uncovers what a start covers that
--         is among b_*. expected: the execution that the row shows, when the input is not brought along.
--   r_*   whose history is replaced; e_*: events to append; w_*: runs with amended events
--   x_*   consumed messages by number, y_*: by id; d_*: deferred
--   f_ids activities whose results are folded in; a_*: activities to add, the first a_locked of them with a lease
--   m_*   messages; g_*: tags in place of those of g_refs
--   look  held instances whose inbox may hold more; empty: instances that may be places with nothing left in them
--   room  how many instances to lock for those who wait
CREATE FUNCTION durable_host.commit(
    a_hub integer, a_lease bigint, a_length bigint,
    c_ref bigint[], c_lease bigint[], c_generation integer[], c_events integer[], c_expected text[],
    c_hold boolean[], c_mode integer[], p_generation integer[], p_length integer[], p_updated bigint[],
    p_created bigint[], p_settled boolean[], p_status text[], p_execution text[], p_name text[], p_parent text[],
    p_state bytea[], p_output bytea[], p_custom bytea[], p_failure bytea[], p_bring boolean[], p_input bytea[],
    b_ref bigint[], b_id text[],
    r_ref bigint[], e_ref bigint[], e_first integer[], e_events bytea[],
    w_ref bigint[], w_first integer[], w_events bytea[],
    x_seq bigint[], y_ref bigint[], y_id text[], d_ref bigint[], d_id text[],
    f_ids text[], a_ref bigint[], a_id text[], a_task bytea[], a_locked integer,
    m_target text[], m_id text[], m_execution text[], m_visible bigint[], m_event bytea[],
    g_refs bigint[], g_ref bigint[], g_name bytea[], g_value bytea[],
    a_look bigint[], a_empty bigint[], a_room integer
) RETURNS SETOF durable_host.answer LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := durable_host.now_micros();
    v_until bigint;
    v_passed bigint[];
    v_carrying bigint[];
    v_mode integer[] := c_mode;
    v_count bigint;
BEGIN
    v_until := v_now + a_length;
    IF cardinality(m_target) > 0 THEN
        PERFORM durable_host.lock_rows(a_hub, m_target || ARRAY(
            SELECT i.instance_id FROM durable_host.instances i WHERE i.ref = ANY (c_ref)
        ));
    END IF;
    SELECT array_agg(f.ref), array_agg(f.ref) FILTER (WHERE f.carried_id IS NOT NULL) INTO v_passed, v_carrying FROM (
        SELECT i.ref, i.carried_id
        FROM unnest(c_ref, c_lease, c_generation, c_events, c_expected) AS c (ref, lease, generation, length, expected)
        JOIN durable_host.instances i ON i.ref = c.ref
        WHERE abs(i.lease) = c.lease AND i.generation IS NOT DISTINCT FROM c.generation
            AND i.length IS NOT DISTINCT FROM c.length
            AND (c.expected IS NULL OR i.execution_id = c.expected)
        ORDER BY i.instance_id FOR UPDATE OF i
    ) f;
    IF coalesce(cardinality(v_passed), 0) < cardinality(c_ref) THEN
        RETURN QUERY
        SELECT (durable_host.fact(CASE WHEN i.ref IS NULL THEN 1 ELSE 2 END, c.ref, NULL, NULL, NULL)).*
        FROM unnest(c_ref, c_lease, c_generation, c_events) AS c (ref, lease, generation, length)
        LEFT JOIN durable_host.instances i ON i.ref = c.ref AND abs(i.lease) = c.lease
            AND i.generation IS NOT DISTINCT FROM c.generation AND i.length IS NOT DISTINCT FROM c.length
        WHERE v_passed IS NULL OR c.ref <> ALL (v_passed);
        IF cardinality(m_target) > 0 THEN
            -- Nothing is sent, and the places that were made for it go again.
            PERFORM durable_host.drop_places(ARRAY(
                SELECT i.ref FROM durable_host.instances i
                WHERE i.hub = a_hub AND i.instance_id = ANY (m_target) AND i.state IS NULL
            ));
        END IF;
        RETURN;
    END IF;

    IF v_carrying IS NOT NULL THEN
        PERFORM durable_host.unload(v_carrying);
    END IF;
    IF cardinality(r_ref) > 0 THEN
        DELETE FROM durable_host.history h WHERE h.ref = ANY (r_ref);
    END IF;
    IF cardinality(e_ref) > 0 THEN
        INSERT INTO durable_host.history (ref, first, events) SELECT * FROM unnest(e_ref, e_first, e_events);
    END IF;
    IF cardinality(w_ref) > 0 THEN
        UPDATE durable_host.history h SET events = w.events
        FROM unnest(w_ref, w_first, w_events) AS w (ref, first, events) WHERE h.ref = w.ref AND h.first = w.first;
    END IF;
    IF cardinality(x_seq) > 0 THEN
        DELETE FROM durable_host.messages m WHERE m.seq = ANY (x_seq);
    END IF;
    IF cardinality(y_ref) > 0 THEN
        DELETE FROM durable_host.messages m USING unnest(y_ref, y_id) AS y (ref, id) WHERE m.ref = y.ref AND m.id = y.id;
    END IF;
    IF cardinality(d_ref) > 0 THEN
        UPDATE durable_host.messages m SET due = v_now + least(1 << least(m.deliveries, 10), 600) * 1000000::bigint
        FROM unnest(d_ref, d_id) AS d (ref, id) WHERE m.ref = d.ref AND m.id = d.id;
    END IF;
    IF cardinality(f_ids) > 0 THEN
        DELETE FROM durable_host.activities a WHERE a.hub = a_hub AND a.dispatch_id = ANY (f_ids);
    END IF;
    IF cardinality(a_ref) > 0 THEN
        INSERT INTO durable_host.activities (ref, wake_at, lease, created_at, hub, deliveries, dispatch_id, task)
        SELECT a.ref, CASE WHEN a.at <= a_locked THEN v_until ELSE v_now END,
            CASE WHEN a.at <= a_locked THEN a_lease END, v_now, a_hub, 0, a.id, a.task
        FROM unnest(a_ref, a_id, a_task) WITH ORDINALITY AS a (ref, id, task, at)
        ORDER BY a.at
        ON CONFLICT (hub, dispatch_id) DO NOTHING;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        IF v_count < cardinality(a_ref) THEN
            -- Those that waited already are not handed over. The lease tells which are ours: no other call has it.
            RETURN QUERY
            SELECT (durable_host.fact(3, NULL, NULL, NULL, u.id)).*
            FROM unnest(a_id) WITH ORDINALITY AS u (id, at)
            WHERE u.at <= a_locked AND NOT EXISTS (
                SELECT 1 FROM durable_host.activities a
                WHERE a.hub = a_hub AND a.dispatch_id = u.id AND a.lease = a_lease
            );
        END IF;
    END IF;
    IF cardinality(m_target) > 0 THEN
        RETURN QUERY SELECT * FROM durable_host.deliver(a_hub, v_now, m_target, m_id, m_execution, m_visible, m_event);
    END IF;
    IF cardinality(g_refs) > 0 THEN
        DELETE FROM durable_host.tags t WHERE t.ref = ANY (g_refs);
        INSERT INTO durable_host.tags (ref, name, value) SELECT * FROM unnest(g_ref, g_name, g_value);
    END IF;

    IF 2 = ANY (c_mode) THEN
        SELECT array_agg(CASE
            WHEN c.mode <> 2 THEN c.mode
            WHEN i.state IS NULL THEN 1
            WHEN i.pending AND EXISTS (
                SELECT 1 FROM unnest(b_ref, b_id) AS b (ref, id) WHERE b.ref = c.ref AND b.id = i.start_id
            ) THEN 1
            ELSE 0
        END ORDER BY c.at) INTO v_mode
        FROM unnest(c_ref, c_mode) WITH ORDINALITY AS c (ref, mode, at) JOIN durable_host.instances i ON i.ref = c.ref;
        RETURN QUERY
        SELECT (durable_host.fact(9, c.ref, NULL, NULL, NULL)).*
        FROM unnest(c_ref, c_mode, v_mode) AS c (ref, before, after) WHERE c.before = 2 AND c.after = 1;
    END IF;
    IF 1 = ANY (v_mode) THEN
        UPDATE durable_host.instances i SET
            generation = c.generation, length = c.length, updated_at = c.updated, created_at = c.created,
            settled_at = CASE WHEN c.settled THEN c.updated END, pending = false,
            status = c.status, execution_id = c.execution, name = c.name, parent_id = c.parent,
            state = c.state, output = c.output, custom_status = c.custom, failure = c.failure,
            input = CASE WHEN c.bring THEN c.input ELSE i.input END,
            lease = CASE WHEN c.hold THEN abs(i.lease) END,
            wake_at = CASE
                WHEN NOT c.hold THEN (SELECT min(m.due) FROM durable_host.messages m WHERE m.ref = i.ref)
                WHEN i.wake_at > v_now AND i.lease > 0 THEN i.wake_at
                ELSE v_until
            END
        FROM unnest(
            c_ref, v_mode, c_hold, p_generation, p_length, p_updated, p_created, p_settled, p_status, p_execution,
            p_name, p_parent, p_state, p_output, p_custom, p_failure, p_bring, p_input
        ) AS c (
            ref, mode, hold, generation, length, updated, created, settled, status, execution, name, parent, state,
            output, custom, failure, bring, input
        )
        WHERE i.ref = c.ref AND c.mode = 1;
    END IF;
    IF 0 = ANY (v_mode) THEN
        UPDATE durable_host.instances i SET
            lease = CASE WHEN c.hold THEN abs(i.lease) END,
            wake_at = CASE
                WHEN NOT c.hold THEN (SELECT min(m.due) FROM durable_host.messages m WHERE m.ref = i.ref)
                WHEN i.wake_at > v_now AND i.lease > 0 THEN i.wake_at
                ELSE v_until
            END
        FROM unnest(c_ref, v_mode, c_hold) AS c (ref, mode, hold) WHERE i.ref = c.ref AND c.mode = 0;
    END IF;
    IF cardinality(a_empty) > 0 THEN
        PERFORM durable_host.drop_places(a_empty);
    END IF;
    IF cardinality(a_look) > 0 THEN
        RETURN QUERY
        SELECT (durable_host.fact(7, m.ref, NULL, min(m.due) - v_now, NULL)).*
        FROM durable_host.messages m WHERE m.ref = ANY (a_look) GROUP BY m.ref;
    END IF;
    IF a_room > 0 THEN
        RETURN QUERY SELECT * FROM durable_host.lock_instances(a_hub, v_now, a_room, a_lease, a_length);
    END IF;
    IF false = ANY (c_hold) THEN
        -- What was released may want a worker again.
        RETURN QUERY
        SELECT (durable_host.fact(5, NULL, NULL, min(i.wake_at) - v_now, NULL)).*
        FROM unnest(c_ref, c_hold) AS c (ref, hold) JOIN durable_host.instances i ON i.ref = c.ref
        WHERE NOT c.hold AND coalesce(i.wake_at, 0) > 0 AND i.lease IS NULL HAVING count(*) > 0;
    END IF;
END
$$;

-- The usual step of instances that stay locked: of the same execution, and it sends nothing; or the first one of an
-- execution that was created with its projection. Rows come in the order of ids. If one is not as its worker remembers it,
-- an error undoes everything, and `commit` finds out why. Touches no index of the instances while the status stays.
--   c_carried   the activity that the instance carries, which is folded in, or NULL
CREATE FUNCTION durable_host.step(
    a_hub integer, a_lease bigint, a_length bigint,
    c_ref bigint[], c_lease bigint[], c_generation integer[], c_events integer[], c_execution text[], c_status text[],
    p_generation integer[], p_length integer[], p_updated bigint[], p_state bytea[], p_custom bytea[],
    c_carried text[], p_status text[], e_events bytea[], y_ref bigint[], y_id text[], f_ids text[], a_ref bigint[],
    a_id text[], a_task bytea[], a_locked integer
) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := durable_host.now_micros();
    v_count bigint;
BEGIN
    UPDATE durable_host.instances i SET
        generation = c.new_generation, length = c.length, updated_at = c.updated, state = c.state,
        custom_status = c.custom, status = c.new_status, pending = false, carried_id = NULL, carried_task = NULL
    FROM unnest(
        c_ref, c_lease, c_generation, c_events, c_execution, c_status, p_generation, p_length, p_updated, p_state,
        p_custom, c_carried, p_status
    ) AS c (
        ref, lease, generation, base, execution, status, new_generation, length, updated, state, custom, carried,
        new_status
    )
    WHERE i.ref = c.ref AND i.lease = c.lease AND coalesce(i.wake_at, 0) > v_now
        AND i.generation IS NOT DISTINCT FROM c.generation AND i.length IS NOT DISTINCT FROM c.base
        AND i.execution_id = c.execution AND i.status = c.status AND i.carried_id IS NOT DISTINCT FROM c.carried;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count < cardinality(c_ref) THEN
        RAISE EXCEPTION 'not as remembered' USING ERRCODE = 'DH001';
    END IF;
    INSERT INTO durable_host.history (ref, first, events)
    SELECT c.ref, coalesce(c.base, 0), c.events FROM unnest(c_ref, c_events, e_events) AS c (ref, base, events);
    IF cardinality(y_ref) > 0 THEN
        DELETE FROM durable_host.messages m USING unnest(y_ref, y_id) AS y (ref, id) WHERE m.ref = y.ref AND m.id = y.id;
    END IF;
    IF cardinality(f_ids) > 0 THEN
        DELETE FROM durable_host.activities a WHERE a.hub = a_hub AND a.dispatch_id = ANY (f_ids);
    END IF;
    IF cardinality(a_ref) > 0 THEN
        INSERT INTO durable_host.activities (ref, wake_at, lease, created_at, hub, deliveries, dispatch_id, task)
        SELECT a.ref, CASE WHEN a.at <= a_locked THEN v_now + a_length ELSE v_now END,
            CASE WHEN a.at <= a_locked THEN a_lease END, v_now, a_hub, 0, a.id, a.task
        FROM unnest(a_ref, a_id, a_task) WITH ORDINALITY AS a (ref, id, task, at)
        ORDER BY a.at
        ON CONFLICT (hub, dispatch_id) DO NOTHING;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        IF v_count < cardinality(a_ref) THEN
            RETURN QUERY SELECT u.id FROM unnest(a_id) WITH ORDINALITY AS u (id, at)
            WHERE u.at <= a_locked AND NOT EXISTS (
                SELECT 1 FROM durable_host.activities a
                WHERE a.hub = a_hub AND a.dispatch_id = u.id AND a.lease = a_lease
            );
        END IF;
    END IF;
END
$$;

-- The usual last step of one instance: it sends nothing, and the instance is locked no more. Tells that the row is not as
-- its worker remembers it (then nothing happens), or when the instance wants a worker again. An activity that is folded
-- in is either carried or f_id.
CREATE FUNCTION durable_host.last_step(
    a_hub integer, a_lease bigint, a_length bigint,
    c_ref bigint, c_lease bigint, c_generation integer, c_events integer, c_execution text, c_status text,
    p_generation integer, p_length integer, p_updated bigint, p_settled boolean, p_status text, p_state bytea,
    p_output bytea, p_custom bytea, p_failure bytea, e_events bytea, y_id text, f_id text, c_carried text
) RETURNS SETOF durable_host.answer LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := durable_host.now_micros();
    v_due bigint;
BEGIN
    UPDATE durable_host.instances i SET
        generation = p_generation, length = p_length, updated_at = p_updated,
        settled_at = CASE WHEN p_settled THEN p_updated END, pending = false, status = p_status, state = p_state,
        output = p_output, custom_status = p_custom, failure = p_failure, lease = NULL, wake_at = NULL,
        carried_id = NULL, carried_task = NULL
    WHERE i.ref = c_ref AND i.lease = c_lease AND coalesce(i.wake_at, 0) > v_now
        AND i.generation IS NOT DISTINCT FROM c_generation AND i.length IS NOT DISTINCT FROM c_events
        AND i.execution_id = c_execution AND i.status = c_status AND i.carried_id IS NOT DISTINCT FROM c_carried;
    IF NOT FOUND THEN
        RETURN QUERY SELECT (durable_host.fact(1, c_ref, NULL, NULL, NULL)).*;
        RETURN;
    END IF;
    INSERT INTO durable_host.history (ref, first, events) VALUES (c_ref, coalesce(c_events, 0), e_events);
    IF y_id IS NOT NULL THEN
        DELETE FROM durable_host.messages m WHERE m.ref = c_ref AND m.id = y_id;
    END IF;
    IF f_id IS NOT NULL THEN
        DELETE FROM durable_host.activities a WHERE a.hub = a_hub AND a.dispatch_id = f_id;
    END IF;
    -- Who sends locks the row first. So this statement, which begins after we have it, sees what came for the lease, and
    -- what comes later sees that there is none.
    SELECT min(m.due) INTO v_due FROM durable_host.messages m WHERE m.ref = c_ref;
    IF v_due IS NOT NULL THEN
        UPDATE durable_host.instances i SET wake_at = v_due WHERE i.ref = c_ref;
        RETURN QUERY SELECT (durable_host.fact(5, NULL, NULL, v_due - v_now, NULL)).*;
    END IF;
END
$$;

-- Send the replies of activities and remove their tasks, all of them or none: the answer says which leases are lost.
--   c_ref  instances that may carry one of them
CREATE FUNCTION durable_host.complete(
    a_hub integer, a_lease bigint, a_length bigint, c_id text[], c_lease bigint[], c_ref bigint[],
    m_target text[], m_id text[], m_execution text[], m_visible bigint[], m_event bytea[], a_room integer
) RETURNS SETOF durable_host.answer LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := durable_host.now_micros();
    v_passed text[];
BEGIN
    IF cardinality(c_ref) > 0 THEN
        PERFORM durable_host.lock_rows(a_hub, m_target || ARRAY(
            SELECT i.instance_id FROM durable_host.instances i WHERE i.ref = ANY (c_ref)
        ));
        PERFORM durable_host.unload(c_ref);
    ELSE
        PERFORM durable_host.lock_rows(a_hub, m_target);
    END IF;
    SELECT array_agg(f.dispatch_id) INTO v_passed FROM (
        SELECT l.dispatch_id
        FROM (SELECT u.id, u.lease FROM unnest(c_id, c_lease) AS u (id, lease) ORDER BY u.id COLLATE "C") AS c
        CROSS JOIN LATERAL (
            SELECT a.dispatch_id FROM durable_host.activities a
            WHERE a.hub = a_hub AND a.dispatch_id = c.id AND a.lease = c.lease FOR UPDATE
        ) AS l
    ) f;
    IF coalesce(cardinality(v_passed), 0) < cardinality(c_id) THEN
        RETURN QUERY
        SELECT (durable_host.fact(1, NULL, NULL, NULL, c.id)).* FROM unnest(c_id) AS c (id)
        WHERE v_passed IS NULL OR c.id <> ALL (v_passed);
        -- Nothing is sent, and the places that were made for it go again.
        PERFORM durable_host.drop_places(ARRAY(
            SELECT i.ref FROM durable_host.instances i
            WHERE i.hub = a_hub AND i.instance_id = ANY (m_target) AND i.state IS NULL
        ));
        RETURN;
    END IF;
    DELETE FROM durable_host.activities a WHERE a.hub = a_hub AND a.dispatch_id = ANY (c_id);
    RETURN QUERY SELECT * FROM durable_host.deliver(a_hub, v_now, m_target, m_id, m_execution, m_visible, m_event);
    IF a_room > 0 THEN
        RETURN QUERY SELECT * FROM durable_host.lock_instances(a_hub, v_now, a_room, a_lease, a_length);
    END IF;
END
$$;

-- Put messages into inboxes.
CREATE FUNCTION durable_host.send(
    a_hub integer, a_lease bigint, a_length bigint,
    m_target text[], m_id text[], m_execution text[], m_visible bigint[], m_event bytea[], a_room integer
) RETURNS SETOF durable_host.answer LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := durable_host.now_micros();
BEGIN
    PERFORM durable_host.lock_rows(a_hub, m_target);
    RETURN QUERY SELECT * FROM durable_host.deliver(a_hub, v_now, m_target, m_id, m_execution, m_visible, m_event);
    IF a_room > 0 THEN
        RETURN QUERY SELECT * FROM durable_host.lock_instances(a_hub, v_now, a_room, a_lease, a_length);
    END IF;
END
$$;

-- Store starts and their Pending projections, unless an instance stands in the way. The first a_locked of them get a
-- lease with it, as far as they are new and due.
CREATE FUNCTION durable_host.start(
    a_hub integer, a_lease bigint, a_length bigint, a_locked integer,
    s_id text[], s_message text[], s_to text[], s_visible bigint[], s_event bytea[], s_status text[],
    s_execution text[], s_name text[], s_parent text[], s_created bigint[], s_state bytea[], s_input bytea[],
    s_replaceable text[], g_message text[], g_name bytea[], g_value bytea[]
) RETURNS SETOF durable_host.answer LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := durable_host.now_micros();
    v_refs bigint[];
    v_messages text[];
    v_leases bigint[];
    v_start record;
    v_found record;
BEGIN
    WITH fresh AS (
        INSERT INTO durable_host.instances (
            hub, instance_id, wake_at, lease, start_id, status, execution_id, name, parent_id, created_at, updated_at,
            pending, state, input
        )
        SELECT a_hub, s.id,
            CASE WHEN s.at <= a_locked AND s.visible IS NULL THEN v_now + a_length ELSE greatest(s.visible, v_now) END,
            CASE WHEN s.at <= a_locked AND s.visible IS NULL THEN a_lease END,
            s.message, s.status, s.execution, s.name, s.parent, s.created, s.created, true, s.state, s.input
        FROM unnest(
            s_id, s_message, s_visible, s_status, s_execution, s_name, s_parent, s_created, s_state, s_input
        ) WITH ORDINALITY AS s (id, message, visible, status, execution, name, parent, created, state, input, at)
        ORDER BY s.id, s.at
        ON CONFLICT (hub, instance_id) DO NOTHING
        RETURNING instances.ref, instances.start_id, instances.lease
    ), placed AS (
        INSERT INTO durable_host.messages (hub, ref, due, arrived_at, visible_at, id, execution_id, event)
        SELECT a_hub, f.ref, greatest(s.visible, v_now), v_now, s.visible, s.message, s.execution, s.event
        FROM unnest(s_message, s_visible, s_to, s_event) WITH ORDINALITY AS s (message, visible, execution, event, at)
        JOIN fresh f ON f.start_id = s.message
        ORDER BY s.at
        ON CONFLICT (ref, id) DO NOTHING
    )
    SELECT array_agg(f.ref), array_agg(f.start_id), array_agg(f.lease) INTO v_refs, v_messages, v_leases FROM fresh f;
    v_refs := coalesce(v_refs, '{}');
    v_messages := coalesce(v_messages, '{}');
    RETURN QUERY
    SELECT (durable_host.fact(8, f.ref, f.lease, NULL, f.message)).*
    FROM unnest(v_refs, v_messages, v_leases) AS f (ref, message, lease);
    IF cardinality(v_refs) < cardinality(s_id) THEN
        FOR v_start IN
            SELECT s.* FROM unnest(
                s_id, s_message, s_to, s_visible, s_event, s_status, s_execution, s_name, s_parent, s_created, s_state,
                s_input, s_replaceable
            ) WITH ORDINALITY AS s (
                id, message, execution_to, visible, event, status, execution, name, parent, created, state, input,
                replaceable, at
            )
            WHERE s.message <> ALL (v_messages) ORDER BY s.id, s.at
        LOOP
            SELECT i.ref, i.status, i.start_id, i.quarantined INTO v_found FROM durable_host.instances i
            WHERE i.hub = a_hub AND i.instance_id = v_start.id FOR UPDATE;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'an instance was removed at the same time' USING ERRCODE = 'serialization_failure';
            END IF;
            IF v_found.start_id = v_start.message THEN
                -- The same start again: it hears what it heard before.
                RETURN QUERY SELECT (durable_host.fact(8, NULL, NULL, NULL, v_start.message)).*;
            ELSIF v_found.quarantined IS NULL AND (
                v_found.status IS NULL OR v_found.status = ANY (string_to_array(v_start.replaceable, ','))
            ) THEN
                UPDATE durable_host.instances i SET
                    start_id = v_start.message, status = v_start.status, execution_id = v_start.execution,
                    name = v_start.name, parent_id = v_start.parent, created_at = v_start.created,
                    updated_at = v_start.created, settled_at = NULL, pending = true, state = v_start.state,
                    input = v_start.input, output = NULL, custom_status = NULL, failure = NULL
                WHERE i.ref = v_found.ref;
                DELETE FROM durable_host.tags t WHERE t.ref = v_found.ref;
                RETURN QUERY SELECT * FROM durable_host.deliver(
                    a_hub, v_now, ARRAY[v_start.id], ARRAY[v_start.message], ARRAY[v_start.execution_to],
                    ARRAY[v_start.visible], ARRAY[v_start.event]
                );
                RETURN QUERY SELECT (durable_host.fact(8, v_found.ref, NULL, NULL, v_start.message)).*;
                v_refs := v_refs || v_found.ref;
                v_messages := v_messages || v_start.message;
            END IF;
        END LOOP;
    END IF;
    IF cardinality(g_message) > 0 THEN
        INSERT INTO durable_host.tags (ref, name, value)
        SELECT f.ref, g.name, g.value
        FROM unnest(g_message, g_name, g_value) AS g (message, name, value)
        JOIN unnest(v_refs, v_messages) AS f (ref, message) ON f.message = g.message
        ON CONFLICT (ref, name) DO UPDATE SET value = excluded.value;
    END IF;
END
$$;

-- Lock instances, and give what they carry rows of its own. In two statements: a condition on what a subquery has locked is
-- evaluated before the lock.
CREATE FUNCTION durable_host.lock_and_unload(a_refs bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM durable_host.instances i WHERE i.ref = ANY (a_refs) ORDER BY i.instance_id FOR UPDATE;
    PERFORM durable_host.unload(a_refs);
END
$$;

-- Extend leases that are current, also those that have ended if nobody has taken the work since.
--   t_ref  instances that may carry one of the activities
CREATE FUNCTION durable_host.renew(
    a_hub integer, a_length bigint, i_ref bigint[], i_lease bigint[], t_id text[], t_lease bigint[], t_ref bigint[]
) RETURNS SETOF durable_host.answer LANGUAGE plpgsql AS $$
DECLARE
    v_until bigint := durable_host.now_micros() + a_length;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM durable_host.lock_and_unload(i_ref || t_ref);
    IF cardinality(i_ref) > 0 THEN
        RETURN QUERY
        WITH extended AS (
            UPDATE durable_host.instances i SET lease = u.lease, wake_at = v_until
            FROM unnest(i_ref, i_lease) AS u (ref, lease) WHERE i.ref = u.ref AND abs(i.lease) = u.lease
            RETURNING i.ref, i.lease
        )
        SELECT (durable_host.fact(11, e.ref, e.lease, NULL, NULL)).* FROM extended e;
    END IF;
    IF cardinality(t_id) > 0 THEN
        PERFORM 1
        FROM (SELECT t.id, t.lease FROM unnest(t_id, t_lease) AS t (id, lease) ORDER BY t.id COLLATE "C") AS u
        CROSS JOIN LATERAL (
            SELECT 1 FROM durable_host.activities a
            WHERE a.hub = a_hub AND a.dispatch_id = u.id AND a.lease = u.lease FOR UPDATE
        ) AS l;
        RETURN QUERY
        WITH extended AS (
            UPDATE durable_host.activities a SET wake_at = v_until
            FROM unnest(t_id, t_lease) AS u (id, lease)
            WHERE a.hub = a_hub AND a.dispatch_id = u.id AND a.lease = u.lease
            RETURNING a.dispatch_id, a.lease
        )
        SELECT (durable_host.fact(11, NULL, e.lease, NULL, e.dispatch_id)).* FROM extended e;
    END IF;
END
$$;

-- Give work back whose lease is current; what i_waits says comes back after the delay, or with the next message before.
--   t_ref  instances that may carry one of the activities
CREATE FUNCTION durable_host.abandon(
    a_hub integer, a_delay bigint, i_ref bigint[], i_lease bigint[], i_waits boolean[], t_id text[], t_lease bigint[],
    t_ref bigint[]
) RETURNS SETOF durable_host.answer LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := durable_host.now_micros();
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM durable_host.lock_and_unload(i_ref || t_ref);
    IF cardinality(i_ref) > 0 THEN
        RETURN QUERY
        WITH released AS (
            UPDATE durable_host.instances i SET lease = NULL, wake_at = CASE
                -- The end of a lease has brought everything back already.
                WHEN u.waits AND a_delay > 0 AND i.lease > 0 AND i.wake_at > v_now THEN least(v_now + a_delay, (
                    SELECT min(m.due) FROM durable_host.messages m WHERE m.ref = i.ref AND m.due > v_now
                ))
                ELSE (SELECT min(m.due) FROM durable_host.messages m WHERE m.ref = i.ref)
            END
            FROM unnest(i_ref, i_lease, i_waits) AS u (ref, lease, waits)
            WHERE i.ref = u.ref AND abs(i.lease) = u.lease AND i.quarantined IS NULL
            RETURNING i.wake_at
        )
        SELECT (durable_host.fact(5, NULL, NULL, min(r.wake_at) - v_now, NULL)).* FROM released r
        WHERE r.wake_at IS NOT NULL HAVING count(*) > 0;
    END IF;
    IF cardinality(t_id) > 0 THEN
        PERFORM 1
        FROM (SELECT t.id, t.lease FROM unnest(t_id, t_lease) AS t (id, lease) ORDER BY t.id COLLATE "C") AS u
        CROSS JOIN LATERAL (
            SELECT 1 FROM durable_host.activities a
            WHERE a.hub = a_hub AND a.dispatch_id = u.id AND a.lease = u.lease FOR UPDATE
        ) AS l;
        RETURN QUERY
        WITH released AS (
            UPDATE durable_host.activities a
            SET lease = NULL, wake_at = CASE WHEN a_delay > 0 THEN v_now + a_delay ELSE a.created_at END
            FROM unnest(t_id, t_lease) AS u (id, lease)
            WHERE a.hub = a_hub AND a.dispatch_id = u.id AND a.lease = u.lease
            RETURNING a.wake_at
        )
        SELECT (durable_host.fact(12, NULL, NULL, min(r.wake_at) - v_now, NULL)).* FROM released r HAVING count(*) > 0;
    END IF;
END
$$;

-- Take an instance out of circulation, if the lease is current or none is asked for; says which.
CREATE FUNCTION durable_host.quarantine(a_hub integer, a_ref bigint, a_lease bigint, a_reason text)
RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM durable_host.lock_and_unload(ARRAY[a_ref]);
    RETURN QUERY
    UPDATE durable_host.instances i SET
        quarantined = a_reason, own_status = i.status, status = CASE WHEN i.state IS NULL THEN NULL ELSE 'Failed' END,
        lease = NULL, wake_at = NULL
    WHERE i.hub = a_hub AND i.ref = a_ref AND (a_lease IS NULL OR abs(i.lease) = a_lease) AND i.quarantined IS NULL
    RETURNING i.instance_id;
END
$$;

-- Put quarantined instances back into circulation; says which.
CREATE FUNCTION durable_host.release_quarantined(a_hub integer, a_ids text[]) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1
    FROM (SELECT DISTINCT u.id COLLATE "C" AS id FROM unnest(a_ids) AS u (id) ORDER BY 1) AS u
    CROSS JOIN LATERAL (
        SELECT 1 FROM durable_host.instances i WHERE i.hub = a_hub AND i.instance_id = u.id FOR UPDATE
    ) AS l;
    RETURN QUERY
    UPDATE durable_host.instances i SET
        quarantined = NULL, status = i.own_status, own_status = NULL,
        wake_at = (SELECT min(m.due) FROM durable_host.messages m WHERE m.ref = i.ref)
    WHERE i.hub = a_hub AND i.instance_id = ANY (a_ids) AND i.quarantined IS NOT NULL
    RETURNING i.instance_id;
END
$$;

-- Remove instances with all that belongs to them; says which, and whether they had been started.
CREATE FUNCTION durable_host.purge(a_hub integer, a_ids text[], a_force boolean)
RETURNS TABLE (purged text, had_state boolean) LANGUAGE plpgsql AS $$
DECLARE
    v_refs bigint[];
BEGIN
    SELECT array_agg(f.ref) INTO v_refs FROM (
        SELECT l.ref
        FROM (SELECT DISTINCT u.id COLLATE "C" AS id FROM unnest(a_ids) AS u (id) ORDER BY 1) AS u
        CROSS JOIN LATERAL (
            SELECT i.ref FROM durable_host.instances i
            WHERE i.hub = a_hub AND i.instance_id = u.id
                AND (a_force OR i.status IN ('Completed', 'Failed', 'Terminated', 'Canceled'))
            FOR UPDATE
        ) AS l
    ) f;
    IF v_refs IS NULL THEN
        RETURN;
    END IF;
    DELETE FROM durable_host.messages m WHERE m.ref = ANY (v_refs);
    DELETE FROM durable_host.history h WHERE h.ref = ANY (v_refs);
    DELETE FROM durable_host.tags t WHERE t.ref = ANY (v_refs);
    DELETE FROM durable_host.activities a WHERE a.ref = ANY (v_refs);
    RETURN QUERY
    DELETE FROM durable_host.instances i WHERE i.ref = ANY (v_refs) RETURNING i.instance_id, i.state IS NOT NULL;
END
$$;

-- Take back every lease between two numbers that is live; a_some: only these.
CREATE FUNCTION durable_host.disown(a_hub integer, a_from bigint, a_to bigint, a_some bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_now bigint := durable_host.now_micros();
    v_refs bigint[];
    v_carrying bigint[];
BEGIN
    SELECT array_agg(f.ref) FILTER (WHERE f.taken), array_agg(f.ref) FILTER (WHERE f.carrying)
    INTO v_refs, v_carrying
    FROM (
        SELECT i.ref, i.carried_id IS NOT NULL AS carrying,
            i.lease BETWEEN a_from AND a_to AND (a_some IS NULL OR i.lease = ANY (a_some)) AS taken
        FROM durable_host.instances i
        WHERE i.hub = a_hub AND i.wake_at > v_now AND (
            i.lease BETWEEN a_from AND a_to AND (a_some IS NULL OR i.lease = ANY (a_some))
            OR i.carried_id IS NOT NULL AND i.carried_lease BETWEEN a_from AND a_to
                AND (a_some IS NULL OR i.carried_lease = ANY (a_some))
        )
        ORDER BY i.instance_id FOR UPDATE
    ) f;
    IF v_carrying IS NOT NULL THEN
        PERFORM durable_host.unload(v_carrying);
    END IF;
    UPDATE durable_host.instances i
    SET lease = NULL, wake_at = (SELECT min(m.due) FROM durable_host.messages m WHERE m.ref = i.ref)
    WHERE i.ref = ANY (v_refs);
    UPDATE durable_host.activities a SET lease = NULL, wake_at = a.created_at
    WHERE a.hub = a_hub AND a.dispatch_id IN (
        SELECT b.dispatch_id FROM durable_host.activities b
        WHERE b.hub = a_hub AND b.wake_at > v_now AND b.lease BETWEEN a_from AND a_to
            AND (a_some IS NULL OR b.lease = ANY (a_some))
        ORDER BY b.dispatch_id FOR UPDATE
    );
END
$$;
